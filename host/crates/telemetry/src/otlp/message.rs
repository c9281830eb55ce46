//! Spans as OTLP's messages, of which JSON is made; protobuf is written without them
//! ([`tollgate_domain::otlp`]). Spans that others recorded and sent us keep their resource and their
//! scope, ours have ours.

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
use tollgate_domain::received::{Origin, Scope, SpanLink};
use tollgate_domain::span::{Attributes, Resource, Span, SpanEvent, SpanKind, SpanStatus, Value};
use tollgate_domain::{SpanContext, otlp};

use crate::names;

/// What our own spans are of.
pub(crate) fn own(resource: &Resource) -> Origin {
    Origin {
        resource: resource.clone(),
        resource_schema_url: names::SCHEMA_URL.to_owned(),
        scope: own_scope(),
        schema_url: names::SCHEMA_URL.to_owned(),
        ..Origin::default()
    }
}

/// Who records ours: this program, in this version.
pub(crate) fn own_scope() -> Scope {
    Scope {
        name: names::SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Scope::default()
    }
}

/// A request with `spans`, as the bytes of one say; ours are of the origin `own`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn request(own: &Origin, spans: &[Span]) -> ExportTraceServiceRequest {
    let of_one = spans.chunk_by(|one, other| Origin::is_same(one.origin(), other.origin()));
    let resource_spans = of_one.map(|spans| {
        let origin = spans.first().and_then(Span::origin);
        of_origin(origin.map_or(own, |origin| origin), spans.iter().map(span).collect())
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// Spans of one origin.
pub(crate) fn of_origin(origin: &Origin, spans: Vec<OtlpSpan>) -> ResourceSpans {
    let resource = OtlpResource {
        dropped_attributes_count: origin.resource_dropped_attributes,
        ..resource(&origin.resource)
    };
    let scope = Some(scope(&origin.scope));
    let scope_spans = ScopeSpans { scope, spans, schema_url: origin.schema_url.clone() };
    ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        schema_url: origin.resource_schema_url.clone(),
    }
}

/// Who recorded, within a process.
pub(crate) fn scope(scope: &Scope) -> InstrumentationScope {
    InstrumentationScope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: key_values(&scope.attributes),
        dropped_attributes_count: scope.dropped_attributes,
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
        flags: otlp::flags(span),
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

fn kind(kind: SpanKind) -> otlp_span::SpanKind {
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

fn status_of(status: &SpanStatus) -> (StatusCode, &str) {
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

#[cfg(test)]
mod tests;
