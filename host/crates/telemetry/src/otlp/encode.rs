//! Spans to the bytes of a request, without building OTLP's messages first, which would copy every text
//! once more. [`super::message`] builds them for JSON; a test and the fuzz targets compare the two, byte
//! for byte.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use prost::encoding::{
    self, WireType, bytes as octets, double, encode_key, encode_varint, encoded_len_varint,
    fixed32, fixed64, int32, int64, string, uint32,
};
use tollgate_domain::SpanContext;
use tollgate_domain::received::{Origin, Received, SpanLink};
use tollgate_domain::span::{Attributes, Span, SpanEvent, SpanStatus, Value};

use super::message;

/// The first of `spans` as a request of at most `most` bytes, and how many they are: at least one,
/// however large it is. Ours are of the resource `own`.
pub(crate) fn request(own: &OtlpResource, spans: &[Span], most: usize) -> (usize, Bytes) {
    let (mut request, mut taken) = (Vec::new(), 0);
    for of_one in spans.chunk_by(is_of_one) {
        let frame = Frame::of(own, of_one.first().and_then(message::origin));
        let mut within = Vec::new();
        let before = taken;
        for span in of_one {
            let so_far = within.len();
            nested(2, &mut within, |to| self::span(span, to));
            if taken > 0 && request.len() + frame.length(within.len()) > most {
                within.truncate(so_far);
                break;
            }
            taken += 1;
        }
        if taken > before {
            frame.around(&within, &mut request);
        }
        if taken - before < of_one.len() {
            break;
        }
    }
    (taken, request.into())
}

/// Neighbours of one origin stand together.
pub(crate) fn is_of_one(one: &Span, other: &Span) -> bool {
    Origin::is_same(message::origin(one), message::origin(other))
}

/// What stands around spans of one origin: fields of `ResourceSpans` and of `ScopeSpans`, before the
/// spans and after them.
struct Frame {
    resource: Vec<u8>,
    resource_schema: Vec<u8>,
    scope: Vec<u8>,
    schema: Vec<u8>,
}

impl Frame {
    fn of(own: &OtlpResource, origin: Option<&Arc<Origin>>) -> Self {
        let empty = message::of_origin(own, origin.map(|origin| &**origin), Vec::new());
        let ResourceSpans { resource, scope_spans, schema_url } = empty;
        let of_scope = scope_spans.into_iter().next().unwrap_or_default();
        let ScopeSpans { scope, schema_url: schema, .. } = of_scope;
        Self {
            resource: field(1, &resource.unwrap_or_default()),
            resource_schema: written(|to| text(3, &schema_url, to)),
            scope: field(1, &scope.unwrap_or_default()),
            schema: written(|to| text(3, &schema, to)),
        }
    }

    /// Bytes of the whole around so many.
    fn length(&self, within: usize) -> usize {
        let (outer, _) = self.lengths(within);
        1 + encoded_len_varint(outer as u64) + outer
    }

    /// Bytes of `ResourceSpans` and of `ScopeSpans` around so many.
    fn lengths(&self, within: usize) -> (usize, usize) {
        let inner = self.scope.len() + within + self.schema.len();
        let head = 1 + encoded_len_varint(inner as u64);
        (self.resource.len() + head + inner + self.resource_schema.len(), inner)
    }

    /// Writes it around these spans.
    fn around(&self, within: &[u8], to: &mut Vec<u8>) {
        let (outer, inner) = self.lengths(within.len());
        to.reserve(self.length(within.len()));
        head(1, outer, to);
        to.put_slice(&self.resource);
        head(2, inner, to);
        to.put_slice(&self.scope);
        to.put_slice(within);
        to.put_slice(&self.schema);
        to.put_slice(&self.resource_schema);
    }
}

