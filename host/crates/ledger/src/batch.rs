//! The stored form of spans of other programs: JSON, with the request of OTLP that they come to packed
//! by zstd. Spans repeat their keys, and what is hashed, written and kept is a fraction of them.

use serde::{Deserialize, Serialize};
use tollgate_domain::received::{Group, SpanBatch};
use tollgate_domain::value::{base64, from_base64};
use tollgate_domain::{UnixNanos, otlp};

/// The least work: most of what can be saved is saved.
const LEVEL: i32 = 1;

/// Most bytes of a batch. More than a request may have, since each span's origin may stand once for each.
const MOST: usize = 256 << 20;

#[derive(Serialize)]
struct Packed<'a> {
    tenant: Option<&'a str>,
    arrived: UnixNanos,
    /// In base64.
    otlp_zstd: String,
}

#[derive(Deserialize)]
struct Found {
    tenant: Option<String>,
    arrived: UnixNanos,
    #[serde(default)]
    otlp_zstd: Option<String>,
    /// As they were stored before, one by one.
    #[serde(default)]
    groups: Vec<Group>,
}

/// The body of the entry of a batch, and how many bytes are packed in it.
pub(crate) fn pack(batch: &SpanBatch) -> Result<(String, usize), serde_json::Error> {
    let request = otlp::write_groups(&batch.groups);
    let packed = zstd::bulk::compress(&request, LEVEL).map_err(serde_json::Error::io)?;
    let tenant = batch.tenant.as_deref();
    let packed = Packed { tenant, arrived: batch.arrived, otlp_zstd: base64(&packed) };
    Ok((serde_json::to_string(&packed)?, request.len()))
}

/// The batch of a body, and how many bytes were packed in it.
pub(crate) fn unpack(body: &str) -> Result<(SpanBatch, usize), serde_json::Error> {
    use serde::de::Error as _;
    let Found { tenant, arrived, otlp_zstd, mut groups } = serde_json::from_str(body)?;
    let mut bytes = body.len();
    if let Some(packed) = otlp_zstd {
        let packed = from_base64(&packed)
            .ok_or_else(|| serde_json::Error::custom("`otlp_zstd` is not base64"))?;
        let request = zstd::bulk::decompress(&packed, MOST).map_err(serde_json::Error::custom)?;
        bytes = request.len();
        let read = otlp::read(&request, &otlp::Most::ANY).map_err(serde_json::Error::custom)?;
        if let Some(problem) = read.problem {
            return Err(serde_json::Error::custom(problem));
        }
        groups.extend(read.groups);
    }
    Ok((SpanBatch { tenant, arrived, groups }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As batches were stored before they were stored as requests of OTLP.
    #[test]
    fn spans_that_were_stored_one_by_one_are_read() {
        let stored = r#"{"tenant":"acme","arrived":7,"groups":[{
            "origin":{"resource":{"attributes":[["service.name","shop"]]},"scope":{"name":"lib"}},
            "spans":[{"context":{"trace_id":"00000000000000000000000000000005",
                "span_id":"0000000000000006","sampled":true,"trace_state":null},
                "parent":null,"parent_is_remote":false,"name":"GET /","kind":"SERVER",
                "interval":{"start":1,"end":2},"status":"Ok","attributes":[["a",1]],"events":[],
                "received":{"flags":1}}]}]}"#;
        let (batch, bytes) = unpack(stored).unwrap();
        assert_eq!(bytes, stored.len());
        let spans = batch.spans();
        assert_eq!((batch.len(), spans[0].name.as_ref()), (1, "GET /"));
        assert_eq!(spans[0].origin().unwrap().scope.name, "lib");
        let (packed, bytes) = pack(&batch).unwrap();
        assert!(packed.starts_with(r#"{"tenant":"acme","arrived":7,"otlp_zstd":""#), "{packed}");
        let (again, unpacked) = unpack(&packed).unwrap();
        assert_eq!((again.spans(), unpacked), (spans, bytes));
    }

    #[test]
    fn what_is_damaged_is_no_batch() {
        let (packed, _) = pack(&SpanBatch::default()).unwrap();
        assert_eq!(unpack(&packed).unwrap(), (SpanBatch::default(), 0));
        let with = |bytes: &[u8]| {
            let bytes = base64(bytes);
            unpack(&format!(r#"{{"tenant":null,"arrived":7,"otlp_zstd":"{bytes}"}}"#))
        };
        assert!(with(b"no frame").is_err());
        let no_request = zstd::bulk::compress(b"\x0a\x05ab", LEVEL).unwrap();
        assert!(with(&no_request).is_err());
        // A span without ids.
        let no_span = zstd::bulk::compress(b"\x0a\x04\x12\x02\x12\x00", LEVEL).unwrap();
        assert!(with(&no_span).is_err());
    }
}
