//! What the fuzz targets call: bytes as a sender might send them. `host/fuzz` holds the targets; the corpus is
//! replayed by the test below.
//!
//! Invariants: no panic; what is taken is within the limits; what is taken leaves and comes in again as the same.

use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tollgate_domain::passed::Signal;
use tollgate_domain::received::SpanBatch;
use tollgate_domain::{Span, UnixNanos};

use super::{Encoding, Incoming, MAX_SPANS, decode, passed};
use crate::genai;
use crate::otlp::{encode, message};

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
        let spans = spans(incoming);
        assert!(spans.len() <= MAX_SPANS);
        let (taken, leaving) = encode::request(&Resource::default(), &spans, usize::MAX);
        assert_eq!(taken, spans.len());
        assert_eq!(leaving, message::request(&Resource::default(), &spans).encode_to_vec());
        let again = decode(&leaving, Encoding::Protobuf).map(self::spans);
        // As text, since no number is equal to what is none.
        assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, super::Malformed>(spans)));
    }
    for signal in [Signal::Metrics, Signal::Logs] {
        if let Ok(request) = passed(data, encoding, signal) {
            assert_eq!(passed(&request, Encoding::Protobuf, signal), Ok(request));
        }
    }
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
