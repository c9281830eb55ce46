//! Which headers of a client go on to a server: those that are for whoever answers, and none that are the client's own affair
//! with this gateway, or that belong to one connection.
//!
//! It is a list of what is held back, since nobody knows all that servers understand. Whatever carries a secret for somebody
//! else must be on it.

use http::header::{self, HeaderMap, HeaderName};

const HELD_BACK: [HeaderName; 35] = [
    // Who the client is: the gateway's own key takes the place of that.
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-amzn-oidc-data"),
    HeaderName::from_static("x-amzn-oidc-accesstoken"),
    HeaderName::from_static("x-goog-iap-jwt-assertion"),
    HeaderName::from_static("cf-access-jwt-assertion"),
    HeaderName::from_static("cf-access-client-secret"),
    // What belongs to one connection and one message of it.
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    // Answers are read, so they must not be compressed.
    header::ACCEPT_ENCODING,
    // What proxies in front of the gateway tell it.
    header::FORWARDED,
    header::VIA,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("baggage"),
    // By these a request would be another than the one that is priced.
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];
const HELD_BACK_FROM: [&str; 3] = ["x-tollgate-", "x-forwarded-", "x-envoy-"];

/// Takes out what does not go on.
pub(crate) fn hold_back(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let begun = headers
        .keys()
        .filter(|name| HELD_BACK_FROM.iter().any(|beginning| name.as_str().starts_with(beginning)));
    let begun: Vec<HeaderName> = begun.cloned().collect();
    for name in HELD_BACK.iter().chain(&named).chain(&begun) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_server_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("authorization", "Bearer x"),
            ("x-forwarded-host", "h"),
            ("x-tollgate-x", "1"),
            ("openai-beta", "assistants=v2"),
            ("accept", "text/event-stream"),
            ("content-type", "application/json"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        hold_back(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-type", "openai-beta"]);
    }
}
