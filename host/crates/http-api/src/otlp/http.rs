//! OTLP/HTTP: `POST /v1/traces`, `/v1/metrics` and `/v1/logs` in protobuf or JSON. A refusal is a `google.rpc.Status` in the
//! request's own encoding, with `Retry-After` where another try makes sense.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tollgate_domain::ErrorKind;
use tollgate_gateway::{Encoding, Refusal, refused};

use super::{BODY_TIMEOUT, LARGEST, Otlp, What, body, grpc, not_there, slow};
use crate::{body as bodies, headers};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// An export.
pub(super) async fn exported(otlp: Otlp, what: What, request: Request) -> Response {
    let encoding = encoding(request.headers());
    match taken(otlp, what, encoding, request).await {
        Ok(answer) => answered(StatusCode::OK, encoding.unwrap_or(Encoding::Json), answer),
        Err(refusal) => refusal_of(&refusal, encoding),
    }
}

/// Anything else.
pub(super) async fn other(request: Request) -> Response {
    if grpc::is_grpc(request.headers()) {
        return grpc::refusal_of(&not_there(request.uri().path()));
    }
    refusal_of(&not_there(request.uri().path()), encoding(request.headers()))
}

async fn taken(
    otlp: Otlp,
    what: What,
    encoding: Option<Encoding>,
    request: Request,
) -> Result<Vec<u8>, Refusal> {
    let (head, body) = request.into_parts();
    let caller = otlp.gateway.authenticate(headers::api_key(&head.headers));
    let ready = caller.and_then(|caller| {
        let encoding = encoding.ok_or_else(|| {
            let message = format!("The body must be {PROTOBUF} or {JSON}, by its Content-Type.");
            Refusal::new(ErrorKind::UnsupportedMediaType, message)
        })?;
        Ok((caller, encoding, otlp.place()?))
    });
    let (caller, encoding, place) = match ready {
        Ok(ready) => ready,
        Err(refusal) => {
            bodies::skip(&head.headers, body).await;
            return Err(refusal);
        }
    };
    let body = bodies::read(&head.headers, body, LARGEST, BODY_TIMEOUT).await;
    let body = body.map_err(|error| slow(error.into()))?;
    let compression = head.headers.get(header::CONTENT_ENCODING).map(HeaderValue::to_str);
    let compression = compression.unwrap_or(Ok("")).unwrap_or("?").to_owned();
    let body = tokio::task::block_in_place(|| body::decompressed(&compression, body))?;
    let answer = otlp.take(caller, what, body, encoding).await?;
    drop(place);
    Ok(answer)
}

/// By what the body says that it is.
fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let declared = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match declared.split(';').next()?.trim().to_ascii_lowercase().as_str() {
        PROTOBUF => Some(Encoding::Protobuf),
        JSON => Some(Encoding::Json),
        _ => None,
    }
}

fn refusal_of(refusal: &Refusal, encoding: Option<Encoding>) -> Response {
    let encoding = encoding.unwrap_or(Encoding::Json);
    let status = match refusal.kind {
        // 408 is for whoever is to do something else; OTLP's senders come again on 503.
        ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        kind => {
            StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    };
    let code = grpc::code(refusal.kind);
    let body = refused(encoding, code, &refusal.message, refusal.retry_after);
    let mut response = answered(status, encoding, body);
    if let Some(wait) = refusal.retry_after {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        headers::set(response.headers_mut(), header::RETRY_AFTER, &format!("{seconds:.0}"));
    }
    response
}

fn answered(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let kind = match encoding {
        Encoding::Protobuf => PROTOBUF,
        Encoding::Json => JSON,
    };
    (status, [(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_too_slow_is_told_to_come_again() {
        let slow = slow(Refusal::new(ErrorKind::Timeout, "The body did not come."));
        let response = refusal_of(&slow, Some(Encoding::Protobuf));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let refused = super::slow(Refusal::new(ErrorKind::InvalidRequest, "It is none."));
        let response = refusal_of(&refused, None);
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
