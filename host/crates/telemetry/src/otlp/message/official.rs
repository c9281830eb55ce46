//! Spans as the messages of the official crate, field by field.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as OtlpSpan, Status, span as otlp_span,
};
use tollgate_domain::received::{Origin, SpanLink, by_origin};
use tollgate_domain::span::{Span, SpanEvent, SpanKind, SpanStatus};
use tollgate_domain::{SpanContext, otlp};

use super::{key_values, resource, scope};

/// A request with `spans`, as the bytes of one say; ours are of the origin `own`.
pub(crate) fn request(own: &Origin, spans: &[Span]) -> ExportTraceServiceRequest {
    let resource_spans = by_origin(spans).map(|(origin, spans)| {
        of_origin(origin.map_or(own, |origin| origin), spans.iter().map(span).collect())
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// Spans of one origin.
fn of_origin(origin: &Origin, spans: Vec<OtlpSpan>) -> ResourceSpans {
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

/// One span as it goes out.
fn span(span: &Span) -> OtlpSpan {
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
