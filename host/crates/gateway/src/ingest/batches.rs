//! Spans that are passed on, as they go on record: in batches of one tenant each, and in their order.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_domain::received::{Group, Origin, SpanBatch};
use tollgate_domain::{Span, UnixNanos};

/// Most spans of one entry of the ledger.
const MOST: usize = 512;

/// Batches that are being filled.
pub(super) struct Batches {
    arrived: UnixNanos,
    of: BTreeMap<Option<String>, Vec<SpanBatch>>,
}

impl Batches {
    /// None yet, of spans that came then.
    pub(super) fn new(arrived: UnixNanos) -> Self {
        Self { arrived, of: BTreeMap::new() }
    }

    /// Adds a span of that tenant.
    pub(super) fn push(&mut self, tenant: Option<String>, origin: &Arc<Origin>, span: Span) {
        let batches = match self.of.get_mut(&tenant) {
            Some(batches) => batches,
            None => self.of.entry(tenant.clone()).or_default(),
        };
        if batches.last().is_none_or(|last| last.len() >= MOST) {
            batches.push(SpanBatch { tenant, arrived: self.arrived, groups: Vec::new() });
        }
        let Some(batch) = batches.last_mut() else { return };
        match batch.groups.last_mut() {
            Some(last) if Arc::ptr_eq(&last.origin, origin) => last.spans.push(span),
            _ => batch.groups.push(Group { origin: Arc::clone(origin), spans: vec![span] }),
        }
    }

    /// All of them.
    pub(super) fn finish(self) -> impl Iterator<Item = SpanBatch> {
        self.of.into_values().flatten()
    }
}
