//! The ledger as one thread writes it: the newest file, the last entry, and what follows.

use std::path::PathBuf;
use std::time::SystemTime;

use tollgate_domain::UnixNanos;

use crate::chain::Link;
use crate::entry::{Kind, NewEntry, Seq, VERSION, nanos};
use crate::error::LedgerError;
use crate::files;
use crate::partition::{InFlight, Listed, Partition, Tail};
use crate::settings::Durability;

/// How often the size of a file is asked for until it is full: SQLite parses that question each time, which costs two
/// thirds of adding an entry. A file may so be too large by a share of itself.
const ASKED_IN_A_FILE: u64 = 256;

/// The ledger as one thread writes it.
pub(crate) struct Book {
    folder: PathBuf,
    durability: Durability,
    partition_bytes: u64,
    newest: Partition,
    /// Size of the newest file when it was last asked for.
    bytes: u64,
    /// What bodies of entries have come to since.
    added: u64,
    tail: Tail,
}

/// The newest file within one transaction. What it adds counts once that is committed.
pub(crate) struct Page<'a> {
    partition: &'a Partition,
    tail: Tail,
    /// Bytes of bodies.
    added: u64,
}

impl Book {
    /// Opens the newest file, or begins the first.
    pub(crate) fn open(
        folder: PathBuf,
        durability: Durability,
        partition_bytes: u64,
    ) -> Result<Self, LedgerError> {
        let mut ordinals = files::partitions(&folder)?;
        let mut book = loop {
            let Some(ordinal) = ordinals.pop() else { break None };
            let path = files::partition(&folder, ordinal);
            let newest = Partition::open(&path, ordinal, durability)?;
            if newest.is_begun()? {
                let (bytes, added, tail) = (size(&newest)?, 0, Tail::default());
                let folder = folder.clone();
                break Some(Self {
                    folder,
                    durability,
                    partition_bytes,
                    newest,
                    bytes,
                    added,
                    tail,
                });
            }
            // The process died between making the file and its first commit: nothing is in it.
            drop(newest);
            files::delete(&folder, ordinal)?;
        };
        if let Some(book) = &mut book {
            book.tail = book.read_tail()?;
        }
        match book {
            Some(book) => Ok(book),
            None => {
                let newest = begin(&folder, durability, Tail::default(), &[], &[], &[])?;
                let (bytes, added, tail) = (size(&newest)?, 0, Tail::default());
                Ok(Self { folder, durability, partition_bytes, newest, bytes, added, tail })
            }
        }
    }

    /// The last entry of all.
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    /// The newest file.
    pub(crate) fn newest(&self) -> &Partition {
        &self.newest
    }

