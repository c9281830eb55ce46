//! OTLP/gRPC: the unary methods that export spans, metrics and logs, on HTTP/2 as gRPC frames it: a flag and a
//! length before the message, the status in the trailers.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tollgate_domain::ErrorKind;
use tollgate_domain::value::base64;
use tollgate_gateway::{Encoding, GrpcCode, Refusal, refused};

use super::{BODY_TIMEOUT, LARGEST, Otlp, What, body, slow};
use crate::{body as bodies, headers};

/// The methods.
pub(super) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub(super) const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub(super) const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

const CONTENT_TYPE: &str = "application/grpc";
const ENCODING: &str = "grpc-encoding";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The encodings that are read, which gRPC asks for where another one was used.
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Flag and length.
const HEAD: usize = 5;

/// Whether a request is gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    declared.is_some_and(|declared| declared.starts_with(CONTENT_TYPE))
}

/// An export.
pub(super) async fn exported(otlp: Otlp, what: What, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        let message = format!("The body must be {CONTENT_TYPE}, by its Content-Type.");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
    }
    match taken(otlp, what, request).await {
        Ok(answer) => answered(&answer),
        Err(refusal) => refusal_of(&refusal),
    }
}

async fn taken(otlp: Otlp, what: What, request: Request) -> Result<Vec<u8>, Refusal> {
    let (head, body) = request.into_parts();
    let caller = otlp.gateway.authenticate(headers::api_key(&head.headers))?;
    let place = otlp.place()?;
    let framed = bodies::read(&head.headers, body, LARGEST + HEAD, BODY_TIMEOUT).await;
    let framed = framed.map_err(|error| slow(error.into()))?;
    let encoding = head.headers.get(ENCODING).and_then(|value| value.to_str().ok());
    let encoding = encoding.unwrap_or_default().to_owned();
    let message = tokio::task::block_in_place(|| message(framed, &encoding))?;
    let answer = otlp.take(caller, what, message, Encoding::Protobuf).await?;
    drop(place);
    Ok(answer)
}

/// The one message of a body.
fn message(mut framed: Bytes, encoding: &str) -> Result<Bytes, Refusal> {
    let wrong = || {
        let message = "The body is not one gRPC message: a flag, its length, and as many bytes.";
        Refusal::new(ErrorKind::InvalidRequest, message)
    };
    let head = framed.get(..HEAD).ok_or_else(wrong)?;
    let [flag, length @ ..]: [u8; HEAD] = head.try_into().map_err(|_| wrong())?;
    let message = framed.split_off(HEAD);
    if u32::try_from(message.len()).ok() != Some(u32::from_be_bytes(length)) {
        return Err(wrong());
    }
    match flag {
        0 => Ok(message),
        1 => body::decompressed(encoding, message),
        _ => Err(wrong()),
    }
}

/// gRPC's code of a kind of refusal.
pub(super) fn code(kind: ErrorKind) -> GrpcCode {
    match kind {
        ErrorKind::InvalidRequest => GrpcCode::InvalidArgument,
        ErrorKind::TooLarge | ErrorKind::Overloaded | ErrorKind::RateLimited => {
            GrpcCode::ResourceExhausted
        }
        ErrorKind::Unauthorized => GrpcCode::Unauthenticated,
        ErrorKind::Forbidden => GrpcCode::PermissionDenied,
        ErrorKind::NotFound | ErrorKind::MethodNotAllowed | ErrorKind::UnsupportedMediaType => {
            GrpcCode::Unimplemented
        }
        ErrorKind::ShuttingDown | ErrorKind::RecordUnavailable | ErrorKind::Timeout => {
            GrpcCode::Unavailable
        }
        _ => GrpcCode::Internal,
    }
}

fn answered(message: &[u8]) -> Response {
    let mut framed = BytesMut::with_capacity(HEAD + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let frames = [Frame::data(framed.freeze()), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::new(body)).into_response()
}

/// A refusal has no message: its status is in the head.
pub(super) fn refusal_of(refusal: &Refusal) -> Response {
    let code = code(refusal.kind);
    let status = refused(Encoding::Protobuf, code, &refusal.message, refusal.retry_after);
    let mut response = [(header::CONTENT_TYPE, CONTENT_TYPE)].into_response();
    let to = response.headers_mut();
    headers::set(to, STATUS, &(code as i32).to_string());
    headers::set(to, MESSAGE, &percent_encoded(&refusal.message));
    if refusal.kind == ErrorKind::UnsupportedMediaType {
        headers::set(to, ACCEPT_ENCODING, "identity,gzip,zstd");
    }
    headers::set(to, DETAILS, base64(&status).trim_end_matches('='));
    response
}

/// As gRPC writes messages in a header: what is not printable ASCII in hexadecimal.
fn percent_encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_message() {
        for (framed, wanted) in [
            (&b"\0\0\0\0\x03abc"[..], Some("abc")),
            (b"\0\0\0\0\0", Some("")),
            (b"", None),
            (b"\0\0\0\0", None),
            (b"\0\0\0\0\x02abc", None),
            (b"\0\xff\xff\xff\xffabc", None),
            (b"\x02\0\0\0\x03abc", None),
            (b"\x01\0\0\0\x03abc", None),
        ] {
            let found = message(Bytes::from_static(framed), "gzip").ok();
            assert_eq!(found, wanted.map(Bytes::from), "{framed:?}");
        }
    }

    #[test]
    fn a_refusal_is_in_the_head() {
        let refusal = Refusal::new(ErrorKind::Overloaded, "100 % ä")
            .retry_after(std::time::Duration::from_secs(1));
        let response = refusal_of(&refusal);
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            (header(STATUS), header(MESSAGE)),
            ("8".to_owned(), "100 %25 %C3%A4".to_owned())
        );
        assert!(header(DETAILS).len() > 20);
        assert!(!response.headers().contains_key(ACCEPT_ENCODING));
        let unknown = body::decompressed("snappy", Bytes::new()).unwrap_err();
        let response = refusal_of(&unknown);
        assert_eq!(response.headers()[STATUS], "12");
        assert_eq!(response.headers()[ACCEPT_ENCODING], "identity,gzip,zstd");
    }
}
