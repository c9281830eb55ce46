//! What requests in flight have used so far: a file of fixed slots, one for each.
//!
//! A slot is written with one call that reaches the system's memory and not the disk: it survives
//! the process, not a power cut. A slot that was never written, was torn, or is of another request
//! says nothing, and then the request has used nothing that anyone was shown.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tollgate_domain::UnixNanos;

use crate::entry::Seq;
use crate::error::LedgerError;
use crate::files;

const SLOT_BYTES: usize = 40;

/// Slots that are kept for what a file says; more requests are never in flight.
const MOST: u32 = 1 << 20;

/// So that a slot of zeros is none.
const CHECK: u64 = 0x746f_6c6c_6761_7465;
/// Likewise, of a slot whose word of output tokens begins with a place in the plan. Who knows of no such places takes it
/// for none.
const CHECK_WITH_PLACE: u64 = 0x746f_6c6c_706c_6163;
/// Bits of that word that count tokens.
const COUNT_BITS: u32 = 48;
const MOST_TOKENS: u64 = (1 << COUNT_BITS) - 1;

/// The file.
#[derive(Debug)]
pub(crate) struct Slots {
    file: File,
    free: Mutex<Free>,
    abandoned: AtomicU64,
}

#[derive(Debug, Default)]
struct Free {
    released: Vec<u32>,
    next: u32,
}

/// What a slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// Who is asked, by their place in the plan that is on record with the start.
    pub(crate) place: u16,
    pub(crate) at: UnixNanos,
}

/// The right and the duty to end a request that is on record as started. Dropped without that it
/// leaves the request in flight, until the next start finds it.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) started: Seq,
    pub(crate) slot: u32,
    slots: Arc<Slots>,
    place: AtomicU16,
    ended: bool,
}

impl Slots {
    pub(crate) fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join("in-flight");
        let file = files::private().open(&path).map_err(|error| LedgerError::io(&path, &error))?;
        Ok(Self { file, free: Mutex::default(), abandoned: AtomicU64::new(0) })
    }

    /// A slot that is nobody's.
    pub(crate) fn take(&self) -> u32 {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.released.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    /// Keeps `slot` for the request that has it on record.
    pub(crate) fn reserve(&self, slot: u32) {
        if slot >= MOST {
            return;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let from = free.next;
        free.released.extend(from..slot.max(from));
        free.next = free.next.max(slot.saturating_add(1));
        free.released.retain(|released| *released != slot);
    }

    pub(crate) fn release(&self, slot: u32) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if slot < free.next {
            free.released.push(slot);
        }
    }

    /// What the request that started there had used, if the slot is still its own.
    pub(crate) fn read(&self, slot: u32, started: Seq) -> Option<Progress> {
        let mut bytes = [0; SLOT_BYTES];
        self.file.read_exact_at(&mut bytes, offset(slot)).ok()?;
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| word.try_into().map(u64::from_le_bytes).unwrap_or_default());
        let (seq, input, output, at, check) =
            (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        let place = match check ^ seq ^ input ^ output ^ at {
            CHECK => 0,
            CHECK_WITH_PLACE => u16::try_from(output >> COUNT_BITS).ok()?,
            _ => return None,
        };
        let output = output & MOST_TOKENS;
        (seq == started.0).then_some(Progress { input, output, place, at: UnixNanos(at) })
    }

    fn write(&self, slot: u32, started: Seq, Progress { input, output, place, at }: Progress) {
        let output = output.min(MOST_TOKENS) | (u64::from(place) << COUNT_BITS);
        let check = if place == 0 { CHECK } else { CHECK_WITH_PLACE };
        let check = check ^ started.0 ^ input ^ output ^ at.0;
        let mut bytes = [0; SLOT_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip([started.0, input, output, at.0, check])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        // Without room on the disk a crash now would find older counts; requests in flight go on.
        let _ = self.file.write_all_at(&bytes, offset(slot));
    }

    /// Tickets that were dropped without an end.
    pub(crate) fn abandoned(&self) -> u64 {
        self.abandoned.load(Relaxed)
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * SLOT_BYTES as u64
}

impl Ticket {
    pub(crate) fn new(started: Seq, slot: u32, slots: Arc<Slots>) -> Self {
        Self { started, slot, slots, place: AtomicU16::new(0), ended: false }
    }

    /// Notes who is asked, by their place in the plan of the call that is on record with the start; survives `kill -9`.
    pub fn asks(&self, place: u16) {
        if self.place.swap(place, Relaxed) != place {
            self.progress(0, 0);
        }
    }

    /// Notes what the request has used so far; survives `kill -9`. Takes about a microsecond.
    pub fn progress(&self, input_tokens: u64, output_tokens: u64) {
        let at = SystemTime::now().into();
        let place = self.place.load(Relaxed);
        let progress = Progress { input: input_tokens, output: output_tokens, place, at };
        self.slots.write(self.slot, self.started, progress);
    }

    /// Its request is on record as ended.
    pub(crate) fn end(mut self) {
        self.ended = true;
        self.slots.release(self.slot);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.ended {
            self.slots.abandoned.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_speaks_for_its_request_alone() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Arc::new(Slots::open(folder.path()).unwrap());
        slots.reserve(2);
        let numbers: Vec<u32> = (0..3).map(|_| slots.take()).collect();
        assert!(!numbers.contains(&2) && numbers.iter().max() == Some(&3), "{numbers:?}");
        // What a file says cannot make it large.
        slots.reserve(u32::MAX);
        slots.release(u32::MAX);
        assert_eq!(slots.take(), 4);
        let ticket = Ticket::new(Seq(7), 1, Arc::clone(&slots));
        assert_eq!(slots.read(1, Seq(7)), None);
        ticket.progress(12, 0);
        ticket.progress(12, 30);
        let again = Slots::open(folder.path()).unwrap();
        let found = again.read(1, Seq(7)).unwrap();
        assert_eq!((found.input, found.output, found.place), (12, 30, 0));
        for place in [3, u16::MAX, 0] {
            ticket.asks(place);
            let found = again.read(1, Seq(7)).unwrap();
            assert_eq!((found.input, found.output, found.place), (0, 0, place));
            ticket.progress(12, u64::MAX);
            let found = again.read(1, Seq(7)).unwrap();
            assert_eq!((found.input, found.output, found.place), (12, MOST_TOKENS, place));
        }
        assert_eq!((again.read(1, Seq(8)), again.read(0, Seq(0))), (None, None));
        ticket.end();
        drop(Ticket::new(Seq(8), 2, Arc::clone(&slots)));
        assert_eq!(slots.abandoned(), 1);
    }
}
