//! The newest records in memory, so that exporters that keep up read no disk.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{Outbound, Seq};

/// Bounds. Policy beyond them: *drop oldest*; they are in the files.
const MOST: usize = 4096;
const MOST_BYTES: usize = 16 << 20;

/// The newest records, without a gap, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    records: VecDeque<(Arc<Outbound>, usize)>,
    bytes: usize,
    /// The entry of that record, or a later one that is none.
    from: Seq,
}

impl Recent {
    /// Nothing, of a ledger that ends here.
    pub(crate) fn from(seq: Seq) -> Self {
        Self { from: seq, ..Self::default() }
    }

    /// Adds the next record, whose body has that many bytes.
    pub(crate) fn push(&mut self, stored: Arc<Outbound>, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.records.push_back((stored, bytes));
        while self.records.len() > MOST || self.bytes > MOST_BYTES {
            let Some((oldest, bytes)) = self.records.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(bytes);
            self.from = oldest.seq;
        }
    }

    /// The records after `after`; `None` if older ones are asked for.
    pub(crate) fn after(&self, after: Seq, most: usize) -> Option<Vec<Arc<Outbound>>> {
        (after >= self.from).then(|| {
            let start = self.records.partition_point(|(stored, _)| stored.seq <= after);
            let newer = self.records.iter().skip(start).take(most);
            newer.map(|(stored, _)| Arc::clone(stored)).collect()
        })
    }
}
