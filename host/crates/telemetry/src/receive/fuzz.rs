//! What the fuzz targets call: bytes as a sender might send them. `host/fuzz` holds the targets; the corpus is
//! replayed by the test below.
//!
//! Invariants: no panic; what is taken is within the limits, and is what prost reads; what is taken leaves and
//! comes in again as the same.

use tollgate_domain::otlp::Most;
use tollgate_domain::passed::Signal;
use tollgate_domain::received::{Origin, SpanBatch};
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
        for group in &incoming.groups {
            for span in &group.spans {
                let _ = genai::call(span, &group.origin);
                let _ = (genai::is_ours(span, &group.origin), genai::tenant(span, &group.origin));
            }
        }
        if let (Encoding::Protobuf, Some(judged)) = (encoding, judge::incoming(data)) {
            assert_eq!(text(&incoming), text(&judged));
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
        for read in [decode(&leaving, Encoding::Protobuf).ok(), judge::incoming(&leaving)] {
            assert_eq!(text(&read.map(self::spans)), text(&Some(&spans)));
        }
    }
    for signal in [Signal::Metrics, Signal::Logs] {
        if let Ok(request) = passed(data, encoding, signal) {
            assert_eq!(passed(&request, Encoding::Protobuf, signal), Ok(request));
        }
    }
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
