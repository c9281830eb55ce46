//! Refusals and failures in OpenAI's form.
//!
//! `type` is OpenAI's coarse class, which its clients know; `code` is our own name of the kind, the
//! same as `error.type` on the span. Where the request is on record, its ids stand beside the
//! error and in the headers; where it failed in the middle, so does what it used and cost.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tollgate_domain::{ErrorKind, RequestId};
use tollgate_gateway::Refusal;

use crate::account::Account;
use crate::{headers, response};

/// The HTTP answer.
pub(crate) fn response(refusal: &Refusal, account: Option<&Account<'_>>) -> Response {
    let status = StatusCode::from_u16(refusal.kind.http_status())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, response::json(body(refusal, account))).into_response();
    if let Some((id, trace_id)) = refusal.recorded.as_deref() {
        headers::set_ids(response.headers_mut(), id, *trace_id);
    }
    if let Some(limit) = &refusal.limit {
        headers::set_all(response.headers_mut(), &limit.headers);
    }
    if let Some(wait) = refusal.retry_after {
        // The header counts whole seconds; too late is better than too early.
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        let value = HeaderValue::from_str(&format!("{seconds:.0}"));
        response.headers_mut().extend(value.ok().map(|value| (header::RETRY_AFTER, value)));
    }
    response
}

/// Its body, which is also the event that ends a stream that fails.
pub(crate) fn body(refusal: &Refusal, account: Option<&Account<'_>>) -> String {
    let (request_id, trace_id) = match refusal.recorded.as_deref() {
        Some((id, trace_id)) => (Some(id), Some(trace_id.to_string())),
        None => (None, None),
    };
    response::to_json(&Body {
        error: Error {
            message: &refusal.message,
            class: class(refusal.kind),
            param: refusal.param.as_deref(),
            code: refusal.kind.name(),
        },
        request_id,
        // The account has it too.
        trace_id: trace_id.filter(|_| account.is_none()),
        account,
    })
}

#[derive(Serialize)]
struct Body<'a> {
    error: Error<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(flatten)]
    account: Option<&'a Account<'a>>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    class: &'static str,
    param: Option<&'a str>,
    code: &'static str,
}

/// OpenAI's class of a kind of failure.
fn class(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::ContextLengthExceeded
        | ErrorKind::TooLarge
        | ErrorKind::ModelNotFound
        | ErrorKind::NotFound
        | ErrorKind::MethodNotAllowed
        | ErrorKind::Conflict
        | ErrorKind::UnsupportedMediaType => "invalid_request_error",
        ErrorKind::Unauthorized => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::Overloaded | ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BudgetExhausted => "insufficient_quota",
        ErrorKind::ShuttingDown
        | ErrorKind::PricingUnavailable
        | ErrorKind::LimitsUnavailable
        | ErrorKind::RecordUnavailable
        | ErrorKind::Backend
        | ErrorKind::BackendTimeout
        | ErrorKind::BackendUnavailable
        | ErrorKind::Internal => "server_error",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tollgate_domain::{CostOutcome, TokenUsage, TraceId, UnpricedReason};

    use super::*;

    #[test]
    fn an_error_names_kind_parameter_and_ids() {
        let mut refusal = Refusal::new(ErrorKind::InvalidRequest, "`n` must be 1.").param("n");
        let error = r#""error":{"message":"`n` must be 1.","type":"invalid_request_error","param":"n","code":"invalid_request"}"#;
        assert_eq!(body(&refusal, None), format!("{{{error}}}"));
        refusal.recorded = Some(Box::new((RequestId("r1".to_owned()), TraceId(7))));
        let ids = r#""request_id":"r1","trace_id":"00000000000000000000000000000007""#;
        assert_eq!(body(&refusal, None), format!("{{{error},{ids}}}"));
        let cost = CostOutcome::Unpriced { reason: UnpricedReason::NoCostPlugin };
        let account = Account::new(&TokenUsage::default(), &cost, TraceId(7));
        assert_eq!(
            body(&refusal, Some(&account)),
            format!(
                r#"{{{error},"request_id":"r1","prompt_tokens":0,"completion_tokens":0,"estimated_cost_usd":null,"cost":{{"status":"unpriced","reason":"no_cost_plugin"}},"trace_id":"00000000000000000000000000000007"}}"#
            )
        );
    }

    #[test]
    fn the_head_says_when_to_try_again() {
        let mut refusal =
            Refusal::new(ErrorKind::Overloaded, "Full.").retry_after(Duration::from_millis(1_200));
        refusal.recorded = Some(Box::new((RequestId("r1".to_owned()), TraceId(7))));
        let response = response(&refusal, None);
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        assert_eq!(header("retry-after"), Some("2"));
        assert_eq!(header("x-request-id"), Some("r1"));
        assert_eq!(header("x-tollgate-trace-id"), Some("00000000000000000000000000000007"));
        assert_eq!(header("content-type"), Some("application/json"));
    }
}
