//! Who may use the admin API.
//!
//! With a token: whoever sends it. Without one, which is for loopback only: programs on this
//! machine, but no pages in its browser save our own. A page of another site can make the browser send
//! requests to loopback, but not without saying so: it names its `Origin`, or, if it got itself a
//! name that resolves to loopback, that name as `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;
use tollgate_domain::ErrorKind;
use tollgate_gateway::Refusal;

use crate::error;

/// Lets in who may.
#[derive(Clone)]
pub(super) struct Guard(Option<Arc<str>>);

impl Guard {
    pub(super) fn new(token: Option<String>) -> Self {
        Self(token.map(Arc::from))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0 {
            Some(token) => check_token(headers, token),
            None => check_local(headers),
        }
    }
}

/// Answers in the routes' place where the guard says no.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Err(refusal) = guard.check(request.headers()) else { return next.run(request).await };
    tracing::warn!(path = request.uri().path(), reason = refusal.kind.name(), "admin: not let in");
    let mut response = error::response(&refusal, None);
    if refusal.kind == ErrorKind::Unauthorized {
        let scheme = HeaderValue::from_static("Bearer realm=\"tollgate\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Refusal> {
    let unauthorized = |message: &str| Err(Refusal::new(ErrorKind::Unauthorized, message));
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return unauthorized(
            "The admin API needs its token: send `Authorization: Bearer TOKEN`, once.",
        );
    };
    // The comparison takes as long for a nearly right token as for a wrong one; that its length
    // shows gives nothing away.
    match bearer(given.as_bytes()) {
        Some(given) if bool::from(given.ct_eq(token.as_bytes())) => Ok(()),
        _ => unauthorized("That is not the token of the admin API."),
    }
}

/// What follows the scheme, whose case does not matter.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn check_local(headers: &HeaderMap) -> Result<(), Refusal> {
    let local = match headers.get(header::HOST) {
        Some(host) => host.to_str().is_ok_and(is_loopback),
        None => true,
    };
    if local && is_own_page(headers) {
        return Ok(());
    }
    let message = "Without a token the admin API is for programs on this machine. Set one with \
                   `admin-token-file` or TOLLGATE_ADMIN_TOKEN.";
    Err(Refusal::new(ErrorKind::Forbidden, message))
}

/// Whether no page asks, or our own: its origin is the very address that is asked.
fn is_own_page(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next(), headers.get(header::HOST)) {
        (None, _, _) => true,
        (Some(origin), None, Some(host)) => {
            origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes())
        }
        _ => false,
    }
}

/// Whether a `Host` header names this machine by a name that nobody else can have.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_the_token_opens() {
        let guard = Guard::new(Some("0123456789abcdef".to_owned()));
        let auth = header::AUTHORIZATION;
        for (given, open) in [
            (vec!["Bearer 0123456789abcdef"], true),
            (vec!["bearer  0123456789abcdef "], true),
            (vec![], false),
            (vec!["Bearer 0123456789abcdeF"], false),
            (vec!["Bearer 0123456789abcde"], false),
            (vec!["Bearer 0123456789abcdef0"], false),
            (vec!["Bearer "], false),
            (vec!["Bearer"], false),
            (vec!["Basic 0123456789abcdef"], false),
            (vec!["0123456789abcdef"], false),
            (vec!["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"], false),
        ] {
            let pairs: Vec<_> = given.iter().map(|value| (auth.clone(), *value)).collect();
            let checked = guard.check(&headers(&pairs)).map_err(|refusal| refusal.kind);
            let wanted = if open { Ok(()) } else { Err(ErrorKind::Unauthorized) };
            assert_eq!(checked, wanted, "{given:?}");
        }
    }

    #[test]
    fn without_a_token_no_page_gets_in() {
        let guard = Guard::new(None);
        for (host, origin, open) in [
            (Some("127.0.0.1:9090"), None, true),
            (Some("localhost"), None, true),
            (Some("LOCALHOST:1"), None, true),
            (Some("[::1]:9090"), None, true),
            (None, None, true),
            (Some("127.0.0.1:9090"), Some("https://example.com"), false),
            (Some("127.0.0.1:9090"), Some("http://127.0.0.1:9090"), true),
            (Some("127.0.0.1:9090"), Some("http://127.0.0.1:9091"), false),
            (Some("127.0.0.1:9090"), Some("http://localhost:9090"), false),
            (Some("evil.example.com:9090"), Some("http://evil.example.com:9090"), false),
            (None, Some("http://127.0.0.1:9090"), false),
            (Some("127.0.0.1:9090"), Some("null"), false),
            (Some("rebound.example.com:9090"), None, false),
            (Some("127.0.0.1.example.com"), None, false),
            (Some("192.0.2.1"), None, false),
            (Some(""), None, false),
        ] {
            let host = host.map(|host| (header::HOST, host));
            let origin = origin.map(|origin| (header::ORIGIN, origin));
            let given = headers(&host.into_iter().chain(origin).collect::<Vec<_>>());
            let checked = guard.check(&given).map_err(|refusal| refusal.kind);
            let wanted = if open { Ok(()) } else { Err(ErrorKind::Forbidden) };
            assert_eq!(checked, wanted, "{given:?}");
        }
    }
}
