//! Spans as OTLP's messages, of which JSON is made; protobuf is written without them (`encode`). Spans
//! that others recorded and sent us keep their resource and their scope, ours have ours.

use std::sync::Arc;

#[cfg(any(test, feature = "fuzzing"))]
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span as otlp_span,
};
use tollgate_domain::SpanContext;
use tollgate_domain::received::{Origin, SpanLink};
use tollgate_domain::span::{Attributes, Resource, Span, SpanEvent, SpanKind, SpanStatus, Value};

use crate::names;

/// Of `Span.flags`: whether the parent is in another process is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// Of `Span.flags`: it is.
pub(crate) const IS_REMOTE: u32 = 0x200;
/// Of `Span.flags`, as of W3C: the trace is sampled.
pub(crate) const SAMPLED: u32 = 0x1;

/// Who recorded it; none: we.
pub(crate) fn origin(span: &Span) -> Option<&Arc<Origin>> {
    span.received.as_deref().map(|received| &received.origin)
}

/// A request with `spans`, as `encode` must write it; ours are of the resource `own`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn request(own: &OtlpResource, spans: &[Span]) -> ExportTraceServiceRequest {
    let of_one = spans.chunk_by(super::encode::is_of_one);
    let resource_spans = of_one.map(|spans| {
        let origin = spans.first().and_then(origin).map(|origin| &**origin);
        of_origin(own, origin, spans.iter().map(span).collect())
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// Spans of one origin.
pub(crate) fn of_origin(
    own: &OtlpResource,
    origin: Option<&Origin>,
    spans: Vec<OtlpSpan>,
) -> ResourceSpans {
    let (resource, resource_schema, scope, schema) = match origin {
        None => (own.clone(), names::SCHEMA_URL, scope(), names::SCHEMA_URL),
        Some(origin) => {
            let resource = OtlpResource {
                dropped_attributes_count: origin.resource_dropped_attributes,
                ..resource(&origin.resource)
            };
            let scope = InstrumentationScope {
                name: origin.scope.name.clone(),
                version: origin.scope.version.clone(),
                attributes: key_values(&origin.scope.attributes),
                dropped_attributes_count: origin.scope.dropped_attributes,
            };
            (resource, origin.resource_schema_url.as_str(), scope, origin.schema_url.as_str())
        }
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, schema_url: schema.to_owned() };
    ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        schema_url: resource_schema.to_owned(),
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

/// One span as it goes out.
pub(crate) fn span(span: &Span) -> OtlpSpan {
    let received = span.received.as_deref();
    OtlpSpan {
        trace_id: trace_id(&span.context),
        span_id: id(span.context.span_id.0),
        trace_state: span.context.trace_state.clone().unwrap_or_default(),
        parent_span_id: span.parent.map(|parent| id(parent.0)).unwrap_or_default(),
        flags: flags(span),
        name: span.name.clone().into_owned(),
        kind: kind(span.kind).into(),
        start_time_unix_nano: span.interval.start.0,
        end_time_unix_nano: span.interval.end.0,
        attributes: key_values(&span.attributes),
        dropped_attributes_count: received.map_or(0, |received| received.dropped_attributes),
        events: span.events.iter().map(event).collect(),
        dropped_events_count: received.map_or(0, |received| received.dropped_events),
        links: received
            .map(|received| received.links.iter().map(link).collect())
            .unwrap_or_default(),
        dropped_links_count: received.map_or(0, |received| received.dropped_links),
        status: Some(status(&span.status)),
    }
}

fn trace_id(context: &SpanContext) -> Vec<u8> {
    context.trace_id.0.to_be_bytes().to_vec()
}

fn id(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

fn link(link: &SpanLink) -> otlp_span::Link {
    otlp_span::Link {
        trace_id: trace_id(&link.context),
        span_id: id(link.context.span_id.0),
        trace_state: link.context.trace_state.clone().unwrap_or_default(),
        attributes: key_values(&link.attributes),
        dropped_attributes_count: link.dropped_attributes,
        flags: link.flags,
    }
}

/// As they were sent, where others sent them.
pub(crate) fn flags(span: &Span) -> u32 {
    if let Some(received) = &span.received {
        return received.flags;
    }
    let sampled = if span.context.sampled { SAMPLED } else { 0 };
    let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
    sampled | HAS_IS_REMOTE | remote
}

pub(crate) fn kind(kind: SpanKind) -> otlp_span::SpanKind {
    match kind {
        SpanKind::Unspecified => otlp_span::SpanKind::Unspecified,
        SpanKind::Internal => otlp_span::SpanKind::Internal,
        SpanKind::Server => otlp_span::SpanKind::Server,
        SpanKind::Client => otlp_span::SpanKind::Client,
        SpanKind::Producer => otlp_span::SpanKind::Producer,
        SpanKind::Consumer => otlp_span::SpanKind::Consumer,
    }
}

fn status(status: &SpanStatus) -> Status {
    let (code, message) = status_of(status);
    Status { code: code.into(), message: message.to_owned() }
}

/// A status, and what it says.
pub(crate) fn status_of(status: &SpanStatus) -> (StatusCode, &str) {
    match status {
        SpanStatus::Unset => (StatusCode::Unset, ""),
        SpanStatus::Ok => (StatusCode::Ok, ""),
        SpanStatus::Error(message) => (StatusCode::Error, message.as_str()),
    }
}

fn event(event: &SpanEvent) -> otlp_span::Event {
    otlp_span::Event {
        time_unix_nano: event.time.0,
        name: event.name.clone().into_owned(),
        attributes: key_values(&event.attributes),
        dropped_attributes_count: event.dropped_attributes,
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
        Value::Empty => return AnyValue::default(),
        Value::Bool(value) => any_value::Value::BoolValue(*value),
        Value::Int(value) => any_value::Value::IntValue(*value),
        Value::Double(value) => any_value::Value::DoubleValue(*value),
        Value::Text(value) => any_value::Value::StringValue(value.clone()),
        Value::Bytes(value) => any_value::Value::BytesValue(value.clone()),
        Value::List(items) => any_value::Value::ArrayValue(ArrayValue {
            values: items.iter().map(any_value).collect(),
        }),
        Value::Map(entries) => {
            any_value::Value::KvlistValue(KeyValueList { values: key_values(entries) })
        }
    };
    AnyValue { value: Some(value) }
}
