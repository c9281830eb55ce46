//! The admin API's routes. What each answers stands in the description of [`super`].

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tollgate_gateway::{Admin, PluginStatus, Refusal};

use super::guard::{Guard, guard};
use super::parameters::{Parameters, refused};
use super::view::{PluginView, PluginsView};
use super::{backends, dashboard, limits, price, requests, shadow, stores, totals};
use crate::routes::{health, no_such_method, no_such_route};
use crate::{HttpSettings, body, error, openapi};

/// Largest usage record, in bytes.
const USAGE_BYTES: usize = 256 * 1024;

/// Everything that is served. Who is not let in does not learn what there is.
pub(super) fn router(admin: Admin, guarded_by: Guard) -> Router {
    let routes = Router::new()
        .route("/admin/plugins", get(plugins))
        .route("/admin/plugins/reload", post(reload))
        .route("/admin/plugins/{file}", get(plugin))
        .route("/admin/plugins/{file}/disable", post(disable))
        .route("/admin/plugins/{file}/enable", post(enable))
        .route("/admin/plugins/{file}/rollback", post(roll_back))
        .route("/admin/plugins/{file}/price", post(try_price))
        .route("/admin/backends", get(other_servers))
        .route("/admin/shadow", get(shadows))
        .route("/admin/requests", get(requests_on_record))
        .route("/admin/requests/in-flight", get(requests_in_flight))
        .route("/admin/requests/{number}", get(request_on_record))
        .route("/admin/totals", get(sums))
        .route("/admin/limits", get(all_limits))
        .route("/admin/ledger", get(ledger))
        .route("/admin/exporters", get(exporters))
        .route("/metrics", get(metrics))
        .route(openapi::ROUTE, get(openapi::admin))
        .with_state(admin);
    guarded(routes, guarded_by)
}

/// Adds what needs no gateway, and the guard before all but `/health` and the dashboard's files.
fn guarded(routes: Router, guarded_by: Guard) -> Router {
    routes
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(guarded_by, guard))
        .route("/health", get(health))
        .merge(dashboard::router())
}

async fn plugins(State(admin): State<Admin>) -> Response {
    Json(all(&admin)).into_response()
}

fn all(admin: &Admin) -> PluginsView {
    let plugins = admin.plugins().iter().map(PluginView::from).collect();
    PluginsView { generation: admin.generation(), plugins }
}

async fn plugin(State(admin): State<Admin>, Path(file): Path<String>) -> Response {
    let found = admin.plugin(&file);
    answer(found.map(|status| PluginView::whole(&status, &admin.meters())))
}

async fn other_servers(State(admin): State<Admin>) -> Response {
    Json(backends::view(&admin.backends())).into_response()
}

async fn reload(State(admin): State<Admin>) -> Response {
    let done = admin.reload().await;
    tracing::info!(done = done.is_ok(), "admin: reload");
    answer(done.map(|()| all(&admin)))
}

async fn disable(State(admin): State<Admin>, Path(file): Path<String>) -> Response {
    commanded("disable", &file, admin.disable(file.clone()).await)
}

async fn enable(State(admin): State<Admin>, Path(file): Path<String>) -> Response {
    commanded("enable", &file, admin.enable(file.clone()).await)
}

async fn roll_back(State(admin): State<Admin>, Path(file): Path<String>) -> Response {
    commanded("rollback", &file, admin.roll_back(file.clone()).await)
}

/// Who changes what serves leaves a trace in the log.
fn commanded(command: &str, file: &str, done: Result<PluginStatus, Refusal>) -> Response {
    match &done {
        Ok(_) => tracing::info!(command, file, "admin: done"),
        Err(refusal) => tracing::warn!(command, file, reason = refusal.message, "admin: refused"),
    }
    answer(done.map(|status| PluginView::from(&status)))
}

async fn try_price(
    State(admin): State<Admin>,
    Path(plugin): Path<String>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let patience = HttpSettings::default().body_timeout;
    let read = match body::read(&head.headers, body, USAGE_BYTES, patience).await {
        Ok(read) => body::check_type(&head.headers).map(|()| read),
        Err(error) => Err(error),
    };
    let posted = read.map_err(Refusal::from).and_then(|body| price::read(&body));
    match posted {
        Ok((tenant, usage)) => {
            let tried = admin.try_price(plugin, tenant, usage).await;
            answer(tried.map(price::Answer::from))
        }
        Err(refusal) => error::response(&refusal, None),
    }
}

async fn shadows(State(admin): State<Admin>) -> Response {
    Json(shadow::view(&admin.shadow())).into_response()
}

