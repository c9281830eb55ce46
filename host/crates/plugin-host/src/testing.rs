//! Inputs for the tests of this crate.

use std::borrow::Cow;

use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{Span, SpanContext, SpanId, TokenUsage, TraceId, UnixNanos, Usage, Value};

/// A span with these attributes.
pub(crate) fn span(attributes: &[(&'static str, Value)]) -> Span {
    let mut all = Attributes::new();
    for (key, value) in attributes {
        all.set(*key, value.clone());
    }
    Span {
        context: SpanContext {
            trace_id: TraceId(1),
            span_id: SpanId(2),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: Cow::Borrowed("inference.request"),
        kind: SpanKind::Server,
        interval: Interval::new(UnixNanos(1), UnixNanos(2)),
        status: SpanStatus::Unset,
        attributes: all,
        events: Vec::new(),
        received: None,
    }
}

/// Usage of a model.
pub(crate) fn usage(model: &str) -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: model.to_owned(),
        response_model: model.to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_750_000_000_000_000_000),
        tokens: TokenUsage { input: 12, output: 34, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}
