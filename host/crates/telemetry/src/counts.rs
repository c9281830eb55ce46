//! What became of an exporter's spans: counted by its handle and its task, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How often one exporter warns of the same trouble at most.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What became of an exporter's spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExporterCounts {
    /// Where they should be.
    pub delivered: u64,
    /// Lost because the queue was full or the exporter closed.
    pub dropped: u64,
    /// Lost because the sink did not take them, within the time that is allowed for retries.
    pub failed: u64,
    /// Queued or being sent.
    pub pending: u64,
}

/// What the handle and the task both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: &'static str,
    pub(crate) delivered: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) pending: AtomicU64,
    started: Instant,
    /// Milliseconds after `started` before which there is no further warning.
    quiet_until: AtomicU64,
}

impl Shared {
    /// Nothing yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            started: Instant::now(),
            quiet_until: AtomicU64::new(0),
        }
    }

    /// All counts.
    pub(crate) fn counts(&self) -> ExporterCounts {
        ExporterCounts {
            delivered: self.delivered.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            failed: self.failed.load(Relaxed),
            pending: self.pending.load(Relaxed),
        }
    }

    /// Logs trouble, unless there was a warning not long ago: the counts tell the rest.
    pub(crate) fn warn(&self, message: &str) {
        let milliseconds = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(self.started.elapsed());
        let quiet_until = self.quiet_until.load(Relaxed);
        let next = now.saturating_add(milliseconds(WARN_EVERY));
        let mine = self.quiet_until.compare_exchange(quiet_until, next, Relaxed, Relaxed);
        if now >= quiet_until && mine.is_ok() {
            tracing::warn!(exporter = self.name, counts = ?self.counts(), "{message}");
        }
    }
}