async fn requests_on_record(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let ask = match requests::read(query.as_deref()) {
        Ok(ask) => ask,
        Err(refusal) => return error::response(&refusal, None),
    };
    let page = admin.requests(ask.query, ask.before, ask.limit).await;
    answer(page.map(|page| requests::page(&page)))
}

async fn requests_in_flight(State(admin): State<Admin>) -> Response {
    let most = usize::try_from(requests::MOST).unwrap_or(usize::MAX);
    answer(admin.in_flight(most).await.map(|found| requests::in_flight(&found)))
}

async fn request_on_record(
    State(admin): State<Admin>,
    Path(number): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Ok(number) = number.parse() else {
        let message = format!("{number:?} is no number of a record; write one such as 1.");
        return error::response(&refused(message, "number"), None);
    };
    let exporter = match Parameters::read(query.as_deref(), &["exporter"]) {
        Ok(given) => given.text("exporter").map(str::to_owned),
        Err(refusal) => return error::response(&refusal, None),
    };
    let seen = admin.request(number, exporter.clone()).await;
    answer(seen.map(|seen| requests::seen(seen, exporter)))
}

async fn sums(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let ask = match totals::read(query.as_deref()) {
        Ok(ask) => ask,
        Err(refusal) => return error::response(&refusal, None),
    };
    let (period, bucket) = (ask.totals.period, ask.bucket());
    let sums = admin.totals(ask.totals).await;
    answer(sums.map(|sums| totals::view(&sums, period, bucket)))
}

async fn all_limits(State(admin): State<Admin>) -> Response {
    Json(limits::view(&admin.limits())).into_response()
}

async fn ledger(State(admin): State<Admin>) -> Response {
    Json(stores::ledger(&admin.ledger())).into_response()
}

async fn exporters(State(admin): State<Admin>) -> Response {
    answer(admin.exporters().await.map(|found| stores::exporters(&found)))
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    match admin.metrics_text(wants_open_metrics(&headers)).await {
        Ok(written) => {
            ([(header::CONTENT_TYPE, written.content_type)], written.text).into_response()
        }
        Err(refusal) => error::response(&refusal, None),
    }
}

/// Whether it is among the formats the client takes; Prometheus names it before all others.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/openmetrics-text")
    })
}

fn answer<T: Serialize>(done: Result<T, Refusal>) -> Response {
    match done {
        Ok(view) => Json(view).into_response(),
        Err(refusal) => error::response(&refusal, None),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{HeaderValue, StatusCode};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde_json::Value;

    use super::*;
    use crate::has_dashboard;

    const TOKEN: &str = "0123456789abcdef";

    /// The guard around a route that needs no gateway.
    fn routes() -> Router {
        let routes = Router::new().route("/metrics", get(|| async { "counted" }));
        guarded(routes, Guard::new(Some(TOKEN.to_owned())))
    }

    async fn ask(method: &str, path: &str, token: Option<&str>) -> (StatusCode, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(routes()).call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn nothing_but_health_and_the_page_is_open() {
        for (method, path) in [("GET", "/metrics"), ("GET", "/nothing"), ("POST", "/metrics")] {
            for token in [None, Some("wrong")] {
                let (status, headers, body) = ask(method, path, token).await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
                assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"tollgate\"");
                assert_eq!(body["error"]["code"], "unauthorized");
                assert_eq!(body["error"]["type"], "authentication_error");
            }
        }
        assert_eq!(ask("GET", "/health", None).await.0, StatusCode::OK);
        let (status, headers, _) = ask("GET", "/", None).await;
        match has_dashboard() {
            true => assert_eq!(
                (status, &headers[header::LOCATION].to_str().unwrap()),
                (StatusCode::TEMPORARY_REDIRECT, &"ui/")
            ),
            false => assert_eq!(status, StatusCode::UNAUTHORIZED),
        }
        assert_eq!(ask("GET", "/ui", None).await.0, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(ask("GET", "/ui/", None).await.0, StatusCode::OK);
        assert_eq!(ask("GET", "/ui/nothing", None).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("GET", "/metrics", Some(TOKEN)).await.0, StatusCode::OK);
        assert_eq!(ask("GET", "/nothing", Some(TOKEN)).await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask("POST", "/metrics", Some(TOKEN)).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        for (accept, wanted) in [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1", true),
            ("text/plain;version=0.0.4, application/OpenMetrics-Text; version=0.0.1", true),
            ("*/*", false),
            ("text/plain", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_open_metrics(&headers), wanted, "{accept}");
        }
        assert!(!wants_open_metrics(&HeaderMap::new()));
    }
}
