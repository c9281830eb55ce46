//! What goes on beside the writer: the journal is written back, old files are deleted, the disk is
//! watched. Once a second, and when a file was closed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tollgate_domain::UnixNanos;

use crate::entry::integer;
use crate::error::LedgerError;
use crate::files;
use crate::ledger::Ledger;
use crate::partition::{Listed, Partition, WAL_BYTES};
use crate::shared::Shared;
use crate::state::Disk;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// How often the journal is written back before the writer is asked for the rest, at most, and what is little enough
/// for it.
const PASSES: usize = 3;
const FEW_PAGES: u64 = 256;

/// The thread, as whoever ends it has it.
pub(crate) struct Beside {
    pub(crate) stop: SyncSender<()>,
    pub(crate) thread: JoinHandle<()>,
}

impl Beside {
    /// Lets it finish what it is at, and waits for that.
    pub(crate) fn end(self) {
        // Full or gone: it knows.
        let _ = self.stop.try_send(());
        if self.thread.join().is_err() {
            tracing::error!("the ledger's upkeep failed; this is a bug");
        }
    }
}

/// The thread's state.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    /// To ask the writer with; its other handles decide when it ends.
    ledger: std::sync::Weak<crate::ledger::Inner>,
    stop: Receiver<()>,
    /// The newest file, open.
    newest: Option<Partition>,
}

impl Upkeep {
    pub(crate) fn new(
        shared: Arc<Shared>,
        ledger: std::sync::Weak<crate::ledger::Inner>,
        stop: Receiver<()>,
    ) -> Self {
        Self { shared, ledger, stop, newest: None }
    }

