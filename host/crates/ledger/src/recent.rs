//! The newest records in memory, so that exporters that keep up read no disk.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{Outbound, Seq};

/// Bounds. Policy beyond them: *drop oldest*; they are in the files.
const MOST: usize = 4096;
const MOST_BYTES: u64 = 16 << 20;

/// The newest records, without a gap, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Each with the bytes of its body and of all that were added before it.
    records: VecDeque<(Arc<Outbound>, u64)>,
    /// Of all that were added, and of those that were dropped.
    added: u64,
    dropped: u64,
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
        self.added = self.added.saturating_add(bytes as u64);
        self.records.push_back((stored, self.added));
        while self.records.len() > MOST || self.added - self.dropped > MOST_BYTES {
            let Some((oldest, end)) = self.records.pop_front() else { break };
            (self.from, self.dropped) = (oldest.seq, end);
        }
    }

    /// Whether the records after `after` are here and take half of the room: soon the first of them would not be.
    pub(crate) fn is_crowded_after(&self, after: Seq) -> bool {
        let passed = self.place_after(after);
        let before = passed.checked_sub(1).and_then(|last| self.records.get(last));
        let bytes = self.added - before.map_or(self.dropped, |(_, end)| *end);
        let newer = self.records.len() - passed;
        after >= self.from && (newer > MOST / 2 || bytes > MOST_BYTES / 2)
    }

    /// Where the records after `after` begin.
    fn place_after(&self, after: Seq) -> usize {
        self.records.partition_point(|(stored, _)| stored.seq <= after)
    }

    /// The records after `after`; `None` if older ones are asked for.
    pub(crate) fn after(&self, after: Seq, most: usize) -> Option<Vec<Arc<Outbound>>> {
        (after >= self.from).then(|| {
            let newer = self.records.range(self.place_after(after)..).take(most);
            newer.map(|(stored, _)| Arc::clone(stored)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;

    #[test]
    fn who_is_behind_by_half_of_the_room_is_about_to_fall_out_of_it() {
        for (records, bytes) in [(4096_u64, 1_usize), (16, 1 << 20)] {
            let mut recent = Recent::from(Seq(7));
            let push = |recent: &mut Recent, seq| {
                let what = Payload::Spans(Box::default());
                recent.push(Arc::new(Outbound { seq: Seq(seq), number: seq, what }), bytes);
            };
            let half = records / 2;
            (8..8 + half).for_each(|seq| push(&mut recent, seq));
            assert!(!recent.is_crowded_after(Seq(7)));
            push(&mut recent, 8 + half);
            assert!(recent.is_crowded_after(Seq(7)) && !recent.is_crowded_after(Seq(8)));
            (9 + half..9 + 2 * records).for_each(|seq| push(&mut recent, seq));
            let (from, last) = (Seq(8 + records), Seq(8 + 2 * records));
            assert!(recent.is_crowded_after(from) && !recent.is_crowded_after(last));
            assert_eq!(recent.after(from, 1).map(|found| found[0].seq), Some(Seq(from.0 + 1)));
            // Who has fallen out of it is not about to.
            let fallen = Seq(from.0 - 1);
            assert!(!recent.is_crowded_after(fallen) && recent.after(fallen, 1).is_none());
        }
    }
}
