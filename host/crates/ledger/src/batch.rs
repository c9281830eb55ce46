//! The stored form of spans of other programs: JSON, with the request of OTLP that they come to packed in it.

use serde::{Deserialize, Serialize};
use tollgate_domain::received::{Group, SpanBatch};
use tollgate_domain::{UnixNanos, otlp};

#[derive(Serialize)]
struct Packed<'a> {
    tenant: Option<&'a str>,
    arrived: UnixNanos,
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
    let (otlp_zstd, bytes) = otlp::pack(&batch.groups).map_err(serde_json::Error::io)?;
    let tenant = batch.tenant.as_deref();
    let packed = Packed { tenant, arrived: batch.arrived, otlp_zstd };
    Ok((serde_json::to_string(&packed)?, bytes))
}

/// The batch of a body, and how many bytes were packed in it.
pub(crate) fn unpack(body: &str) -> Result<(SpanBatch, usize), serde_json::Error> {
    use serde::de::Error as _;
    let Found { tenant, arrived, otlp_zstd, mut groups } = serde_json::from_str(body)?;
    let mut bytes = body.len();
    if let Some(packed) = otlp_zstd {
        let (unpacked, of) = otlp::unpack(&packed).map_err(serde_json::Error::custom)?;
        groups.extend(unpacked);
        bytes = of;
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
        let damaged = unpack(r#"{"tenant":null,"arrived":7,"otlp_zstd":"bm8gZnJhbWU="}"#);
        assert!(damaged.is_err(), "{damaged:?}");
    }
}