    /// Looks until the ledger is closed or dropped.
    pub(crate) fn run(mut self) {
        loop {
            self.look();
            match self.stop.recv_timeout(EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) {
        match self.write_back().and_then(|()| self.retain()) {
            // Whoever closed it does the rest.
            Ok(()) | Err(LedgerError::Closed) => {}
            Err(error) => tracing::warn!(%error, "the ledger's upkeep goes on later"),
        }
        self.look_at_disk();
    }

    /// Whether there is room; also when a ledger is opened, before anything is admitted.
    pub(crate) fn look_at_disk(&self) {
        let disk = self.measure();
        self.shared.set_room(self.no_room(disk), disk);
    }

    /// Writes journals back: that of the newest file from some size on, those of closed files whole.
    fn write_back(&mut self) -> Result<(), LedgerError> {
        let (folder, newest) = (&self.shared.folder, self.shared.newest());
        if self.newest.as_ref().is_none_or(|open| open.ordinal != newest) {
            let path = files::partition(folder, newest);
            self.newest = Some(Partition::open(&path, newest, self.shared.settings.durability)?);
        }
        for ordinal in files::partitions(folder)?.into_iter().filter(|ordinal| *ordinal < newest) {
            let path = files::partition(folder, ordinal);
            if files::wal_bytes(&path) > 0 {
                let closed = Partition::open(&path, ordinal, self.shared.settings.durability)?;
                closed.empty_journal().map_err(|error| closed.failed(&error))?;
            }
        }
        let Some(open) = &self.newest else { return Ok(()) };
        if files::wal_bytes(&open.path) <= WAL_BYTES {
            return Ok(());
        }
        // Beside a busy writer the end is never reached from here, but each time what is left is what came meanwhile.
        for _ in 0..PASSES {
            let left = open.write_back().map_err(|error| open.failed(&error))?;
            if left <= FEW_PAGES {
                break;
            }
        }
        match self.ledger.upgrade() {
            Some(ledger) => Ledger::of(ledger).write_back_blocking(),
            None => Ok(()),
        }
    }

    /// Deletes the oldest files that are too old or too many, once every exporter has passed them.
    fn retain(&mut self) -> Result<(), LedgerError> {
        let settings = &self.shared.settings;
        if settings.retain_for.is_none() && settings.retain_bytes.is_none() {
            return Ok(());
        }
        let Some(newest) = &self.newest else { return Ok(()) };
        let listed = newest.listed().map_err(|error| newest.failed(&error))?;
        let in_flight = newest.in_flight().map_err(|error| newest.failed(&error))?;
        let oldest_in_flight = in_flight.iter().map(|request| request.started.0).min();
        let needed = oldest_in_flight.into_iter().chain(self.shared.oldest_unread()).min();
        for (place, pair) in listed.windows(2).enumerate() {
            let [file, next] = pair else { break };
            let later = listed.iter().skip(place).take_while(|file| file.ordinal < newest.ordinal);
            let path = files::partition(&self.shared.folder, file.ordinal);
            if file.retired {
                if path.exists() {
                    self.delete(file.ordinal)?;
                }
                continue;
            }
            let passed = needed.is_none_or(|needed| needed >= next.first.0);
            if !passed || !(self.too_large() || self.too_old(later)?) {
                return Ok(());
            }
            let Some(ledger) = self.ledger.upgrade() else { return Ok(()) };
            // Said in the newest file first: a file that is missing without that was taken away.
            Ledger::of(ledger).retire_blocking(file.ordinal)?;
            self.delete(file.ordinal)?;
        }
        Ok(())
    }

    fn delete(&self, ordinal: u64) -> Result<(), LedgerError> {
        self.shared.forget(ordinal);
        files::delete(&self.shared.folder, ordinal)?;
        tracing::info!(ordinal, "a file of the ledger was deleted, as retention asks");
        Ok(())
    }

    fn too_large(&self) -> bool {
        let bytes = files::bytes(&self.shared.folder);
        self.shared.settings.retain_bytes.is_some_and(|most| bytes > most)
    }

    /// Whether the first of these files is. One that ends in the future, since the clock was wrong
    /// once, is as old as the one after it.
    fn too_old<'a>(&self, files: impl Iterator<Item = &'a Listed>) -> Result<bool, LedgerError> {
        let Some(retain_for) = self.shared.settings.retain_for else { return Ok(false) };
        let now = UnixNanos::from(SystemTime::now());
        let limit = now.0.saturating_sub(tollgate_domain::time::nanos(retain_for));
        for Listed { ordinal, .. } in files {
            let path = files::partition(&self.shared.folder, *ordinal);
            let file = Partition::read_only(&path, *ordinal)?;
            match file.last_ended_at().map_err(|error| file.failed(&error))? {
                Some(last) if last > integer(now.0) => {}
                last => return Ok(last.is_some_and(|last| last < integer(limit))),
            }
        }
        Ok(false)
    }

    fn measure(&self) -> Disk {
        let folder = &self.shared.folder;
        let newest = files::partition(folder, self.shared.newest());
        Disk {
            bytes: files::bytes(folder),
            wal_bytes: files::wal_bytes(&newest),
            partitions: files::partitions(folder).map_or(0, |found| found.len() as u64),
            free_bytes: files::free_bytes(folder),
        }
    }

    /// Why nothing is to be put on record, as far as the disk goes.
    fn no_room(&self, disk: Disk) -> Option<String> {
        let settings = &self.shared.settings;
        let folder = self.shared.folder.display();
        if let Some(free) = disk.free_bytes.filter(|free| *free < settings.min_free_bytes) {
            let (free, least) = (free >> 20, settings.min_free_bytes >> 20);
            return Some(format!(
                "the disk of {folder} has {free} MiB left and the ledger keeps {least} free \
                 (ledger-min-free-mib); free some space"
            ));
        }
        let budget = settings.budget_bytes.filter(|budget| disk.bytes > *budget)?;
        Some(format!(
            "the ledger in {folder} takes {} MiB of space and may take {} (ledger-budget-mib); \
             raise that, or let retention delete files that every exporter has passed",
            disk.bytes >> 20,
            budget >> 20
        ))
    }
}
