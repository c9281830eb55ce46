//! Spans as OTLP's messages.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, TracesData, span as otlp_span,
};
use tollgate_domain::span::{Attributes, Resource, Span, SpanEvent, SpanKind, SpanStatus, Value};

use crate::names;

/// Of `Span.flags`: whether the parent is in another process is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// Of `Span.flags`: it is.
const IS_REMOTE: u32 = 0x200;
/// Of `Span.flags`, as of W3C: the trace is sampled.
const SAMPLED: u32 = 0x1;

/// A request with `spans`, all of `resource` and of our scope.
pub(crate) fn request(resource: OtlpResource, spans: Vec<OtlpSpan>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest { resource_spans: vec![resource_spans(resource, spans)] }
}

/// The same as it lies in a file.
pub(crate) fn traces_data(resource: OtlpResource, spans: Vec<OtlpSpan>) -> TracesData {
    TracesData { resource_spans: vec![resource_spans(resource, spans)] }
}

fn resource_spans(resource: OtlpResource, spans: Vec<OtlpSpan>) -> ResourceSpans {
    let scope_spans =
        ScopeSpans { scope: Some(scope()), spans, schema_url: names::SCHEMA_URL.to_owned() };
    ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        schema_url: names::SCHEMA_URL.to_owned(),
    }
}

/// Who recorded: this program, in this version.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: names::SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// What all spans share.
pub(crate) fn resource(resource: &Resource) -> OtlpResource {
    OtlpResource { attributes: key_values(&resource.attributes), ..OtlpResource::default() }
}

/// One span.
pub(crate) fn span(span: &Span) -> OtlpSpan {
    let id = |id: u64| id.to_be_bytes().to_vec();
    OtlpSpan {
        trace_id: span.context.trace_id.0.to_be_bytes().to_vec(),
        span_id: id(span.context.span_id.0),
        trace_state: span.context.trace_state.clone().unwrap_or_default(),
        parent_span_id: span.parent.map(|parent| id(parent.0)).unwrap_or_default(),
        flags: flags(span),
        name: span.name.clone().into_owned(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.interval.start.0,
        end_time_unix_nano: span.interval.end.0,
        attributes: key_values(&span.attributes),
        events: span.events.iter().map(event).collect(),
        status: Some(status(&span.status)),
        ..OtlpSpan::default()
    }
}

fn flags(span: &Span) -> u32 {
    let sampled = if span.context.sampled { SAMPLED } else { 0 };
    let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
    sampled | HAS_IS_REMOTE | remote
}

fn kind(kind: SpanKind) -> otlp_span::SpanKind {
    match kind {
        SpanKind::Internal => otlp_span::SpanKind::Internal,
        SpanKind::Server => otlp_span::SpanKind::Server,
        SpanKind::Client => otlp_span::SpanKind::Client,
        SpanKind::Producer => otlp_span::SpanKind::Producer,
        SpanKind::Consumer => otlp_span::SpanKind::Consumer,
    }
}

fn status(status: &SpanStatus) -> Status {
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    let (code, message) = match status {
        SpanStatus::Unset => (StatusCode::Unset, ""),
        SpanStatus::Ok => (StatusCode::Ok, ""),
        SpanStatus::Error(message) => (StatusCode::Error, message.as_str()),
    };
    Status { code: code.into(), message: message.to_owned() }
}

fn event(event: &SpanEvent) -> otlp_span::Event {
    otlp_span::Event {
        time_unix_nano: event.time.0,
        name: event.name.clone().into_owned(),
        attributes: key_values(&event.attributes),
        dropped_attributes_count: 0,
    }
}

/// Attributes in their order.
pub(crate) fn key_values(attributes: &Attributes) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(key, value)| KeyValue {
            key: key.clone().into_owned(),
            value: Some(any_value(value)),
            ..KeyValue::default()
        })
        .collect()
}

fn any_value(value: &Value) -> AnyValue {
    let value = match value {
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Int(value) => any_value::Value::IntValue(*value),
        Value::Double(value) => any_value::Value::DoubleValue(*value),
        Value::Text(value) => any_value::Value::StringValue(value.clone()),
        Value::List(items) => any_value::Value::ArrayValue(ArrayValue {
            values: items.iter().map(any_value).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}
