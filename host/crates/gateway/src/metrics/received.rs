//! Spans that other programs sent: requests by what became of them, spans likewise.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tollgate_telemetry::metrics::names::tollgate::{OTLP_REQUESTS, OTLP_SPANS};
use tollgate_telemetry::metrics::{Family, Snapshot};

use super::bounded::lock;

/// By names of which there are few.
#[derive(Debug, Default)]
pub(crate) struct ReceivedMeters {
    requests: Mutex<BTreeMap<&'static str, u64>>,
    spans: Mutex<BTreeMap<&'static str, u64>>,
}

impl ReceivedMeters {
    /// Counts a request: `taken`, or the kind of its refusal.
    pub(crate) fn request(&self, result: &'static str) {
        *lock(&self.requests).entry(result).or_default() += 1;
    }

    /// Counts spans by their outcomes.
    pub(crate) fn spans(&self, outcomes: &BTreeMap<&'static str, u64>) {
        let mut spans = lock(&self.spans);
        for (outcome, count) in outcomes.iter().filter(|(_, count)| **count > 0) {
            *spans.entry(outcome).or_default() += count;
        }
    }

    /// All families; none where nothing was ever received.
    pub(super) fn families(&self, to: &mut Snapshot) {
        let families =
            [(&OTLP_REQUESTS, "result", &self.requests), (&OTLP_SPANS, "outcome", &self.spans)];
        for (name, label, counts) in families {
            let counts = lock(counts);
            if counts.is_empty() {
                continue;
            }
            let mut family = Family::of(name);
            for (value, count) in &*counts {
                family.add([(label, *value)], *count);
            }
            to.counters.push(family);
        }
    }
}
