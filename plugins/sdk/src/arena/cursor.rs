//! Where the cursor is, and how much is in use: arithmetic on offsets, without the memory.

use std::alloc::Layout;

/// The greatest alignment served, which is that of the memory itself.
pub(super) const ALIGN: usize = 16;

/// Hands out a number of bytes from front to back.
#[derive(Debug)]
pub(super) struct Cursor {
    bytes: usize,
    /// The first free byte.
    next: usize,
    /// Allocations in use.
    live: usize,
}

impl Cursor {
    pub(super) const fn new(bytes: usize) -> Self {
        Self { bytes, next: 0, live: 0 }
    }

    /// The offset of room for a layout, if there is any.
    #[inline]
    pub(super) fn take(&mut self, layout: Layout) -> Option<usize> {
        // Alignments are powers of two. `next` is at most `bytes`, so this does not overflow.
        let from = (self.next + layout.align() - 1) & !(layout.align() - 1);
        if layout.align() > ALIGN || from > self.bytes || layout.size() > self.bytes - from {
            return None;
        }
        self.next = from + layout.size();
        self.live += 1;
        Some(from)
    }

    /// One allocation is no longer in use. The last one gives back all room.
    #[inline]
    pub(super) fn give(&mut self) {
        self.live -= 1;
        if self.live == 0 {
            self.next = 0;
        }
    }

    /// Makes the allocation at an offset longer or shorter where it is, which goes for the latest only.
    #[inline]
    pub(super) fn resize(&mut self, from: usize, old: usize, new: usize) -> bool {
        if from + old != self.next || new > self.bytes - from {
            return false;
        }
        self.next = from + new;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn the_last_one_gives_all_room_back() {
        let mut cursor = Cursor::new(64);
        assert_eq!(cursor.take(layout(3, 1)), Some(0));
        assert_eq!(cursor.take(layout(8, 8)), Some(8));
        assert_eq!(cursor.take(layout(49, 1)), None);
        assert_eq!(cursor.take(layout(1, 32)), None);
        assert_eq!(cursor.take(layout(48, 16)), Some(16));
        assert_eq!(cursor.take(layout(1, 1)), None);
        cursor.give();
        cursor.give();
        // One lives on, so nothing is handed out twice.
        assert_eq!(cursor.take(layout(1, 1)), None);
        cursor.give();
        assert_eq!(cursor.take(layout(64, 16)), Some(0));
    }

    #[test]
    fn only_the_latest_grows_in_place() {
        let mut cursor = Cursor::new(64);
        let (first, second) =
            (cursor.take(layout(8, 8)).unwrap(), cursor.take(layout(8, 8)).unwrap());
        assert!(!cursor.resize(first, 8, 16));
        assert!(cursor.resize(second, 8, 56));
        assert!(!cursor.resize(second, 56, 57));
        assert!(cursor.resize(second, 56, 8));
        assert_eq!(cursor.take(layout(1, 1)), Some(16));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(usize, u32),
        Give(usize),
        Resize(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..100_usize, 0..6_u32).prop_map(|(size, power)| Step::Take(size, power)),
            any::<usize>().prop_map(Step::Give),
            (any::<usize>(), 1..100_usize).prop_map(|(which, size)| Step::Resize(which, size)),
        ]
    }

    proptest! {
        #[test]
        fn nothing_in_use_overlaps(steps in prop::collection::vec(steps(), 0..200)) {
            let mut cursor = Cursor::new(512);
            let mut live: Vec<(usize, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(size, power) => {
                        if let Some(from) = cursor.take(layout(size, 1 << power)) {
                            prop_assert_eq!(from % (1 << power), 0);
                            live.push((from, size));
                        }
                    }
                    Step::Give(which) if !live.is_empty() => {
                        live.swap_remove(which % live.len());
                        cursor.give();
                    }
                    Step::Resize(which, size) if !live.is_empty() => {
                        let which = which % live.len();
                        let (from, old) = live[which];
                        if cursor.resize(from, old, size) {
                            live[which] = (from, size);
                        }
                    }
                    Step::Give(_) | Step::Resize(..) => {}
                }
                let mut sorted = live.clone();
                sorted.sort_unstable();
                prop_assert!(sorted.iter().all(|(from, size)| from + size <= 512));
                prop_assert!(sorted.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
            }
        }
    }
}