    /// Writes in one transaction: all of it is committed, or nothing and the error says why.
    pub(crate) fn write<T>(
        &mut self,
        work: impl FnOnce(&mut Page<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, LedgerError> {
        let (tail, added, enough) = (self.tail, self.added, self.partition_bytes / ASKED_IN_A_FILE);
        let written = self.newest.transaction(|partition| {
            let mut page = Page { partition, tail, added };
            let value = work(&mut page)?;
            // In here the file is ours already; asked afterwards, it would have to be locked once more.
            let bytes = if page.added < enough { None } else { Some(partition.bytes()?) };
            Ok((value, page.tail, page.added, bytes))
        });
        let (value, tail, added, bytes) = written.map_err(|error| self.newest.failed(&error))?;
        (self.tail, self.added) = (tail, added);
        if let Some(bytes) = bytes {
            (self.bytes, self.added) = (bytes, 0);
        }
        Ok(value)
    }

    /// Begins the next file once this one is large enough; whether it did.
    pub(crate) fn turn(&mut self) -> Result<bool, LedgerError> {
        let newest = &self.newest;
        let failed = |error| newest.failed(&error);
        // An empty file is not closed, however small files shall be.
        if self.bytes < self.partition_bytes || newest.last().map_err(failed)?.is_none() {
            return Ok(false);
        }
        let (listed, in_flight, cursors) = (
            newest.listed().map_err(failed)?,
            newest.in_flight().map_err(failed)?,
            newest.cursors().map_err(failed)?,
        );
        let next = begin(&self.folder, self.durability, self.tail, &listed, &in_flight, &cursors)?;
        (self.bytes, self.added) = (size(&next)?, 0);
        self.newest = next;
        Ok(true)
    }

    /// Deletes files after the newest: what is left of a failed attempt to begin the next. Nothing
    /// was put on record in them.
    pub(crate) fn discard_later(&self) -> Result<(), LedgerError> {
        let ordinals = files::partitions(&self.folder)?.into_iter();
        ordinals
            .filter(|ordinal| *ordinal > self.newest.ordinal)
            .try_for_each(|ordinal| files::delete(&self.folder, ordinal))
    }

    /// Closes the newest file and opens it again, and reads where it ends: after an error nothing
    /// that was known of it counts.
    pub(crate) fn reopen(&mut self) -> Result<(), LedgerError> {
        let (path, ordinal) = (self.newest.path.clone(), self.newest.ordinal);
        if !path.exists() {
            return Err(LedgerError::damaged(&path, "the newest file is gone"));
        }
        self.newest = Partition::open(&path, ordinal, self.durability)?;
        (self.bytes, self.added) = (size(&self.newest)?, 0);
        self.tail = self.read_tail()?;
        Ok(())
    }

    fn read_tail(&self) -> Result<Tail, LedgerError> {
        let newest = &self.newest;
        let failed = |error| newest.failed(&error);
        let listed = newest.listed().map_err(failed)?;
        let Some(own) = listed.iter().rev().find(|file| file.ordinal == newest.ordinal) else {
            return Err(LedgerError::damaged(&newest.path, "the file does not list itself"));
        };
        let (seq, hash) = match newest.last().map_err(failed)? {
            Some(last) => last,
            None => (Seq(own.first.0.saturating_sub(1)), own.hash_before),
        };
        let before = own.first_number.saturating_sub(1);
        let records = newest.last_number().map_err(failed)?.unwrap_or(before);
        Ok(Tail { seq, records, hash })
    }
}

fn size(partition: &Partition) -> Result<u64, LedgerError> {
    partition.bytes().map_err(|error| partition.failed(&error))
}

fn begin(
    folder: &std::path::Path,
    durability: Durability,
    tail: Tail,
    listed: &[Listed],
    in_flight: &[InFlight],
    cursors: &[(String, crate::entry::Cursor)],
) -> Result<Partition, LedgerError> {
    let ordinal = listed.last().map_or(1, |last| last.ordinal + 1);
    let own = Listed {
        ordinal,
        first: Seq(tail.seq.0 + 1),
        first_number: tail.records + 1,
        hash_before: tail.hash,
        retired: false,
    };
    let path = files::partition(folder, ordinal);
    let partition = Partition::open(&path, ordinal, durability)?;
    let listed: Vec<Listed> = listed.iter().copied().chain([own]).collect();
    let begun = partition.begin_file(&listed, in_flight, cursors);
    begun.map_err(|error| partition.failed(&error))?;
    files::sync(folder)?;
    Ok(partition)
}

impl Page<'_> {
    /// Adds a start; its place.
    pub(crate) fn start(
        &mut self,
        entry: &NewEntry,
        slot: u32,
        plugin_set: &str,
    ) -> Result<Seq, rusqlite::Error> {
        let seq = self.add(entry, None)?;
        let plugin_set = plugin_set.to_owned();
        self.partition.add_in_flight(&InFlight { started: seq, slot, plugin_set })?;
        Ok(seq)
    }

    /// Adds a record, which ends the request that started there, if it did start. Its place, or
    /// `None` if that request has its end already.
    pub(crate) fn end(
        &mut self,
        entry: &NewEntry,
        started: Option<Seq>,
    ) -> Result<Option<Seq>, rusqlite::Error> {
        if let Some(started) = started
            && !self.partition.end_in_flight(started)?
        {
            return Ok(None);
        }
        self.add(entry, started).map(Some)
    }

    /// Moves a cursor.
    pub(crate) fn advance(
        &mut self,
        exporter: &str,
        cursor: &crate::entry::Cursor,
    ) -> Result<(), rusqlite::Error> {
        self.partition.set_cursor(exporter, cursor)
    }

    /// Says that a file is about to be deleted.
    pub(crate) fn retire(&mut self, ordinal: u64) -> Result<(), rusqlite::Error> {
        self.partition.retire(ordinal, nanos(UnixNanos::from(SystemTime::now())))
    }

    /// The last entry so far.
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    /// The file it is in.
    pub(crate) fn partition(&self) -> &Partition {
        self.partition
    }

    fn add(&mut self, entry: &NewEntry, started: Option<Seq>) -> Result<Seq, rusqlite::Error> {
        let seq = Seq(self.tail.seq.0 + 1);
        let is_record = entry.kind != Kind::Started;
        let number = is_record.then_some(self.tail.records + 1);
        let started_seq = started.map(|started| started.0);
        let (kind, body) = (entry.kind, entry.body.as_str());
        let link = Link { seq, kind, number, started_seq, version: VERSION, body };
        let hash = link.after(&self.tail.hash);
        self.partition.add_entry(seq, number, started_seq, entry, &hash)?;
        self.added = self.added.saturating_add(entry.body.len() as u64);
        let records = number.unwrap_or(self.tail.records);
        self.tail = Tail { seq, records, hash };
        Ok(seq)
    }
}
