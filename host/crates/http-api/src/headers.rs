//! Names of the headers this API adds, and reading and setting headers safely.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use tollgate_domain::{CostOutcome, RequestId, TraceId};

/// The request's id, as on its span.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The trace id, 32 hex digits.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-tollgate-trace-id");

/// The exact amount and its currency, `0.0000036 USD`; absent where there is no amount.
pub(crate) const COST: HeaderName = HeaderName::from_static("x-tollgate-cost");

/// `priced`, `estimated`, `unpriced` or `plugin_failed`.
pub(crate) const COST_STATUS: HeaderName = HeaderName::from_static("x-tollgate-cost-status");

/// Says under which ids a request is on record.
pub(crate) fn set_ids(headers: &mut HeaderMap, id: &RequestId, trace_id: TraceId) {
    set(headers, REQUEST_ID, &id.to_string());
    set(headers, TRACE_ID, &trace_id.to_string());
}

/// Says what a request cost.
pub(crate) fn set_cost(headers: &mut HeaderMap, outcome: &CostOutcome) {
    if let Some(cost) = outcome.cost() {
        set(headers, COST, &cost.total.to_string());
    }
    set(headers, COST_STATUS, outcome.status());
}

/// Sets a header, unless its value could not stand in one.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(error) => tracing::warn!(%name, %error, "a header was left out"),
    }
}

/// Sets headers of our own names, one for each value.
pub(crate) fn set_all(headers: &mut HeaderMap, pairs: &[(&'static str, String)]) {
    for (name, _) in pairs {
        headers.remove(*name);
    }
    for (name, value) in pairs {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                headers.append(HeaderName::from_static(name), value);
            }
            Err(error) => tracing::warn!(%name, %error, "a header was left out"),
        }
    }
}

/// The API key: the token of `Authorization: Bearer`, or `x-api-key`.
pub(crate) fn api_key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    token.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}

/// `traceparent`. Trace context forbids more than one, so that is as good as none.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let only = values.next()?;
    if values.next().is_some() {
        return None;
    }
    only.to_str().ok().map(str::to_owned)
}

/// `tracestate`, which may come in several headers that are one list.
pub(crate) fn tracestate(headers: &HeaderMap) -> Option<String> {
    let values: Result<Vec<&str>, _> =
        headers.get_all("tracestate").iter().map(HeaderValue::to_str).collect();
    values.ok().filter(|values| !values.is_empty()).map(|values| values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_several_values_keeps_each() {
        let mut headers = HeaderMap::new();
        headers.append("b", HeaderValue::from_static("of another"));
        let pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "\n")];
        set_all(&mut headers, &pairs.map(|(name, value)| (name, value.to_owned())));
        let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            (all("a"), all("b"), all("c")),
            (vec!["1".parse().unwrap(), "3".parse().unwrap()], vec!["2".parse().unwrap()], vec![])
        );
    }

    #[test]
    fn trace_context_is_read_as_w3c_says() {
        let mut headers = HeaderMap::new();
        assert_eq!((traceparent(&headers), tracestate(&headers)), (None, None));
        headers.append("traceparent", HeaderValue::from_static("00-a-b-01"));
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(traceparent(&headers).as_deref(), Some("00-a-b-01"));
        assert_eq!(tracestate(&headers).as_deref(), Some("a=1,b=2"));
        headers.append("traceparent", HeaderValue::from_static("00-c-d-01"));
        assert_eq!(traceparent(&headers), None);
    }
}