fn field(number: u32, message: &impl Message) -> Vec<u8> {
    written(|to| encoding::message::encode(number, message, to))
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

fn head(number: u32, length: usize, to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(length as u64, to);
}

/// A message within another: its length is known once it is written, and mostly one byte.
fn nested(number: u32, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    head(number, 0, to);
    let begins = to.len();
    write(to);
    let length = to.len() - begins;
    match (u8::try_from(length), to.get_mut(begins - 1)) {
        (Ok(short @ 0..0x80), Some(place)) => *place = short,
        _ => {
            let length = written(|to| encode_varint(length as u64, to));
            to.splice(begins - 1..begins, length);
        }
    }
}

fn span(span: &Span, to: &mut Vec<u8>) {
    let received = span.received.as_deref();
    let count = |count: fn(&Received) -> u32| received.map_or(0, count);
    identity(&span.context, to);
    if let Some(parent) = span.parent {
        id(4, &parent.0.to_be_bytes(), to);
    }
    text(5, &span.name, to);
    number(6, message::kind(span.kind) as i32, int32::encode, to);
    number(7, span.interval.start.0, fixed64::encode, to);
    number(8, span.interval.end.0, fixed64::encode, to);
    attributes(9, &span.attributes, to);
    number(10, count(|received| received.dropped_attributes), uint32::encode, to);
    span.events.iter().for_each(|event| nested(11, to, |to| self::event(event, to)));
    number(12, count(|received| received.dropped_events), uint32::encode, to);
    let links = received.iter().flat_map(|received| &received.links);
    links.for_each(|link| nested(13, to, |to| self::link(link, to)));
    number(14, count(|received| received.dropped_links), uint32::encode, to);
    nested(15, to, |to| status(&span.status, to));
    number(16, message::flags(span), fixed32::encode, to);
}

fn identity(context: &SpanContext, to: &mut Vec<u8>) {
    id(1, &context.trace_id.0.to_be_bytes(), to);
    id(2, &context.span_id.0.to_be_bytes(), to);
    text(3, context.trace_state.as_deref().unwrap_or_default(), to);
}

fn id(field: u32, id: &[u8], to: &mut Vec<u8>) {
    head(field, id.len(), to);
    to.put_slice(id);
}

fn event(event: &SpanEvent, to: &mut Vec<u8>) {
    number(1, event.time.0, fixed64::encode, to);
    text(2, &event.name, to);
    attributes(3, &event.attributes, to);
    number(4, event.dropped_attributes, uint32::encode, to);
}

fn link(link: &SpanLink, to: &mut Vec<u8>) {
    identity(&link.context, to);
    attributes(4, &link.attributes, to);
    number(5, link.dropped_attributes, uint32::encode, to);
    number(6, link.flags, fixed32::encode, to);
}

fn status(status: &SpanStatus, to: &mut Vec<u8>) {
    let (code, said) = message::status_of(status);
    text(2, said, to);
    number(3, code as i32, int32::encode, to);
}

fn attributes(field: u32, attributes: &Attributes, to: &mut Vec<u8>) {
    for (key, value) in attributes.iter() {
        nested(field, to, |to| {
            text(1, key, to);
            nested(2, to, |to| any_value(value, to));
        });
    }
}

/// Which of its kinds a value is of is told even where it is nothing of that kind.
fn any_value(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Empty => {}
        Value::Text(value) => string::encode(1, value, to),
        Value::Bool(value) => encoding::bool::encode(2, value, to),
        Value::Int(value) => int64::encode(3, value, to),
        Value::Double(value) => double::encode(4, value, to),
        Value::List(items) => nested(5, to, |to| {
            items.iter().for_each(|item| nested(1, to, |to| any_value(item, to)));
        }),
        Value::Map(entries) => nested(6, to, |to| attributes(1, entries, to)),
        Value::Bytes(value) => octets::encode(7, value, to),
    }
}

/// What is empty or zero does not stand there.
fn text(field: u32, text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        head(field, text.len(), to);
        to.put_slice(text.as_bytes());
    }
}

