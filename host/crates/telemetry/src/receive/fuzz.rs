//! What the fuzz targets call: bytes as a sender might send them. `host/fuzz` holds the targets; the corpus is
//! replayed by the test below.
//!
//! Invariants: no panic; what is taken is within the limits, and is what prost reads; what is taken leaves and
//! comes in again as the same.

use std::sync::Arc;

use tollgate_domain::otlp::Most;
use tollgate_domain::passed::Signal;
use tollgate_domain::received::{Group, Origin, SpanBatch, Verbatim};
use tollgate_domain::span::Attributes;
use tollgate_domain::value::ValueRef;
use tollgate_domain::{Span, UnixNanos, otlp};

use super::{Encoding, Incoming, MAX_SPANS, decode, judge, passed};
use crate::genai;

/// A request in protobuf, of whichever signal.
pub fn protobuf(data: &[u8]) {
    request(data, Encoding::Protobuf);
}

/// A request in JSON, of whichever signal.
pub fn json(data: &[u8]) {
    request(data, Encoding::Json);
}

fn request(data: &[u8], encoding: Encoding) {
    if let Ok(incoming) = decode(data, encoding) {
        if let (Encoding::Protobuf, Some(judged)) = (encoding, judge::incoming(data)) {
            alike(&incoming, &judged);
        }
        for group in &incoming.groups {
            let source = genai::Source::of(&group.origin);
            for span in &group.spans {
                let look = genai::Look::at(span, &source);
                let _ = (look.call(), look.is_ours(), look.tenant());
            }
        }
        // In the form in which it is on record, and in which it leaves.
        let batch = SpanBatch { tenant: None, arrived: UnixNanos(0), groups: incoming.groups };
        let stored = otlp::read(&otlp::write_groups(&batch.groups), &Most::ANY);
        let stored = stored.map(|read| read.groups);
        assert_eq!(text(&stored), text(&Ok::<_, otlp::Malformed>(&batch.groups)));
        let spans = batch.spans();
        assert!(spans.len() <= MAX_SPANS);
        let (taken, leaving) = otlp::write(&Origin::default(), &spans, usize::MAX);
        assert_eq!(taken, spans.len());
        let read = decode(&leaving, Encoding::Protobuf).ok();
        assert_eq!(text(&read.map(self::spans)), text(&Some(&spans)));
        let judged = judge::incoming(&leaving).map(self::spans);
        let known = |spans: &[Span]| spans.iter().cloned().map(known).collect::<Vec<_>>();
        assert_eq!(text(&judged), text(&Some(known(&spans))));
    }
    for signal in [Signal::Metrics, Signal::Logs] {
        if let Ok(request) = passed(data, encoding, signal) {
            assert_eq!(passed(&request, Encoding::Protobuf, signal), Ok(request));
        }
    }
}

/// Attributes are alike first before a value is made of them, also with one changed and one taken away.
fn alike(came: &Incoming, judged: &Incoming) {
    let spans = |incoming: &Incoming| {
        let spans = incoming.groups.iter().flat_map(|group| &group.spans);
        spans.map(|span| span.attributes.clone()).collect::<Vec<_>>()
    };
    for (mut came, mut judged) in spans(came).into_iter().zip(spans(judged)) {
        assert_eq!(text(&seen(&came)), text(&seen(&judged)));
        let keys: Vec<String> = came.entries().map(|entry| entry.key.to_owned()).collect();
        if let [first, .., last] = keys.as_slice() {
            for attributes in [&mut came, &mut judged] {
                attributes.set_named(first, true.into());
                assert!(attributes.remove(last));
            }
        }
        assert_eq!(text(&seen(&came)), text(&seen(&judged)));
    }
    let came = came.groups.iter().map(|group| {
        let spans = group.spans.iter().cloned().map(known).collect();
        let mut origin = Origin::clone(&group.origin);
        as_prost_knows(&mut origin);
        Group { spans, origin: Arc::new(origin) }
    });
    assert_eq!(text(&came.collect::<Vec<_>>()), text(&judged.groups));
}

/// A span without what prost's messages do not tell of it either.
fn known(mut span: Span) -> Span {
    if let Some(received) = &mut span.received {
        received.verbatim = Verbatim::default();
        as_prost_knows(Arc::make_mut(&mut received.origin));
    }
    span
}

fn as_prost_knows(origin: &mut Origin) {
    origin.resource_unread.clear();
    origin.scope.unread.clear();
}

fn seen(attributes: &Attributes) -> Vec<(&str, ValueRef<'_>)> {
    attributes.entries().map(|entry| (entry.key, entry.value())).collect()
}

/// What can be compared: no number is equal to what is none.
fn text(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}")
}

fn spans(incoming: Incoming) -> Vec<Span> {
    SpanBatch { tenant: None, arrived: UnixNanos(0), groups: incoming.groups }.spans()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_passes() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, target) in [("otlp-protobuf", protobuf as fn(&[u8])), ("otlp-json", json)] {
            let mut count = 0;
            for entry in std::fs::read_dir(corpus.join(name)).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 10, "{count} inputs for {name}");
        }
    }
}
