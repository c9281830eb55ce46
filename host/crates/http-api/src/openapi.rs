//! What each listener says of itself at `/openapi.json`. The documents are kept by hand in `host/assets/openapi`, and held
//! against a gateway that runs by `tests/test_openapi.py`.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// Where it is found.
pub(crate) const ROUTE: &str = "/openapi.json";

/// Of the public API.
pub(crate) async fn public() -> Response {
    document(include_str!("../../../assets/openapi/public.json"))
}

/// Of the admin API.
pub(crate) async fn admin() -> Response {
    document(include_str!("../../../assets/openapi/admin.json"))
}

fn document(text: &'static str) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], text).into_response()
}
