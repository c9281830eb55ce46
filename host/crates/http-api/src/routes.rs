//! The routes: what there is to ask, and the way of a request through this crate.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, request};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_domain::ErrorKind;
use tollgate_domain::record::Operation;
use tollgate_gateway::{
    Answer, Arrival, Call, Caller, Form, Forward, Gateway, ModelCard, Moment, Readiness, Refusal,
};
use tracing::Instrument;

use crate::path::{self, Named};
use crate::request::Malformed;
use crate::tokens::Question;
use crate::wire::Wire;
use crate::{
    HttpSettings, body, embeddings, error, forwarded, headers, openapi, request as requests,
    response, sse, tokens,
};

// Where vLLM has them.
const TOKENIZE: &str = "/tokenize";
const DETOKENIZE: &str = "/detokenize";
const ANYTHING: &str = "/v1/{*path}";

/// What handlers share.
#[derive(Clone)]
struct Api {
    gateway: Gateway,
    max_body_bytes: usize,
    body_timeout: Duration,
}

/// Everything that is served.
pub(crate) fn router(gateway: Gateway, settings: &HttpSettings) -> Router {
    let api = Api {
        gateway,
        max_body_bytes: settings.max_body_bytes,
        body_timeout: settings.body_timeout,
    };
    let routes = Router::new()
        .route(ANYTHING, any(below))
        .route(TOKENIZE, post(tokenize))
        .route(DETOKENIZE, post(detokenize))
        .route("/ready", get(ready));
    with_rest(routes).with_state(api)
}

/// Adds what needs no gateway.
fn with_rest<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .route("/health", get(health))
        .route(openapi::ROUTE, get(openapi::public))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
}

/// All that is below `/v1`. Which of it is known is seen by the path in its one spelling, and that is what goes on.
async fn below(State(api): State<Api>, request: Request) -> Response {
    let method = request.method();
    let asks = matches!(*method, Method::GET | Method::HEAD);
    if asks && let Some(id) = path::model(request.uri().path()) {
        return model(&api, &id, request.headers());
    }
    let normal = match path::normal(request.uri().path()) {
        Ok(normal) => normal,
        Err(odd) => return no_such_path(odd),
    };
    let named = path::named(&normal);
    match &named {
        Named::Operation(operation, route) if method == Method::POST => {
            return infer(api, *operation, route, route, request).await;
        }
        Named::Models if asks => return models(&api, request.headers()),
        Named::Model(id) if asks => return model(&api, id, request.headers()),
        _ if api.gateway.forwards() => {
            return infer(api, Operation::Other, ANYTHING, &normal, request).await;
        }
        _ => {}
    }
    let allowed = match named {
        Named::Operation(..) => "POST",
        Named::Models | Named::Model(_) => "GET,HEAD",
        Named::Other => return no_such_route(request.uri().clone()).await,
    };
    let mut response = no_such_method(request).await;
    headers::set(response.headers_mut(), header::ALLOW, allowed);
    response
}

async fn tokenize(State(api): State<Api>, request: Request) -> Response {
    count(api, Question::Tokenize, request).await
}

async fn detokenize(State(api): State<Api>, request: Request) -> Response {
    count(api, Question::Detokenize, request).await
}

/// A question about tokens. Like that for models it is on no record.
async fn count(api: Api, question: Question, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (caller, body) = match known(&api, &head, body).await {
        Ok(known) => known,
        Err(response) => return response,
    };
    let body = body::read(&head.headers, body, api.max_body_bytes, api.body_timeout).await;
    let body = body.and_then(|body| body::check_type(&head.headers).map(|()| body));
    let answer = body
        .map_err(Refusal::from)
        .and_then(|body| tokens::answer(question, &api.gateway, &caller, &body));
    answer.unwrap_or_else(|refusal| error::response(&refusal, None))
}

