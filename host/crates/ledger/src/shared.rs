//! What the handle of a ledger, its writer and its upkeep all see: how far it goes, what is recent, why it cannot go on,
//! and the files that are open to be read.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tollgate_domain::usage::Phase;
use tollgate_domain::{Outcome, Record};

use crate::entry::{Cursor, Head, Interrupted, Seq};
use crate::error::LedgerError;
use crate::files;
use crate::partition::{InFlight, Partition, Tail};
use crate::reader;
use crate::recent::Recent;
use crate::settings::LedgerSettings;
use crate::slots::{Slots, Ticket};
use crate::state::{Counts, Disk};

/// What they share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: PathBuf,
    pub(crate) settings: LedgerSettings,
    pub(crate) slots: Arc<Slots>,
    pub(crate) head: watch::Sender<Head>,
    newest: AtomicU64,
    recent: Mutex<Recent>,
    counts: Mutex<Counts>,
    /// Of exporters that hold up retention: all on record, until it is said which there are.
    cursors: Mutex<BTreeMap<String, Cursor>>,
    /// Why the writer cannot write, and why it should not.
    trouble: Mutex<Option<String>>,
    no_room: Mutex<Option<String>>,
    disk: Mutex<Disk>,
    /// Files that are open to be read, by ordinal.
    open: Mutex<HashMap<u64, Partition>>,
}

impl Shared {
    /// Of a ledger that goes as far as `tail`, in the file `newest`; nobody reads it yet.
    pub(crate) fn new(
        folder: PathBuf,
        settings: LedgerSettings,
        slots: Arc<Slots>,
        tail: Tail,
        newest: u64,
    ) -> Self {
        Self {
            folder,
            settings,
            slots,
            head: watch::Sender::new(Head { seq: tail.seq, records: tail.records }),
            newest: AtomicU64::new(newest),
            recent: Mutex::new(Recent::from(tail.seq)),
            counts: Mutex::new(Counts::new(0)),
            cursors: Mutex::default(),
            trouble: Mutex::default(),
            no_room: Mutex::default(),
            disk: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// Why nothing can be written, if so.
    pub(crate) fn trouble(&self) -> Option<LedgerError> {
        lock(&self.trouble).clone().map(|reason| LedgerError::Unavailable { reason })
    }

    /// Why nothing should be written, if so.
    pub(crate) fn no_room(&self) -> Option<LedgerError> {
        lock(&self.no_room).clone().map(|reason| LedgerError::Unavailable { reason })
    }

    /// How the disk was when it was last looked at.
    pub(crate) fn disk(&self) -> Disk {
        *lock(&self.disk)
    }

    pub(crate) fn set_trouble(&self, reason: Option<String>) {
        *lock(&self.trouble) = reason;
    }

    /// Why nothing should be written, if so, and what the disk looks like.
    pub(crate) fn set_room(&self, no_room: Option<String>, disk: Disk) {
        *lock(&self.disk) = disk;
        let mut said = lock(&self.no_room);
        match (&*said, &no_room) {
            (None, Some(reason)) => {
                tracing::error!(reason, "requests are refused: the ledger has no room");
            }
            (Some(_), None) => tracing::info!("the ledger has room again"),
            _ => {}
        }
        *said = no_room;
    }

    pub(crate) fn count<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut lock(&self.counts))
    }

    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        lock(&self.recent)
    }

    /// Where an exporter is, if it is known to hold up retention.
    pub(crate) fn cursor(&self, exporter: &str) -> Option<Cursor> {
        lock(&self.cursors).get(exporter).copied()
    }

    /// Forgets the cursors of other exporters.
    pub(crate) fn retain_cursors(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.cursors).retain(|name, _| is_there(name));
    }

    pub(crate) fn moved(&self, exporter: String, cursor: Cursor) {
        lock(&self.cursors).insert(exporter, cursor);
    }

    /// The first entry that some exporter has not passed.
    pub(crate) fn oldest_unread(&self) -> Option<u64> {
        lock(&self.cursors).values().map(|cursor| cursor.seq.0.saturating_add(1)).min()
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Relaxed)
    }

    pub(crate) fn set_newest(&self, ordinal: u64) {
        self.newest.store(ordinal, Relaxed);
    }

    /// Closes all files that are open to be read.
    pub(crate) fn close_files(&self) {
        lock(&self.open).clear();
    }

    /// Closes what is open of a file that is about to be deleted.
    pub(crate) fn forget(&self, ordinal: u64) {
        lock(&self.open).remove(&ordinal);
    }

    /// The files that are there, oldest first.
    pub(crate) fn ordinals(&self) -> Result<Vec<u64>, LedgerError> {
        let (mut ordinals, newest) = (files::partitions(&self.folder)?, self.newest());
        // One may be made and not begun yet.
        ordinals.retain(|ordinal| *ordinal <= newest);
        Ok(ordinals)
    }

    /// Those of them that may have entries after `after`.
    pub(crate) fn ordinals_after(&self, after: Seq) -> Result<Vec<u64>, LedgerError> {
        let listed =
            self.reading(self.newest(), |file| file.listed().map_err(|error| file.failed(&error)))?;
        let begins = listed.iter().rfind(|file| file.first <= after).map(|file| file.ordinal);
        let mut ordinals = self.ordinals()?;
        ordinals.retain(|ordinal| begins.is_none_or(|begins| *ordinal >= begins));
        Ok(ordinals)
    }

    /// The record of one entry.
    pub(crate) fn record_at(&self, seq: Seq) -> Result<Record, LedgerError> {
        for ordinal in self.ordinals()?.into_iter().rev() {
            let found = self.reading(ordinal, |file| {
                let body = file.body(seq).map_err(|error| file.failed(&error))?;
                body.map(|body| reader::record(&file.path, seq, &body)).transpose()
            })?;
            if let Some(record) = found {
                return Ok(record);
            }
        }
        let what = format!("entry {} is in no file", seq.0);
        Err(LedgerError::damaged(&self.folder, what))
    }

    pub(crate) fn interrupted(&self, request: InFlight) -> Result<Interrupted, LedgerError> {
        let mut record = self.record_at(request.started)?;
        record.outcome = Outcome::Aborted;
        let progress = self.slots.read(request.slot, request.started);
        record.asks_planned(progress.map(|progress| progress.place).unwrap_or_default());
        if let Some(progress) = progress {
            record.phases.request.end = record.phases.request.end.max(progress.at);
            if let Some(usage) = &mut record.usage {
                usage.phase = Phase::Interrupted;
                // A slot that only tells who is asked leaves what the start says that they read.
                if (progress.input, progress.output) != (0, 0) {
                    (usage.tokens.input, usage.tokens.output) = (progress.input, progress.output);
                }
            }
        }
        if let Some(call) = &mut record.upstream {
            call.interval.end = call.interval.end.max(record.phases.request.end);
        }
        self.slots.reserve(request.slot);
        let ticket = Ticket::new(request.started, request.slot, Arc::clone(&self.slots));
        Ok(Interrupted { ticket, record, plugin_set: request.plugin_set })
    }

    /// Reads in a file, which stays open for the next time.
    pub(crate) fn reading<T>(
        &self,
        ordinal: u64,
        read: impl FnOnce(&Partition) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let mut open = lock(&self.open);
        let file = match open.remove(&ordinal) {
            Some(file) => file,
            None => Partition::read_only(&files::partition(&self.folder, ordinal), ordinal)?,
        };
        let value = read(&file)?;
        // The few that are read now: the newest, and where an exporter catches up.
        if open.len() >= 4 {
            open.clear();
        }
        open.insert(ordinal, file);
        Ok(value)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