fn number<T: Copy + Default + PartialEq>(
    field: u32,
    number: T,
    encode: impl Fn(u32, &T, &mut Vec<u8>),
    to: &mut Vec<u8>,
) {
    if number != T::default() {
        encode(field, &number, to);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use tollgate_domain::{Resource, SpanId, TraceId, UnixNanos};

    use super::*;

    fn origin(name: &str) -> Arc<Origin> {
        let mut origin = Origin::default();
        origin.resource.attributes.set("service.name", name.to_owned());
        origin.resource_schema_url = "r".to_owned();
        origin.schema_url = "s".to_owned();
        origin.scope.name = "lib".to_owned();
        Arc::new(origin)
    }

    /// A span with everything that one can have, short values and long ones.
    fn full(id: u64, origin: &Arc<Origin>) -> Span {
        let long = "ü".repeat(20_000);
        let map: Attributes = [("k".to_owned(), Value::Text(long.clone()))].into_iter().collect();
        let values = [
            Value::Empty,
            Value::Bool(false),
            Value::Int(-1),
            Value::Int(0),
            Value::Double(0.0),
            Value::Double(f64::NEG_INFINITY),
            Value::Text(String::new()),
            Value::Text(long),
            Value::Bytes(vec![0, 255]),
            Value::List(vec![Value::List(vec![Value::Empty, Value::Int(7)]), Value::Bool(true)]),
            Value::Map(map),
        ];
        let numbered = values.into_iter().enumerate();
        let attributes: Attributes =
            numbered.map(|(number, value)| (format!("key.{number}"), value)).collect();
        let context = SpanContext {
            trace_id: TraceId(u128::from(id) << 70 | 5),
            span_id: SpanId(id),
            sampled: true,
            trace_state: Some("a=b".to_owned()),
        };
        let link = SpanLink {
            context: SpanContext { trace_state: None, ..context.clone() },
            flags: 0x301,
            attributes: attributes.clone(),
            dropped_attributes: 300,
        };
        let event = SpanEvent {
            dropped_attributes: 1,
            ..SpanEvent::new("e".to_owned(), UnixNanos(9), attributes.clone())
        };
        let received = Received {
            flags: 0x101,
            links: vec![link],
            dropped_attributes: 1,
            dropped_events: 200,
            dropped_links: 70_000,
            origin: Arc::clone(origin),
        };
        let mut span = plain(id);
        (span.context, span.parent) = (context, Some(SpanId(77)));
        (span.attributes, span.events) = (attributes, vec![event]);
        (span.status, span.received) =
            (SpanStatus::Error("no".to_owned()), Some(Box::new(received)));
        span
    }

    /// One of ours with as little as possible.
    fn plain(id: u64) -> Span {
        use tollgate_domain::span::SpanKind;
        use tollgate_domain::time::Interval;
        Span {
            context: SpanContext {
                trace_id: TraceId(1),
                span_id: SpanId(id),
                sampled: false,
                trace_state: None,
            },
            parent: None,
            parent_is_remote: false,
            name: "".into(),
            kind: SpanKind::Unspecified,
            interval: Interval::new(UnixNanos(0), UnixNanos(0)),
            status: SpanStatus::Unset,
            attributes: Attributes::new(),
            events: Vec::new(),
            received: None,
        }
    }

    fn own() -> OtlpResource {
        let mut attributes = Attributes::new();
        attributes.set("service.name", "tollgate");
        message::resource(&Resource { attributes })
    }

    #[test]
    fn the_bytes_are_those_of_the_messages() {
        let (shop, till) = (origin("shop"), origin("till"));
        let again = origin("shop");
        let spans = [
            plain(1),
            full(2, &shop),
            full(3, &shop),
            // The same said by another request.
            full(4, &again),
            full(5, &till),
            plain(6),
            plain(7),
        ];
        let (taken, bytes) = request(&own(), &spans, usize::MAX);
        let messages = message::request(&own(), &spans);
        assert_eq!((taken, messages.resource_spans.len()), (7, 4));
        assert!(messages.encode_to_vec() == bytes, "not byte for byte the same");
        assert_eq!(request(&own(), &[], usize::MAX), (0, Bytes::new()));
    }

    #[test]
    fn a_request_is_as_large_as_it_may_be() {
        let (shop, till) = (origin("shop"), origin("till"));
        let spans: Vec<Span> = (0..40)
            .map(|id| match id % 5 {
                0 => plain(id),
                1 | 2 => full(id, &till),
                _ => full(id, &shop),
            })
            .collect();
        for most in [0, 1, 130_000, 300_000, 1_000_000] {
            let (mut begins, mut seen) = (0, Vec::new());
            while begins < spans.len() {
                let left = &spans[begins..];
                let (taken, bytes) = request(&own(), left, most);
                assert!(taken > 0 && (bytes.len() <= most || taken == 1), "{taken} of {most}");
                let fits = message::request(&own(), &left[..taken]);
                assert!(fits.encode_to_vec() == bytes);
                if let Some(more) = left.get(..=taken) {
                    assert!(message::request(&own(), more).encoded_len() > most);
                }
                let read = ExportTraceServiceRequest::decode(bytes).unwrap();
                let read = read.resource_spans.into_iter().flat_map(|of| of.scope_spans);
                seen.extend(read.flat_map(|of| of.spans).map(|span| span.span_id));
                begins += taken;
            }
            let sent = spans.iter().map(|span| span.context.span_id.0.to_be_bytes().to_vec());
            assert!(seen.into_iter().eq(sent));
        }
    }
}
