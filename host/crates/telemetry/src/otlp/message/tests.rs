//! The bytes of a request are those of its messages.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tollgate_domain::received::{Received, SpanLink};
use tollgate_domain::span::{Span, SpanEvent, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{SpanContext, SpanId, TraceId, UnixNanos, otlp};

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
        verbatim: Default::default(),
        origin: Arc::clone(origin),
    };
    let mut span = plain(id);
    (span.context, span.parent) = (context, Some(SpanId(77)));
    (span.attributes, span.events) = (attributes, vec![event]);
    (span.status, span.received) = (SpanStatus::Error("no".to_owned()), Some(Box::new(received)));
    span
}

/// One of ours with as little as possible.
fn plain(id: u64) -> Span {
    let context = SpanContext {
        trace_id: TraceId(1),
        span_id: SpanId(id),
        sampled: false,
        trace_state: None,
    };
    let interval = Interval::new(UnixNanos(0), UnixNanos(0));
    Span::new(context, "", SpanKind::Unspecified, interval)
}

fn ours() -> Origin {
    let mut attributes = Attributes::new();
    attributes.set("service.name", "tollgate");
    own(&Resource { attributes })
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
    let (taken, bytes) = otlp::write(&ours(), &spans, usize::MAX);
    let messages = request(&ours(), &spans);
    assert_eq!((taken, messages.resource_spans.len()), (7, 4));
    assert!(messages.encode_to_vec() == bytes, "not byte for byte the same");
    assert_eq!(otlp::write(&ours(), &[], usize::MAX), (0, Vec::new()));
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
            let (taken, bytes) = otlp::write(&ours(), left, most);
            assert!(taken > 0 && (bytes.len() <= most || taken == 1), "{taken} of {most}");
            let fits = request(&ours(), &left[..taken]);
            assert!(fits.encode_to_vec() == bytes);
            if let Some(more) = left.get(..=taken) {
                assert!(request(&ours(), more).encoded_len() > most);
            }
            let read = ExportTraceServiceRequest::decode(&*bytes).unwrap();
            let read = read.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            seen.extend(read.flat_map(|of| of.spans).map(|span| span.span_id));
            begins += taken;
        }
        let sent = spans.iter().map(|span| span.context.span_id.0.to_be_bytes().to_vec());
        assert!(seen.into_iter().eq(sent));
    }
}
