//! A span as a line of JSON: every field of the tutorial's exporter, so that its analysis runs
//! unchanged, and parent, kind, events, resource.

use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_domain::received::{Origin, Scope};
use tollgate_domain::span::{Attributes, Resource, Span, SpanKind, SpanStatus, Value};
use tollgate_domain::value::Plain;

use crate::names;

/// One line a span, each with its newline.
pub(crate) fn lines(spans: &[Span], resource: &Resource) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spans.len() * 1024);
    for of_one in spans.chunk_by(|one, other| Origin::is_same(one.origin(), other.origin())) {
        let Some(process) = of_one.first().and_then(|span| Process::of(span, resource)) else {
            continue;
        };
        for span in of_one {
            let before = bytes.len();
            match serde_json::to_writer(&mut bytes, &Line::new(span, &process)) {
                Ok(()) => bytes.push(b'\n'),
                // Cannot happen: all keys are text and a vector takes every write.
                Err(_) => bytes.truncate(before),
            }
        }
    }
    bytes
}

/// A span as a JSON value: what a line of the file says of it.
#[must_use]
pub fn span_json(span: &Span, resource: &Resource) -> serde_json::Value {
    // That it fails cannot happen, as with a line.
    let line = |process| serde_json::to_value(Line::new(span, &process)).ok();
    Process::of(span, resource).and_then(line).unwrap_or_default()
}

/// What the lines of all spans of one process say alike, written once.
struct Process<'a> {
    service: &'a str,
    resource: Box<RawValue>,
}

impl<'a> Process<'a> {
    /// Of the process that recorded `span`; ours is `resource`.
    fn of(span: &'a Span, resource: &'a Resource) -> Option<Self> {
        let resource = span.origin().map_or(resource, |origin| &origin.resource);
        let service = match resource.attributes.get(names::resource::SERVICE_NAME) {
            Some(Value::Text(service)) => service,
            _ => "",
        };
        let resource = serde_json::value::to_raw_value(&Map(&resource.attributes)).ok()?;
        Some(Self { service, resource })
    }
}

#[derive(Serialize)]
struct Line<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: &'a str,
    kind: SpanKind,
    start_time_ns: u64,
    end_time_ns: u64,
    duration_ms: f64,
    attributes: Map<'a>,
    events: Vec<Event<'a>>,
    status: &'static str,
    status_message: Option<&'a str>,
    service: &'a str,
    resource: &'a RawValue,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<Link>,
    /// Of spans that others recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Named<'a>>,
}

#[derive(Serialize)]
struct Link {
    trace_id: String,
    span_id: String,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    time_ns: u64,
    attributes: Map<'a>,
}

/// Attributes as a JSON object; domain's own form is for storage.
struct Map<'a>(&'a Attributes);

impl Serialize for Map<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Plain(value))))
    }
}

impl<'a> Line<'a> {
    fn new(span: &'a Span, process: &'a Process<'a>) -> Self {
        let (status, status_message) = match &span.status {
            SpanStatus::Unset => ("UNSET", None),
            SpanStatus::Ok => ("OK", None),
            SpanStatus::Error(message) => ("ERROR", Some(message.as_str())),
        };
        let received = span.received.as_deref();
        let link = |link: &tollgate_domain::received::SpanLink| Link {
            trace_id: link.context.trace_id.to_string(),
            span_id: link.context.span_id.to_string(),
        };
        let scope = |scope: &'a Scope| Named { name: &scope.name, version: &scope.version };
        let event = |event: &'a tollgate_domain::span::SpanEvent| Event {
            name: &event.name,
            time_ns: event.time.0,
            attributes: Map(&event.attributes),
        };
        Self {
            trace_id: span.context.trace_id.to_string(),
            span_id: span.context.span_id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            name: &span.name,
            kind: span.kind,
            start_time_ns: span.interval.start.0,
            end_time_ns: span.interval.end.0,
            duration_ms: crate::attributes::rounded_ms(span.interval),
            attributes: Map(&span.attributes),
            events: span.events.iter().map(event).collect(),
            status,
            status_message,
            service: process.service,
            resource: &process.resource,
            links: received.map(|it| it.links.iter().map(link).collect()).unwrap_or_default(),
            scope: received.map(|received| scope(&received.origin.scope)),
        }
    }
}
