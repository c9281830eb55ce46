//! Reading a request's body: whole, within a size and within a time.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use futures::StreamExt;
use tollgate_domain::ErrorKind;
use tollgate_gateway::Refusal;

/// How much of a body that is too large is still read, and for how long. A client that is cut off
/// while it sends does not get to see why; most bodies that are too large are not too large for
/// this.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Why there is no body to read a request from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It has more than these many bytes, which is the limit.
    TooLarge(usize),
    /// It did not come within this time.
    TooSlow(Duration),
    /// The connection ended before it did.
    BrokenOff,
    /// By its own declaration it is something else than JSON.
    NotJson,
    /// It is compressed.
    Compressed,
}

/// The whole body.
///
/// # Errors
/// 413 over `limit` bytes, 408 after `patience`, 400 if it breaks off.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, BodyError> {
    let mut stream = body.into_data_stream();
    if announced(headers).is_some_and(|length| length > limit) {
        // Who asks before sending needs no discarding: it has not sent anything.
        if !headers.contains_key(header::EXPECT) {
            discard(&mut stream).await;
        }
        return Err(BodyError::TooLarge(limit));
    }
    let room = announced(headers).unwrap_or_default();
    match tokio::time::timeout(patience, collect(&mut stream, room, limit)).await {
        Ok(Err(BodyError::TooLarge(limit))) => {
            discard(&mut stream).await;
            Err(BodyError::TooLarge(limit))
        }
        Ok(read) => read,
        Err(_) => Err(BodyError::TooSlow(patience)),
    }
}

/// Refuses a body that says that it is something other than plain JSON. One that says nothing is
/// taken at its word.
///
/// # Errors
/// 415.
pub(crate) fn check_type(headers: &HeaderMap) -> Result<(), BodyError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => return Err(BodyError::Compressed),
        _ => {}
    }
    match headers.get(header::CONTENT_TYPE) {
        Some(declared) if !is_json(declared) => Err(BodyError::NotJson),
        _ => Ok(()),
    }
}

fn is_json(declared: &HeaderValue) -> bool {
    let Ok(declared) = declared.to_str() else { return false };
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The pieces of a body that has so many bytes, as far as is known: what grows is copied.
async fn collect(
    stream: &mut BodyDataStream,
    room: usize,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let mut whole = Vec::with_capacity(room);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| {
            tracing::debug!(%error, "a request body broke off");
            BodyError::BrokenOff
        })?;
        if piece.len() > limit.saturating_sub(whole.len()) {
            return Err(BodyError::TooLarge(limit));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// Lets go of a body that nobody will read, so that its connection can be used again.
pub(crate) async fn skip(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(header::EXPECT) {
        discard(&mut body.into_data_stream()).await;
    }
}

/// Reads on for a while without keeping anything.
async fn discard(stream: &mut BodyDataStream) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(piece)) = stream.next().await {
            seen += piece.len();
            if seen > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether it came to an end in time makes no difference to the answer.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        let (kind, message) = match error {
            BodyError::TooLarge(limit) => (
                ErrorKind::TooLarge,
                format!("The request body is larger than {limit} bytes, which is the limit."),
            ),
            BodyError::TooSlow(patience) => (
                ErrorKind::Timeout,
                format!("The request body did not arrive within {} s.", patience.as_secs_f64()),
            ),
            BodyError::BrokenOff => {
                (ErrorKind::InvalidRequest, "The request body broke off.".to_owned())
            }
            BodyError::NotJson => (
                ErrorKind::UnsupportedMediaType,
                "The body must be JSON: send it with the header `Content-Type: application/json`."
                    .to_owned(),
            ),
            BodyError::Compressed => (
                ErrorKind::UnsupportedMediaType,
                "Compressed request bodies are not supported.".to_owned(),
            ),
        };
        Self::new(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    async fn kind(headers: &HeaderMap, body: Body) -> ErrorKind {
        Refusal::from(read(headers, body, 8, PATIENCE).await.unwrap_err()).kind
    }

    fn pieces(pieces: &[&'static str]) -> Body {
        Body::from_stream(stream::iter(pieces.to_vec()).map(Ok::<_, Infallible>))
    }

    #[tokio::test(start_paused = true)]
    async fn size_and_time_are_bounded() {
        let none = HeaderMap::new();
        let whole = read(&none, pieces(&["1234", "5678"]), 8, PATIENCE).await.unwrap();
        assert_eq!(whole, "12345678");
        assert_eq!(kind(&none, pieces(&["1234", "56789"])).await, ErrorKind::TooLarge);
        let announced = headers(&[(header::CONTENT_LENGTH, "9")]);
        assert_eq!(kind(&announced, pieces(&["123456789"])).await, ErrorKind::TooLarge);
        let slow = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(kind(&none, slow).await, ErrorKind::Timeout);
        let slow = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(kind(&announced, slow).await, ErrorKind::TooLarge);
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("x"))]));
        assert_eq!(kind(&none, broken).await, ErrorKind::InvalidRequest);
    }

    #[test]
    fn json_goes_by_several_names() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            assert!(check_type(&headers(&[(header::CONTENT_TYPE, json)])).is_ok(), "{json}");
        }
        assert!(check_type(&HeaderMap::new()).is_ok());
        for other in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp", ""] {
            let refused = check_type(&headers(&[(header::CONTENT_TYPE, other)])).unwrap_err();
            assert_eq!(refused, BodyError::NotJson, "{other}");
        }
        assert!(check_type(&headers(&[(header::CONTENT_ENCODING, "gzip")])).is_err());
    }
}
