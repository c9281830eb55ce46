//! The dashboard: files that are in the binary, open to everybody who reaches the listener. They
//! hold no data; what the page shows it asks the API for, with the operator's token.
//!
//! The page runs nothing but its own script from here, and nobody may frame it. A file's name has
//! the hash of its content, so browsers keep it for good; only `index.html` is asked for again.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::routes::no_such_route;

/// Name and content of each file.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

const PAGE: &str = "index.html";

/// What is served where the dashboard is not in the binary.
const LEFT_OUT: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Tollgate</title></head>\
    <body><h1>The dashboard is not in this program</h1>\
    <p>It was built without it (<code>--no-default-features</code>), or npm, which bundles the page, was not there \
    or could not reach its registry. Install Node.js 18 or newer with npm (Debian: <code>apt-get install nodejs \
    npm</code>) and run <code>cargo build</code> again: the build says why if it does not work.</p>\
    <p>Meanwhile the same figures are in the API under <code>/admin</code>, in <code>/metrics</code>, in \
    <code>tollgate top</code> and in <code>tollgate report</code>.</p></body></html>\n";

/// Own scripts and styles only, and no other server to talk to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether the page is in this program.
#[must_use]
pub fn has_dashboard() -> bool {
    find(PAGE).is_some()
}

/// Routes of the page. Without a slash at its end the page's own addresses would lead astray. Who comes to the listener
/// itself is led to the page, unless there is none: that may change with the next build.
pub(super) fn router() -> Router {
    let routes = match has_dashboard() {
        true => Router::new().route(
            "/",
            get(|| async { (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "ui/")]) }),
        ),
        false => Router::new(),
    };
    routes
        .route(
            "/ui",
            get(|| async { (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "ui/")]) }),
        )
        .route("/ui/", get(|headers: HeaderMap| async move { page(&headers) }))
        .route("/ui/{file}", get(file))
}

fn page(headers: &HeaderMap) -> Response {
    let content = find(PAGE).unwrap_or(LEFT_OUT.as_bytes());
    served(PAGE, content, "no-cache", headers)
}

async fn file(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    match find(&name) {
        Some(_) if name == PAGE => page(&headers),
        Some(content) => served(&name, content, "public, max-age=31536000, immutable", &headers),
        None => no_such_route(uri).await,
    }
}

fn find(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, content)| *content)
}

fn served(name: &str, content: &'static [u8], keep: &'static str, asked: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|known| known.trim() == tag);
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, content_type(name))], content).into_response(),
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    for (name, value) in [
        (header::CACHE_CONTROL, keep),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_as_what_it_is_and_not_twice() {
        for (name, content) in FILES {
            let first = served(name, content, "no-cache", &HeaderMap::new());
            assert_eq!(first.status(), StatusCode::OK);
            assert_ne!(first.headers()[header::CONTENT_TYPE], "application/octet-stream", "{name}");
            let mut again = HeaderMap::new();
            again.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
            let again = served(name, content, "no-cache", &again);
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{name}");
            assert_eq!(again.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        }
    }

    #[test]
    fn the_page_says_how_to_get_it_where_it_is_left_out() {
        assert!(LEFT_OUT.contains("npm") && LEFT_OUT.contains("cargo build"));
        assert!(!LEFT_OUT.contains("<script") && !LEFT_OUT.contains("style="));
    }
}
