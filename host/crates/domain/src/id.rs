//! Identity of requests, traces and spans.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Name of one request, unique for ever; what `id` in the answer is built from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub String);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// W3C trace id: 16 bytes, never all zero in a valid context. Shown and stored as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(const_hex::Buffer::<16>::new().format(&self.0.to_be_bytes()))
    }
}

/// W3C span id: 8 bytes, never zero in a valid context. Shown and stored as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct SpanId(pub u64);

impl SpanId {
    /// The id of this span's child number `index`: always the same, so that a trace that is
    /// exported twice has the same ids twice and a receiver can drop the copy.
    #[must_use]
    pub fn child(self, index: u64) -> Self {
        // SplitMix64's finaliser: a bijection, so two children of one span never share an id.
        let mut x = self.0 ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        Self(if x == 0 { 1 } else { x })
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(const_hex::Buffer::<8>::new().format(&self.0.to_be_bytes()))
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for TraceId {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&digits, 16).map(Self)
    }
}

impl TryFrom<String> for SpanId {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&digits, 16).map(Self)
    }
}

/// What one server tells the next about a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span within it.
    pub span_id: SpanId,
    /// Whether whoever began the trace records it. Our own record is made either way.
    pub sampled: bool,
    /// W3C `tracestate`, passed on untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_state: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_stable_ids_of_their_own() {
        let root = SpanId(0x1234_5678_9abc_def0);
        let ids: std::collections::HashSet<_> = (0..1000).map(|i| root.child(i)).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(root.child(3), root.child(3));
        assert_eq!(format!("{}", TraceId(1)), "00000000000000000000000000000001");
    }
}
