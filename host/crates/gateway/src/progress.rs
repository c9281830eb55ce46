//! Which entries of the ledger an exporter is done with, where their spans leave in another order
//! than they came: the cursor moves over an entry once all of it has left, and all before it. Pure.

use std::collections::VecDeque;

use tollgate_ledger::{Cursor, Seq};

/// What became of some spans of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// None of them left: plugins or rules let none.
    Filtered,
    /// The receiver refused them for good.
    Rejected,
    /// At least one is where it should be.
    Delivered,
}

/// The entries that are under way.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// In order.
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    seq: Seq,
    number: u64,
    /// Parts that have no fate yet.
    open: usize,
    fate: Fate,
}

impl Progress {
    /// An entry, the next in order, of which so many parts leave on their own.
    pub(crate) fn begin(&mut self, seq: Seq, number: u64, parts: usize) {
        self.entries.push_back(Entry { seq, number, open: parts, fate: Fate::Filtered });
    }

    /// How many entries are under way.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A part of an entry has met its fate. Of an entry the best counts.
    pub(crate) fn end(&mut self, seq: Seq, fate: Fate) {
        let place = self.entries.partition_point(|entry| entry.seq < seq);
        if let Some(entry) = self.entries.get_mut(place).filter(|entry| entry.seq == seq) {
            entry.open = entry.open.saturating_sub(1);
            entry.fate = entry.fate.max(fate);
        }
    }

    /// Moves the cursor as far as it may; whether it has moved.
    pub(crate) fn advance(&mut self, cursor: &mut Cursor) -> bool {
        let mut moved = false;
        while let Some(entry) = self.entries.front().filter(|entry| entry.open == 0) {
            (cursor.seq, cursor.records) = (entry.seq, entry.number);
            match entry.fate {
                Fate::Filtered => cursor.filtered += 1,
                Fate::Rejected => cursor.rejected += 1,
                Fate::Delivered => cursor.delivered += 1,
            }
            self.entries.pop_front();
            moved = true;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whichever order parts end, the cursor stands before the first entry with an open one,
        /// and its counts come to the entries that it has passed.
        #[test]
        fn the_cursor_never_passes_what_is_open(
            entries in proptest::collection::vec(0_usize..4, 1..20),
            order in any::<proptest::sample::Index>(),
        ) {
            let mut progress = Progress::default();
            let (mut cursor, mut parts) = (Cursor::default(), Vec::new());
            for (place, count) in entries.iter().enumerate() {
                let seq = Seq(place as u64 * 3 + 2);
                progress.begin(seq, place as u64 + 1, *count);
                parts.extend(std::iter::repeat_n((place, seq), *count));
            }
            let mut open = entries.clone();
            while !parts.is_empty() {
                progress.advance(&mut cursor);
                let passed = open.iter().position(|open| *open > 0).unwrap_or(open.len());
                prop_assert_eq!(cursor.records, passed as u64);
                prop_assert_eq!(cursor.delivered + cursor.filtered + cursor.rejected, passed as u64);
                let (place, seq) = parts.swap_remove(order.index(parts.len()));
                open[place] -= 1;
                let fate = [Fate::Filtered, Fate::Rejected, Fate::Delivered][place % 3];
                progress.end(seq, fate);
            }
            prop_assert!(progress.advance(&mut cursor));
            prop_assert_eq!(cursor.records, entries.len() as u64);
            prop_assert!(progress.entries.is_empty());
        }
    }

    #[test]
    fn of_an_entry_the_best_fate_counts() {
        let (mut progress, mut cursor) = (Progress::default(), Cursor::default());
        progress.begin(Seq(1), 1, 3);
        for fate in [Fate::Rejected, Fate::Delivered, Fate::Filtered] {
            assert!(!progress.advance(&mut cursor));
            progress.end(Seq(1), fate);
        }
        assert!(progress.advance(&mut cursor));
        assert_eq!((cursor.delivered, cursor.rejected, cursor.filtered), (1, 0, 0));
    }
}