/// Who asks, before anything of the body is read: a stranger's is not worth it.
async fn known(api: &Api, head: &request::Parts, body: Body) -> Result<(Caller, Body), Response> {
    match api.gateway.authenticate(headers::api_key(&head.headers)) {
        Ok(caller) => Ok((caller, body)),
        Err(refusal) => {
            body::skip(&head.headers, body).await;
            Err(error::response(&refusal, None))
        }
    }
}

/// A request for an answer, from its first byte to the first of the answer. `path` is how another server gets it.
async fn infer(
    api: Api,
    operation: Operation,
    route: &str,
    path: &str,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let (caller, body) = match known(&api, &head, body).await {
        Ok(known) => known,
        Err(response) => return response,
    };
    let body = body::read(&head.headers, body, api.max_body_bytes, api.body_timeout).await;
    // Only now: how long the client takes to send is not ours to answer for.
    let arrival = arrival(operation, route, &head, caller);
    let body = body.and_then(|body| match operation {
        Operation::Other => Ok(body),
        _ => body::check_type(&head.headers).map(|()| body),
    });
    let places = |model: &str, user: Option<&str>| api.gateway.places(model, &arrival.caller, user);
    let parsed = match &body {
        Ok(body) => requests::parse(operation, content_type(&head.headers), body, places),
        Err(error) => Err(Box::new(Malformed::from(Refusal::from(*error)))),
    };
    let request = match parsed {
        Ok(request) => request,
        Err(malformed) => {
            let Malformed { refusal, asked, user } = *malformed;
            let refusal = api.gateway.refuse(&arrival, asked, user, refusal).await;
            return error::response(&refusal, None);
        }
    };
    let wire = request.wire();
    let call: Call = request.into_call(arrival, forward(head, path, body.unwrap_or_default()));
    let stream = call.asked.stream;
    match api.gateway.serve(call).await {
        Ok(answer) => told(operation, answer, stream, wire).await,
        Err(refusal) => error::response(&refusal, None),
    }
}

/// The request as another server gets it.
fn forward(head: request::Parts, path: &str, body: Bytes) -> Forward {
    let path = path.strip_prefix("/v1").unwrap_or(path);
    Forward {
        path: head.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")),
        headers: head.headers,
        body,
    }
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// An answer as its client reads it.
async fn told(operation: Operation, mut answer: Answer, stream: bool, wire: Wire) -> Response {
    let (log, left) = (answer.log_span(), std::mem::take(&mut answer.headers));
    let mut response = match answer.form.clone() {
        Form::Forwarded(head) => forwarded::response(operation, answer, head).instrument(log).await,
        Form::Pieces { choices } if stream => sse::response(operation, choices, answer, wire),
        Form::Pieces { choices } if operation == Operation::Embeddings => {
            embeddings::whole(choices, answer, wire.base64).instrument(log).await
        }
        Form::Pieces { choices } => {
            response::whole(operation, choices, answer, wire).instrument(log).await
        }
    };
    headers::set_all(response.headers_mut(), &left);
    response
}

fn arrival(operation: Operation, route: &str, head: &request::Parts, caller: Caller) -> Arrival {
    Arrival {
        operation,
        method: head.method.to_string(),
        route: route.to_owned(),
        traceparent: headers::traceparent(&head.headers),
        tracestate: headers::tracestate(&head.headers),
        caller,
        at: Moment::now(),
    }
}

fn models(api: &Api, headers: &HeaderMap) -> Response {
    let cards = match known_models(api, headers) {
        Ok(cards) => cards,
        Err(refusal) => return error::response(&refusal, None),
    };
    let cards: Vec<Value> = cards.iter().map(card).collect();
    Json(json!({"object": "list", "data": cards})).into_response()
}

/// A model's name may have slashes, as those of Hugging Face do.
fn model(api: &Api, id: &str, headers: &HeaderMap) -> Response {
    let found = known_models(api, headers).and_then(|cards| {
        cards.into_iter().find(|model| model.id == id).ok_or_else(|| {
            let message = "There is no such model. `GET /v1/models` lists those that there are.";
            Refusal::new(ErrorKind::ModelNotFound, message).param("model")
        })
    });
    match found {
        Ok(model) => Json(card(&model)).into_response(),
        Err(refusal) => error::response(&refusal, None),
    }
}

fn known_models(api: &Api, headers: &HeaderMap) -> Result<Vec<ModelCard>, Refusal> {
    let caller = api.gateway.authenticate(headers::api_key(headers))?;
    Ok(api.gateway.models(&caller))
}

/// As vLLM's; `root` is the model that really answers, where the name is an alias.
fn card(model: &ModelCard) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created.seconds(),
        "owned_by": model.owner,
        "root": model.root,
        "parent": null,
        "max_model_len": model.context_length,
    })
}

