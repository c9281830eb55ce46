//! Another server's answer: asking for it, and what our own eyes tell of a request that nobody here
//! has to understand.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};
use tollgate_domain::ErrorKind;
use tollgate_domain::record::ServedBy;
use tollgate_domain::upstream::{FailedAttempt, PlannedCall, Server, UpstreamCall};
use tollgate_telemetry::{propagation, upstream_context};
use tollgate_upstream::{
    Attempt, AttemptOutcome, Candidate, Exchange, Failed, FailedKind, Head, Outgoing, Route, Tried,
    UpstreamErrorKind,
};

use crate::call::{Forward, ForwardedHead, Moment, Refusal};
use crate::request::Request;

/// When a client may try again that found all backends busy.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The request as it is sent.
pub(crate) fn outgoing(request: &Request, forward: Forward, keep_output: bool) -> Outgoing {
    let Forward { path, mut headers, body } = forward;
    let context = upstream_context(&request.trace);
    // This trace's context takes the place of the client's, which it continues.
    headers.remove("tracestate");
    let is_named = headers.contains_key("x-request-id");
    let mut set = |name: &'static str, value: Option<&str>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("traceparent", Some(&propagation::traceparent(&context)));
    set("tracestate", context.trace_state.as_deref());
    if !is_named {
        set("x-request-id", Some(&request.id.0));
    }
    Outgoing {
        path: path.into(),
        method: request.http.method.parse().unwrap_or(Method::POST),
        body,
        stream: request.asked.stream,
        model: request.asked.model.clone(),
        headers,
        operation: request.operation,
        keep_output,
    }
}

/// The head of an answer, for the client.
pub(crate) fn head(exchange: &Exchange) -> ForwardedHead {
    let head = exchange.head();
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    ForwardedHead {
        status: head.status,
        content_type: head.content_type.clone(),
        headers: head.headers.iter().filter_map(text).collect(),
        form: exchange.form(),
    }
}

/// The call as it goes on record with the start: of the first who is asked, and who may be asked after
/// it, the model here (`fallback`) as the last.
pub(crate) fn planned_call(
    route: &Route,
    fallback: Option<ServedBy>,
    arrived: &Moment,
) -> Option<UpstreamCall> {
    let planned = |candidate: &Candidate| PlannedCall {
        backend: candidate.backend().to_owned(),
        server: server(candidate),
        by: ServedBy {
            provider: candidate.provider().to_owned(),
            model: candidate.model().to_owned(),
        },
    };
    let candidates = route.candidates();
    let first = candidates.first()?;
    let here = fallback.map(PlannedCall::here);
    let several = candidates.len() > 1 || here.is_some();
    let several = Some(candidates).filter(|_| several).unwrap_or_default();
    Some(UpstreamCall {
        backend: first.backend().to_owned(),
        server: Some(server(first)),
        interval: arrived.until_now(),
        status: None,
        response_id: None,
        failed: Vec::new(),
        planned: several.iter().map(planned).chain(here).collect(),
    })
}

/// The call as it goes on record once `answer` has come, or none will: that of the last who was asked.
pub(crate) fn call(tried: &Tried, answer: Option<&Head>, arrived: &Moment) -> Option<UpstreamCall> {
    let (last, began) = (tried.last()?, tried.began()?);
    let mut attempts = tried.attempts.as_slice();
    let ended = match (answer, &tried.asking, attempts.split_last()) {
        (Some(head), _, before) => {
            attempts = before.map_or(attempts, |(_, before)| before);
            head.first_byte_at
        }
        (None, None, Some((last, _))) => last.ended,
        (None, ..) => Instant::now(),
    };
    Some(UpstreamCall {
        backend: last.backend().to_owned(),
        server: Some(server(last)),
        interval: arrived.interval(began, ended),
        status: answer.map(|head| head.status),
        response_id: None,
        failed: failed(attempts, arrived),
        planned: Vec::new(),
    })
}

fn server(candidate: &Candidate) -> Server {
    let (host, port) = candidate.server();
    Server { host: host.to_owned(), port }
}

fn failed(attempts: &[Attempt], arrived: &Moment) -> Vec<FailedAttempt> {
    let one = |attempt: &Attempt| FailedAttempt {
        backend: attempt.candidate.backend().to_owned(),
        at: arrived.at(attempt.ended),
        error: match &attempt.outcome {
            AttemptOutcome::Answered { status } | AttemptOutcome::Refused { status, .. } => {
                format!("status {status}")
            }
            AttemptOutcome::Failed { message, .. } => message.clone(),
        },
    };
    attempts.iter().map(one).collect()
}

/// What to tell the client of backends that gave no answer.
pub(crate) fn refusal(failure: &Failed) -> Refusal {
    let status = failure.answer.as_ref().map(|answer| answer.status);
    let (kind, message) = match (failure.kind, status) {
        (FailedKind::Request, _) => (ErrorKind::InvalidRequest, failure.message.clone()),
        (FailedKind::Full, _) => (
            ErrorKind::Overloaded,
            "All backends of this model are busy. Try again shortly.".to_owned(),
        ),
        (_, Some(429)) => (
            ErrorKind::Overloaded,
            "The backend of this model has too much to do. Try again shortly.".to_owned(),
        ),
        (FailedKind::Resting, _) | (_, Some(503)) => (
            ErrorKind::BackendUnavailable,
            "No backend of this model can be asked at the moment. Try again shortly.".to_owned(),
        ),
        (FailedKind::Upstream(UpstreamErrorKind::Timeout), _) => (
            ErrorKind::BackendTimeout,
            "The backend of this model did not answer in time.".to_owned(),
        ),
        (FailedKind::Upstream(_), _) => {
            (ErrorKind::Backend, "The backend of this model failed.".to_owned())
        }
    };
    let mut refusal = Refusal::new(kind, message);
    refusal.param = failure.parameter.clone().map(String::into_boxed_str);
    refusal.retry_after = match kind {
        ErrorKind::Overloaded | ErrorKind::BackendUnavailable => {
            Some(failure.retry_after.unwrap_or(BUSY_RETRY))
        }
        _ => failure.retry_after,
    };
    refusal
}

/// What to tell the client of a backend that refuses the gateway's own key, which is nothing that a client can mend.
pub(crate) fn turned_away() -> Refusal {
    let message =
        "The backend of this model does not let the gateway in; its operator must see to it.";
    Refusal::new(ErrorKind::Backend, message)
}

/// What kind of failure an upstream's own error is; none if the request was served.
pub(crate) fn refused_by(status: u16) -> Option<ErrorKind> {
    match status {
        ..=399 => None,
        404 => Some(ErrorKind::ModelNotFound),
        408 | 504 => Some(ErrorKind::BackendTimeout),
        413 => Some(ErrorKind::TooLarge),
        429 => Some(ErrorKind::Overloaded),
        500.. => Some(ErrorKind::Backend),
        _ => Some(ErrorKind::InvalidRequest),
    }
}
