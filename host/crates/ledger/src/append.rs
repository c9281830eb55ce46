//! A ledger of records that were priced again, beside the one that they come from.

use std::path::Path;

use crate::book::Book;
use crate::entry::{Head, Kind, NewEntry, Stored};
use crate::error::LedgerError;
use crate::files::{self, Lock};
use crate::settings::{Durability, LedgerSettings};

/// Records that are committed together.
const BATCH: usize = 1000;

/// Writes a new ledger from one end to the other.
pub struct LedgerWriter {
    book: Book,
    waiting: Vec<NewEntry>,
    _lock: Lock,
}

impl LedgerWriter {
    /// Makes a ledger in `folder`, which must have none.
    ///
    /// # Errors
    /// If there is one already, or it cannot be made.
    pub fn create(folder: &Path) -> Result<Self, LedgerError> {
        let lock = files::lock(folder)?;
        if !files::partitions(folder)?.is_empty() {
            let message = "there is a ledger already; name another folder".to_owned();
            return Err(LedgerError::File { path: folder.to_owned(), message });
        }
        let defaults = LedgerSettings::new(folder.to_owned());
        let book = Book::open(defaults.folder, Durability::Process, defaults.partition_bytes)?;
        Ok(Self { book, waiting: Vec::with_capacity(BATCH), _lock: lock })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If it and those before it cannot be committed.
    pub fn append(&mut self, stored: &Stored) -> Result<(), LedgerError> {
        let entry = NewEntry::new(Kind::Repriced, &stored.record);
        let path = &self.book.newest().path;
        self.waiting.push(entry.map_err(|error| LedgerError::damaged(path, error.to_string()))?);
        if self.waiting.len() >= BATCH { self.commit() } else { Ok(()) }
    }

    /// Commits the rest and closes the files; how far it goes.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn finish(mut self) -> Result<Head, LedgerError> {
        self.commit()?;
        let newest = self.book.newest();
        newest.empty_journal().map_err(|error| newest.failed(&error))?;
        let tail = self.book.tail();
        Ok(Head { seq: tail.seq, records: tail.records })
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.book
            .write(|page| waiting.iter().try_for_each(|entry| page.end(entry, None).map(drop)))?;
        self.book.turn().map(drop)
    }
}