/// Whether the process answers at all.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether it makes sense to send it requests.
async fn ready(State(api): State<Api>) -> Response {
    match api.gateway.readiness() {
        Readiness::Ready => Json(json!({"status": "ready"})).into_response(),
        Readiness::NotReady { reason } => {
            let body = Json(json!({"status": "not_ready", "reason": reason}));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// 400, for a path that is not the same to all servers.
fn no_such_path(odd: path::Odd) -> Response {
    let message = format!(
        "The path has {odd}, which is not the same to all servers. Write it plainly, as in \
         /v1/chat/completions."
    );
    error::response(&Refusal::new(ErrorKind::InvalidRequest, message).param("path"), None)
}

/// 404, with the path.
pub(crate) async fn no_such_route(uri: Uri) -> Response {
    // Its path may be anything, so no more of it is repeated than fits a line.
    let path: String = uri.path().chars().take(100).collect();
    let message = format!("There is nothing at {path}.");
    error::response(&Refusal::new(ErrorKind::NotFound, message), None)
}

/// 405, with the method.
pub(crate) async fn no_such_method(request: Request) -> Response {
    let message = format!("{} is not what this route takes; see `Allow`.", request.method());
    error::response(&Refusal::new(ErrorKind::MethodNotAllowed, message), None)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use tollgate_domain::UnixNanos;

    use super::*;

    /// The real routes' shape, without a gateway behind them.
    fn routes() -> Router {
        with_rest(Router::new().route(path::COMPLETIONS, post(|| async { "served" })))
    }

    async fn ask(method: &str, path: &str) -> (StatusCode, HeaderMap, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(routes()).call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        (head.status, head.headers, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn what_is_not_there_is_an_error_object() {
        let (status, _, body) = ask("GET", "/v1/nothing").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(body["error"]["code"], "not_found");
        assert_eq!(body["error"]["message"], "There is nothing at /v1/nothing.");
        let (status, headers, body) = ask("GET", path::COMPLETIONS).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[header::ALLOW], "POST");
        assert_eq!(body["error"]["code"], "method_not_allowed");
        let (status, headers, _) = ask("POST", "/health").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[header::ALLOW], "GET,HEAD");
    }

    #[tokio::test]
    async fn health_is_what_the_tutorial_checks() {
        let (status, _, body) = ask("GET", "/health").await;
        assert_eq!((status, body), (StatusCode::OK, json!({"status": "ok"})));
    }

    #[test]
    fn a_card_tells_an_alias_from_its_model() {
        let model = ModelCard {
            id: "mistral-7b".to_owned(),
            root: "tollgate-demo".to_owned(),
            created: UnixNanos(1_700_000_000_500_000_000),
            context_length: Some(1024),
            owner: "tollgate".to_owned(),
        };
        assert_eq!(
            card(&model),
            json!({
                "id": "mistral-7b", "object": "model", "created": 1_700_000_000,
                "owned_by": "tollgate", "root": "tollgate-demo", "parent": null,
                "max_model_len": 1024,
            })
        );
    }
}
