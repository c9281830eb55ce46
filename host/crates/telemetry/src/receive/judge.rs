//! What a request says by the messages that prost reads of it: what [`decode`](super::decode) must
//! find without them.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status, span as otlp_span, status};
use prost::Message;
use tollgate_domain::received::{Group, Origin, Received, Scope, SpanLink};
use tollgate_domain::span::{Attributes, SpanEvent, SpanKind, SpanStatus, Value};
use tollgate_domain::time::Interval;
use tollgate_domain::{Resource, Span, SpanContext, SpanId, TraceId, UnixNanos};

use tollgate_domain::otlp::{IS_REMOTE, Incoming, SAMPLED};

/// All spans of a request; none if prost cannot read it.
pub(super) fn incoming(bytes: &[u8]) -> Option<Incoming> {
    let request = ExportTraceServiceRequest::decode(bytes).ok()?;
    let mut incoming = Incoming::default();
    for of_resource in request.resource_spans {
        let of_process = origin(of_resource.resource.unwrap_or_default(), of_resource.schema_url);
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.map(scope).unwrap_or_default();
            let origin = Origin { scope, schema_url: of_scope.schema_url, ..of_process.clone() };
            let mut group = Group { origin: Arc::new(origin), spans: Vec::new() };
            for sent in of_scope.spans {
                match span(sent, &group.origin) {
                    Ok(span) => group.spans.push(span),
                    Err(problem) => {
                        incoming.rejected += 1;
                        incoming.problem.get_or_insert_with(|| problem.to_owned());
                    }
                }
            }
            if !group.spans.is_empty() {
                incoming.groups.push(group);
            }
        }
    }
    Some(incoming)
}

fn origin(resource: OtlpResource, schema_url: String) -> Origin {
    Origin {
        resource: Resource { attributes: attributes(resource.attributes) },
        resource_dropped_attributes: resource.dropped_attributes_count,
        resource_schema_url: schema_url,
        ..Origin::default()
    }
}

fn scope(scope: InstrumentationScope) -> Scope {
    Scope {
        name: scope.name,
        version: scope.version,
        attributes: attributes(scope.attributes),
        dropped_attributes: scope.dropped_attributes_count,
        ..Scope::default()
    }
}

/// One span, or what is wrong with it.
fn span(sent: OtlpSpan, origin: &Arc<Origin>) -> Result<Span, &'static str> {
    let context = context(&sent.trace_id, &sent.span_id, sent.flags, sent.trace_state)?;
    let parent = match sent.parent_span_id.as_slice() {
        [] => None,
        id => span_id(id).ok_or("parentSpanId is not 8 bytes")?,
    };
    let received = Received {
        flags: sent.flags,
        // A link that leads nowhere tells nothing.
        links: sent.links.into_iter().filter_map(link).collect(),
        dropped_attributes: sent.dropped_attributes_count,
        dropped_events: sent.dropped_events_count,
        dropped_links: sent.dropped_links_count,
        origin: Arc::clone(origin),
        ..Received::default()
    };
    let (start, end) = (UnixNanos(sent.start_time_unix_nano), UnixNanos(sent.end_time_unix_nano));
    Ok(Span {
        context,
        parent,
        parent_is_remote: sent.flags & IS_REMOTE != 0,
        name: sent.name.into(),
        kind: kind(sent.kind),
        interval: Interval::new(start, end),
        status: sent.status.map_or(SpanStatus::Unset, outcome),
        attributes: attributes(sent.attributes),
        events: sent.events.into_iter().map(event).collect(),
        received: Some(Box::new(received)),
    })
}

fn context(
    trace: &[u8],
    span: &[u8],
    flags: u32,
    state: String,
) -> Result<SpanContext, &'static str> {
    let trace: [u8; 16] = trace.try_into().map_err(|_| "traceId is not 16 bytes")?;
    let trace = u128::from_be_bytes(trace);
    if trace == 0 {
        return Err("traceId is zero");
    }
    let span_id = span_id(span).ok_or("spanId is not 8 bytes")?.ok_or("spanId is zero")?;
    Ok(SpanContext {
        trace_id: TraceId(trace),
        span_id,
        sampled: flags & SAMPLED != 0,
        trace_state: Some(state).filter(|state| !state.is_empty()),
    })
}

/// `None`: it is not 8 bytes. `Some(None)`: it is zero.
fn span_id(bytes: &[u8]) -> Option<Option<SpanId>> {
    let id = u64::from_be_bytes(bytes.try_into().ok()?);
    Some((id != 0).then_some(SpanId(id)))
}

/// A kind that we do not know is none, as protobuf asks.
fn kind(kind: i32) -> SpanKind {
    match otlp_span::SpanKind::try_from(kind) {
        Ok(otlp_span::SpanKind::Internal) => SpanKind::Internal,
        Ok(otlp_span::SpanKind::Server) => SpanKind::Server,
        Ok(otlp_span::SpanKind::Client) => SpanKind::Client,
        Ok(otlp_span::SpanKind::Producer) => SpanKind::Producer,
        Ok(otlp_span::SpanKind::Consumer) => SpanKind::Consumer,
        Ok(otlp_span::SpanKind::Unspecified) | Err(_) => SpanKind::Unspecified,
    }
}

fn outcome(sent: Status) -> SpanStatus {
    match status::StatusCode::try_from(sent.code) {
        Ok(status::StatusCode::Ok) => SpanStatus::Ok,
        Ok(status::StatusCode::Error) => SpanStatus::Error(sent.message),
        Ok(status::StatusCode::Unset) | Err(_) => SpanStatus::Unset,
    }
}

fn event(event: otlp_span::Event) -> SpanEvent {
    SpanEvent {
        name: event.name.into(),
        time: UnixNanos(event.time_unix_nano),
        attributes: attributes(event.attributes),
        dropped_attributes: event.dropped_attributes_count,
    }
}

fn link(link: otlp_span::Link) -> Option<SpanLink> {
    Some(SpanLink {
        context: context(&link.trace_id, &link.span_id, link.flags, link.trace_state).ok()?,
        flags: link.flags,
        attributes: attributes(link.attributes),
        dropped_attributes: link.dropped_attributes_count,
    })
}

/// Of a key that stands twice the last value counts.
fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, value(pair.value))).collect()
}

fn value(sent: Option<AnyValue>) -> Value {
    use any_value::Value as Sent;
    match sent.and_then(|sent| sent.value) {
        Some(Sent::StringValue(text)) => Value::Text(text),
        Some(Sent::BoolValue(value)) => Value::Bool(value),
        Some(Sent::IntValue(value)) => Value::Int(value),
        Some(Sent::DoubleValue(value)) => Value::Double(value),
        Some(Sent::BytesValue(bytes)) => Value::Bytes(bytes),
        Some(Sent::ArrayValue(array)) => {
            Value::List(array.values.into_iter().map(|item| value(Some(item))).collect())
        }
        Some(Sent::KvlistValue(entries)) => Value::Map(attributes(entries.values)),
        // An index into a table that traces do not have.
        _ => Value::Empty,
    }
}
