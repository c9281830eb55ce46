//! Spans to an OTLP receiver: domain spans become the SDK's `SpanData`, one attempt is one
//! export call of the OTLP crate's exporter. No global provider and no batch processor: those
//! drop what a receiver does not take.
//!
//! Known limit: a receiver that takes a batch in part (`partial_success`) is only told from one
//! that took all of it by its own logs, since the crate keeps that answer to itself.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind as OtelKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, Key, KeyValue, StringValue, Value as OtelValue};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter, SpanLinks};
use tollgate_domain::span::{Attributes, Resource, Span, SpanEvent, SpanKind, SpanStatus, Value};

use crate::error::TelemetryError;
use crate::names;
use crate::otlp_client;
use crate::settings::OtlpSettings;
use crate::sink::Failure;

/// A client of one receiver.
#[derive(Debug)]
pub(crate) struct Otlp {
    exporter: OtlpExporter,
    scope: InstrumentationScope,
    endpoint: String,
    /// The crate's own quick retries included.
    attempt_timeout: Duration,
    retry_for: Duration,
}

impl Otlp {
    /// Builds the client. The receiver need not be up.
    pub(crate) fn new(
        settings: &OtlpSettings,
        resource: &Resource,
    ) -> Result<Self, TelemetryError> {
        let mut exporter = otlp_client::build(settings)?;
        exporter.set_resource(
            &opentelemetry_sdk::Resource::builder_empty()
                .with_schema_url(key_values(&resource.attributes), names::SCHEMA_URL)
                .build(),
        );
        let scope = InstrumentationScope::builder(names::SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(names::SCHEMA_URL)
            .build();
        Ok(Self {
            exporter,
            scope,
            endpoint: settings.endpoint.clone(),
            attempt_timeout: settings.timeout * 2 + Duration::from_secs(1),
            retry_for: settings.retry_for,
        })
    }

    /// How long a batch is retried.
    pub(crate) fn retries_for(&self) -> Duration {
        self.retry_for
    }

    /// One attempt at one batch.
    pub(crate) async fn send(&self, batch: &[Span]) -> Result<(), Failure> {
        let data = batch.iter().map(|span| span_data(span, &self.scope)).collect();
        let export = self.exporter.export(data);
        match tokio::time::timeout(self.attempt_timeout, export).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failure(&error.to_string())),
            Err(_) => Err(self.failure("no answer in time")),
        }
    }

    fn failure(&self, problem: &str) -> Failure {
        let worth_a_retry = worth_a_retry(problem);
        let advice = match worth_a_retry {
            true => "is the receiver up?",
            false => "these spans are lost; check endpoint, protocol and headers",
        };
        let message = format!("cannot export to {}: {problem}; {advice}", self.endpoint);
        Failure { message, worth_a_retry }
    }
}

/// Whether the receiver may take the same batch later. The crate tells the code in the text of
/// its error only; a text that is not understood is worth a retry.
fn worth_a_retry(problem: &str) -> bool {
    const REFUSED: [&str; 7] = [
        "InvalidArgument",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "Unauthenticated",
        "FailedPrecondition",
        "Unimplemented",
    ];
    if let Some((_, code)) = problem.split_once("gRPC code: ") {
        return !REFUSED.iter().any(|refused| code.starts_with(refused));
    }
    if let Some((_, code)) = problem.split_once("status code: ") {
        return ["429", "502", "503", "504"].iter().any(|retry| code.starts_with(retry));
    }
    !problem.contains("request will not be sent")
}

fn span_data(span: &Span, scope: &InstrumentationScope) -> SpanData {
    let trace_state = span.context.trace_state.as_deref();
    let mut events = SpanEvents::default();
    events.events = span.events.iter().map(otel_event).collect();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.context.trace_id.0),
            SpanId::from(span.context.span_id.0),
            if span.context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
            false,
            trace_state.and_then(|state| state.parse().ok()).unwrap_or(TraceState::NONE),
        ),
        parent_span_id: SpanId::from(span.parent.map_or(0, |parent| parent.0)),
        parent_span_is_remote: span.parent_is_remote,
        span_kind: match span.kind {
            SpanKind::Internal => OtelKind::Internal,
            SpanKind::Server => OtelKind::Server,
            SpanKind::Client => OtelKind::Client,
            SpanKind::Producer => OtelKind::Producer,
            SpanKind::Consumer => OtelKind::Consumer,
        },
        name: span.name.clone(),
        start_time: SystemTime::from(span.interval.start),
        end_time: SystemTime::from(span.interval.end),
        attributes: key_values(&span.attributes),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: match &span.status {
            SpanStatus::Unset => Status::Unset,
            SpanStatus::Ok => Status::Ok,
            SpanStatus::Error(message) => Status::error(message.clone()),
        },
        instrumentation_scope: scope.clone(),
    }
}

fn otel_event(event: &SpanEvent) -> Event {
    Event::new(event.name.clone(), event.time.into(), key_values(&event.attributes), 0)
}

fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let key = |key: &std::borrow::Cow<'static, str>| match key {
        std::borrow::Cow::Borrowed(name) => Key::from_static_str(name),
        std::borrow::Cow::Owned(name) => Key::from(name.clone()),
    };
    attributes.iter().map(|(name, value)| KeyValue::new(key(name), otel_value(value))).collect()
}

fn otel_value(value: &Value) -> OtelValue {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Text(value) => value.clone().into(),
        Value::List(items) => OtelValue::Array(otel_array(items)),
    }
}

/// OpenTelemetry's arrays are of one type; an empty or mixed list becomes one of texts.
fn otel_array(items: &[Value]) -> Array {
    fn all<T>(items: &[Value], pick: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
        let picked: Option<Vec<T>> = items.iter().map(pick).collect();
        picked.filter(|picked| !picked.is_empty())
    }
    let bools = all(items, |item| if let Value::Bool(b) = item { Some(*b) } else { None });
    let ints = all(items, |item| if let Value::Int(i) = item { Some(*i) } else { None });
    let doubles = all(items, |item| if let Value::Double(d) = item { Some(*d) } else { None });
    let typed = bools.map(Array::Bool).or(ints.map(Array::I64)).or(doubles.map(Array::F64));
    let texts = || items.iter().map(|item| StringValue::from(text(item))).collect();
    typed.unwrap_or_else(|| Array::String(texts()))
}

fn text(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        Value::List(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_outages() {
        let cases = [
            ("export failed with gRPC code: Unavailable: tcp connect error", true),
            ("export failed with gRPC code: Unauthenticated", false),
            ("export failed with gRPC code: Internal: h2 protocol error", true),
            ("HTTP export failed with status code: 503", true),
            ("HTTP export failed with status code: 400", false),
            ("HTTP export failed: network error", true),
            ("body is too large; request will not be sent and telemetry data is lost", false),
            ("no answer in time", true),
        ];
        for (problem, retry) in cases {
            assert_eq!(worth_a_retry(problem), retry, "{problem}");
        }
    }

    #[test]
    fn lists_keep_their_type() {
        let list = |items: Vec<Value>| otel_array(&items);
        assert_eq!(list(vec![1_i64.into(), 2_i64.into()]), Array::I64(vec![1, 2]));
        assert_eq!(list(vec![0.5.into()]), Array::F64(vec![0.5]));
        assert_eq!(list(vec![true.into()]), Array::Bool(vec![true]));
        let texts = vec!["a".into(), "1".into()];
        assert_eq!(list(vec!["a".into(), 1_i64.into()]), Array::String(texts));
        assert_eq!(list(Vec::new()), Array::String(Vec::new()));
    }
}
