//! The handle of an open ledger.

use std::collections::HashSet;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};
use tollgate_domain::Record;

use crate::book::Book;
use crate::decisions::Decisions;
use crate::entry::{
    Cursor, Head, Interrupted, Kind, Look, NewEntry, Outbound, Payload, ReceivedKey, Seq, UnderWay,
};
use crate::error::LedgerError;
use crate::files;
use crate::reader::{self, LedgerReader};
use crate::settings::LedgerSettings;
use crate::shared::Shared;
use crate::slots::{Slots, Ticket};
use crate::state::{Counts, LedgerState};
use crate::upkeep::{Beside, Upkeep};
use crate::writer::{Command, Writer};

/// Commands that wait for the writer. Policy when it is full: *wait*.
const COMMANDS: usize = 1024;

/// Entries that are read at once by who looks back.
const PAGE_BACK: usize = 256;

/// An open ledger; clones share it. Once the last is dropped, or one is closed, it ends.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

/// A ledger that was opened, and what its last process left behind.
#[derive(Debug)]
pub struct Opened {
    /// The ledger.
    pub ledger: Ledger,
    /// Requests that were in flight.
    pub interrupted: Vec<Interrupted>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Ledger {
    /// Opens or makes the ledger, and finds what was in flight; blocks for a moment, however many
    /// records there are.
    ///
    /// # Errors
    /// [`LedgerError::InUse`], or a file that cannot be read or written.
    pub fn open(settings: LedgerSettings) -> Result<Opened, LedgerError> {
        let lock = files::lock(&settings.folder)?;
        let folder = settings.folder.clone();
        let book = Book::open(folder.clone(), settings.durability, settings.partition_bytes)?;
        let newest = book.newest();
        let in_flight = newest.in_flight().map_err(|error| newest.failed(&error))?;
        let cursors = newest.cursors().map_err(|error| newest.failed(&error))?;
        let tail = book.tail();
        let slots = Arc::new(Slots::open(&folder)?);
        let shared = Shared::new(folder, settings, slots, tail, newest.ordinal);
        shared.count(|counts| *counts = Counts::new(in_flight.len()));
        cursors.into_iter().for_each(|(exporter, cursor)| shared.moved(exporter, cursor));
        let shared = Arc::new(shared);
        let live: HashSet<Seq> = in_flight.iter().map(|request| request.started).collect();
        let interrupted = in_flight
            .into_iter()
            .map(|request| shared.interrupted(request))
            .collect::<Result<Vec<_>, _>>()?;
        let (commands, queue) = mpsc::channel(COMMANDS);
        let ledger = Self(Arc::new(Inner { commands, shared: Arc::clone(&shared) }));
        let (stop, stopped) = std_mpsc::sync_channel(1);
        let upkeep = Upkeep::new(Arc::clone(&shared), Arc::downgrade(&ledger.0), stopped);
        upkeep.look_at_disk();
        let thread = spawn("ledger-upkeep", || upkeep.run(), &shared)?;
        let beside = Beside { stop, thread };
        let writer = Writer::new(book, Arc::clone(&shared), queue, live, beside, lock);
        spawn("ledger", || writer.run(), &shared)?;
        Ok(Opened { ledger, interrupted })
    }

    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Whether a request may be admitted.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`]: why not, and what to do.
    pub fn admits(&self) -> Result<(), LedgerError> {
        let shared = &self.0.shared;
        shared.trouble().or_else(|| shared.no_room()).map_or(Ok(()), Err)
    }

    /// Puts a request on record as started: `record` is what it will be if nothing more is heard
    /// of it. Waits for the commit.
    ///
    /// # Errors
    /// If it could not be committed: then the request is not on record.
    pub async fn start(&self, record: &Record, plugin_set: &str) -> Result<Ticket, LedgerError> {
        let start = |reply| {
            let (entry, plugin_set) = (self.entry(Kind::Started, record)?, plugin_set.to_owned());
            Ok(Command::Start { entry, plugin_set, reply })
        };
        self.ask(start).await
    }

    /// Ends a started request. Waits for the commit.
    ///
    /// # Errors
    /// If it could not be committed. Its client is to be told so: the request goes on record as
    /// failed, with what it used and cost, once the ledger can write again.
    pub async fn finish(
        &self,
        ticket: Ticket,
        record: impl Into<Arc<Record>>,
    ) -> Result<Seq, LedgerError> {
        self.end(Some(ticket), record.into()).await
    }

    /// Puts a request on record that was refused before it started. Waits for the commit.
    ///
    /// # Errors
    /// If it could not be committed: then the request is not on record.
    pub async fn refused(&self, record: impl Into<Arc<Record>>) -> Result<Seq, LedgerError> {
        self.end(None, record.into()).await
    }

    async fn end(&self, ticket: Option<Ticket>, record: Arc<Record>) -> Result<Seq, LedgerError> {
        let end = |reply| {
            let kind = ticket.as_ref().map_or(Kind::Refused, |_| Kind::of_end(&record));
            let entry = self.entry(kind, &record)?;
            Ok(Command::End { entry, record, ticket, reply })
        };
        self.ask(end).await
    }

    /// Puts what other programs told us on record, all of it or nothing. Packs it, which blocks; what it gives waits
    /// for the commit.
    ///
    /// # Errors
    /// If it could not be committed. It may be on record all the same: look before it is put there
    /// again.
    pub fn received(
        &self,
        payloads: Vec<Payload>,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send + '_ {
        let entries = payloads.iter().map(Payload::received).collect::<Result<Vec<_>, _>>();
        async move {
            let entries = entries
                .map_err(|error| LedgerError::damaged(&self.0.shared.folder, error.to_string()))?;
            self.ask(|reply| Ok(Command::Receive { entries, payloads, reply })).await
        }
    }

    /// Looks back at what leaves, newest first, as far as `see` says, over at most `entries` entries;
    /// blocks. Whether that was all there is.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn look_back(
        &self,
        entries: u64,
        mut see: impl FnMut(&Payload) -> Look,
    ) -> Result<bool, LedgerError> {
        let shared = &self.0.shared;
        let head = shared.head.borrow().seq;
        let from = Seq(head.0.saturating_sub(entries) + 1);
        let mut before = Seq(head.0 + 1);
        let mut look = Look::On;
        for ordinal in shared.ordinals_after(Seq(from.0 - 1))?.into_iter().rev() {
            let path = files::partition(&shared.folder, ordinal);
            loop {
                let records = look == Look::OnAtRecords;
                let page = shared.reading(ordinal, |file| {
                    let page = file.newest_first(before, from, records, PAGE_BACK);
                    page.map_err(|error| file.failed(&error))
                })?;
                let Some((last, _, _)) = page.last() else { break };
                before = *last;
                // One after another: a batch may be far larger than its body.
                for (seq, kind, body) in page {
                    let is_record = Kind::named(&kind).is_some_and(Kind::is_record);
                    if look == Look::OnAtRecords && !is_record {
                        continue;
                    }
                    let (payload, _) = reader::payload(&path, seq, &kind, &body)?;
                    look = see(&payload);
                    if look == Look::NoFurther {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(from.0 == 1)
    }

    /// Of each of these calls, which another program told of, whether it is on record; blocks. An index
    /// of each file is asked, and nothing else is read.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn have_received(&self, calls: &[ReceivedKey]) -> Result<Vec<bool>, LedgerError> {
        let shared = &self.0.shared;
        let mut found = vec![false; calls.len()];
        for ordinal in shared.ordinals()?.into_iter().rev() {
            shared.reading(ordinal, |file| {
                for (call, found) in calls.iter().zip(&mut found).filter(|(_, found)| !**found) {
                    *found = file.has_received(call).map_err(|error| file.failed(&error))?;
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// How far the ledger goes, as it grows.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Head> {
        self.0.shared.head.subscribe()
    }

    /// What leaves after `after`, in order, at most `most`; blocks if it is not recent.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self, after: Seq, most: usize) -> Result<Vec<Arc<Outbound>>, LedgerError> {
        let shared = &self.0.shared;
        if let Some(recent) = shared.recent().after(after, most) {
            return Ok(recent);
        }
        let mut records = Vec::new();
        for ordinal in shared.ordinals_after(after)? {
            let from = records.last().map_or(after, |found: &Arc<Outbound>| found.seq);
            let wanted = most.saturating_sub(records.len());
            if wanted == 0 {
                break;
            }
            let found = shared.reading(ordinal, |file| {
                let last = file.last().map_err(|error| file.failed(&error))?;
                if last.is_none_or(|(last, _)| last <= from) {
                    return Ok(Vec::new());
                }
                reader::outbound(file, from, wanted)
            })?;
            records.extend(found.into_iter().map(Arc::new));
            // What is left of the file comes before the next one.
            let end = shared.reading(ordinal, |file| {
                let last = file.last_number().map_err(|error| file.failed(&error))?;
                Ok(last.is_none_or(|last| records.last().is_some_and(|read| read.number >= last)))
            })?;
            if !records.is_empty() && !end {
                break;
            }
        }
        Ok(records)
    }

    /// Whether what comes after `after` will soon have to be read from disk, for it takes half of what is kept in memory.
    #[must_use]
    pub fn is_crowded_after(&self, after: Seq) -> bool {
        self.0.shared.recent().is_crowded_after(after)
    }

    /// Reads what is committed, over connections of its own; opening it blocks for a moment.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn reader(&self) -> Result<LedgerReader, LedgerError> {
        LedgerReader::open(&self.0.shared.folder)
    }

    /// How it is kept.
    #[must_use]
    pub fn settings(&self) -> &LedgerSettings {
        &self.0.shared.settings
    }

    /// The requests in flight that started last, at most `most`; blocks.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn in_flight(&self, most: usize) -> Result<Vec<UnderWay>, LedgerError> {
        let shared = &self.0.shared;
        let requests = shared.reading(shared.newest(), |file| {
            file.in_flight().map_err(|error| file.failed(&error))
        })?;
        let newest = requests.into_iter().rev().take(most);
        let found = newest.map(|request| {
            let progress = shared.slots.read(request.slot, request.started);
            let mut record = shared.record_at(request.started)?;
            record.asks_planned(progress.map(|progress| progress.place).unwrap_or_default());
            let tokens = progress.map(|progress| (progress.input, progress.output));
            Ok(UnderWay { started: request.started, record, tokens })
        });
        found.collect()
    }

    /// Says which exporters there are: cursors of others hold up retention no longer. Until it is
    /// said all that are on record do.
    pub fn delivers_to(&self, exporters: &[&str]) {
        self.0.shared.retain_cursors(|name| exporters.contains(&name));
    }

    /// Where `exporter` goes on reading; none if it has never read. From here on nothing after its
    /// cursor is deleted.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn cursor(&self, exporter: &str) -> Result<Option<Cursor>, LedgerError> {
        let shared = &self.0.shared;
        if let Some(cursor) = shared.cursor(exporter) {
            return Ok(Some(cursor));
        }
        let stored = shared
            .reading(shared.newest(), |file| file.cursors().map_err(|error| file.failed(&error)))?;
        let found = stored.into_iter().find(|(name, _)| name == exporter);
        if let Some((name, cursor)) = &found {
            shared.moved(name.clone(), *cursor);
        }
        Ok(found.map(|(_, cursor)| cursor))
    }

    /// Moves a cursor. Waits for the commit.
    ///
    /// # Errors
    /// If it could not be committed; after a crash the exporter begins where it was before.
    pub async fn advance(&self, exporter: &str, cursor: Cursor) -> Result<(), LedgerError> {
        let exporter = exporter.to_owned();
        self.ask(|reply| Ok(Command::Advance { exporter, cursor, reply })).await
    }

    /// What `exporter` has decided of traces; opening it blocks for a moment.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn decisions(&self, exporter: &str) -> Result<Decisions, LedgerError> {
        let shared = &self.0.shared;
        Decisions::open(&shared.folder, shared.settings.durability, exporter)
    }

    /// What it did so far, and how it stands.
    #[must_use]
    pub fn state(&self) -> LedgerState {
        let shared = &self.0.shared;
        let (counts, disk) = (shared.count(|counts| counts.clone()), shared.disk());
        let ended = counts.finished.saturating_add(counts.aborted);
        LedgerState {
            started: counts.started,
            finished: counts.finished,
            aborted: counts.aborted,
            refused: counts.refused,
            received: counts.received,
            span_batches: counts.span_batches,
            passed: counts.passed,
            in_flight: counts.started.saturating_sub(ended),
            abandoned: shared.slots.abandoned(),
            commits: counts.commits,
            failed_commits: counts.failed_commits,
            commit_seconds: counts.commit_seconds,
            batch: counts.batch,
            bytes: disk.bytes,
            wal_bytes: disk.wal_bytes,
            partitions: disk.partitions,
            budget_bytes: shared.settings.budget_bytes,
            free_bytes: disk.free_bytes,
            min_free_bytes: shared.settings.min_free_bytes,
            unavailable: self.admits().err().map(|error| error.to_string()),
        }
    }

    /// Commits what is under way, writes the journal back, closes the files and leaves the folder
    /// to the next.
    ///
    /// # Errors
    /// If that cannot be done; the next start repairs it.
    pub async fn close(self) -> Result<(), LedgerError> {
        self.ask(|reply| Ok(Command::Close { reply })).await
    }

    pub(crate) fn retire_blocking(&self, ordinal: u64) -> Result<(), LedgerError> {
        self.ask_blocking(|reply| Command::Retire { ordinal, reply })
    }

    pub(crate) fn write_back_blocking(&self) -> Result<(), LedgerError> {
        self.ask_blocking(|reply| Command::WriteBack { reply })
    }

    fn ask_blocking<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Command,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.blocking_send(command(reply)).map_err(|_| LedgerError::Closed)?;
        answer.blocking_recv().unwrap_or(Err(LedgerError::Closed))
    }

    fn entry(&self, kind: Kind, record: &Record) -> Result<NewEntry, LedgerError> {
        NewEntry::new(kind, record)
            .map_err(|error| LedgerError::damaged(&self.0.shared.folder, error.to_string()))
    }

    /// Waits for a place first and makes the command then: a task that holds one while it waits is as large as that.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Result<Command, LedgerError>,
    ) -> Result<T, LedgerError> {
        let place = self.0.commands.reserve().await.map_err(|_| LedgerError::Closed)?;
        let (reply, answer) = oneshot::channel();
        place.send(command(reply)?);
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }
}

fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
    shared: &Shared,
) -> Result<thread::JoinHandle<()>, LedgerError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| LedgerError::io(&shared.folder, &error))
}
