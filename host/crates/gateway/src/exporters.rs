//! What becomes of the records that an exporter delivers: counted by its courier, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tollgate_domain::UnixNanos;
use tollgate_ledger::{Cursor, Ledger, Seq};
use tollgate_telemetry::Accepted;
use tollgate_telemetry::metrics::Distribution;

use crate::metrics::ExporterCounts;
use crate::traces::TraceCounts;

/// How often one exporter warns of the same trouble at most.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// How much is kept of what was wrong.
const TROUBLE_CHARACTERS: usize = 1000;

/// Bounds of how long attempts to send take, in seconds.
const SEND_SECONDS: [f64; 12] =
    [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// What one exporter did so far.
#[derive(Debug)]
pub(crate) struct ExporterMeter {
    name: String,
    /// The last entry that it has read.
    read: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cursor: Cursor,
    /// Records before the first that it has to answer for. Known once it has begun, and not
    /// counted again: so a record that it forgets shows as a difference.
    before: Option<u64>,
    traces: Option<TraceCounts>,
    took: Distribution,
    retries: u64,
    /// Since when the receiver takes nothing.
    failing_since: Option<Instant>,
    failed: Option<Instant>,
    warned: Option<Instant>,
    /// What was wrong last, and when.
    trouble: Option<(Instant, String)>,
}

/// How an exporter does, for those who look on.
#[derive(Clone, Debug)]
pub struct ExporterStatus {
    /// What it counts.
    pub counts: ExporterCounts,
    /// For how long the receiver has been taking nothing; none while it takes.
    pub failing_for: Option<Duration>,
    /// What was wrong last, and how long ago.
    pub trouble: Option<(Duration, String)>,
}

impl ExporterMeter {
    pub(crate) fn new(name: &str) -> Self {
        let state = State {
            cursor: Cursor::default(),
            before: None,
            traces: None,
            took: Distribution::new(&SEND_SECONDS),
            retries: 0,
            failing_since: None,
            failed: None,
            warned: None,
            trouble: None,
        };
        Self { name: name.to_owned(), read: AtomicU64::default(), state: Mutex::new(state) }
    }

    /// Its exporter's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It has read the records up to there.
    pub(crate) fn has_read(&self, seq: Seq) {
        self.read.store(seq.0, Ordering::Relaxed);
    }

    /// Whether its receiver takes what it sends, and it is so far behind that it will soon have to read from disk
    /// what came meanwhile.
    pub(crate) fn falls_behind(&self, ledger: &Ledger) -> bool {
        let read = Seq(self.read.load(Ordering::Relaxed));
        ledger.is_crowded_after(read) && self.locked().failing_since.is_none()
    }

    /// It is done with the records up to there.
    pub(crate) fn moved(&self, to: &Cursor) {
        let mut state = self.locked();
        state.before.get_or_insert_with(|| to.records.saturating_sub(done(to)));
        state.cursor = *to;
    }

    /// What has become of traces that it waits for.
    pub(crate) fn traces(&self, counts: &TraceCounts) {
        self.locked().traces = Some(counts.clone());
    }

    /// It made an attempt to send.
    pub(crate) fn attempted(&self, took: Duration) {
        self.locked().took.observe(took.as_secs_f64());
    }

    /// The receiver took a batch.
    pub(crate) fn taken(&self, accepted: &Accepted) {
        let again = self.locked().failing_since.take();
        if let Some(since) = again {
            let after = since.elapsed();
            tracing::info!(exporter = self.name, ?after, "exporter delivers again");
        }
        if accepted.rejected_spans > 0 {
            let said = accepted.message.as_deref().unwrap_or("without a reason");
            self.trouble(&format!(
                "the receiver refused {} spans: {said}",
                accepted.rejected_spans
            ));
        }
    }

    /// The receiver did not take a batch for now.
    pub(crate) fn failed(&self, message: &str) {
        let mut state = self.locked();
        state.retries = state.retries.saturating_add(1);
        state.failed = Some(Instant::now());
        state.failing_since.get_or_insert_with(Instant::now);
        drop(state);
        self.trouble(message);
    }

    /// Logs trouble, unless there was a warning not long ago: the counts tell the rest.
    pub(crate) fn trouble(&self, message: &str) {
        let mut state = self.locked();
        let said = message.chars().take(TROUBLE_CHARACTERS).collect();
        state.trouble = Some((Instant::now(), said));
        let quiet = state.warned.is_some_and(|at| at.elapsed() < WARN_EVERY);
        if !quiet {
            state.warned = Some(Instant::now());
            drop(state);
            tracing::warn!(exporter = self.name, "{message}");
        }
    }

    /// How it does; blocks as [`ExporterMeter::counts`].
    pub(crate) fn status(&self, ledger: &Ledger) -> ExporterStatus {
        let counts = self.counts(ledger);
        let state = self.locked();
        ExporterStatus {
            counts,
            failing_for: state.failing_since.map(|since| since.elapsed()),
            trouble: state.trouble.as_ref().map(|(at, said)| (at.elapsed(), said.clone())),
        }
    }

    /// All of it, as it is now; reads a record if one waits, so it blocks.
    pub(crate) fn counts(&self, ledger: &Ledger) -> ExporterCounts {
        // The head first: it only grows, so that nothing pends twice.
        let head = *ledger.head().borrow();
        let state = self.locked();
        let (cursor, send_seconds) = (state.cursor, state.took.histogram());
        let (retries, failed, before) = (state.retries, state.failed, state.before.unwrap_or(0));
        let traces = state.traces.clone();
        drop(state);
        let pending = head.records.saturating_sub(cursor.records);
        ExporterCounts {
            name: self.name.clone(),
            records: head.records.max(cursor.records).saturating_sub(before),
            delivered: cursor.delivered,
            filtered: cursor.filtered,
            rejected: cursor.rejected,
            pending,
            oldest_pending: (pending > 0).then(|| oldest(ledger, &cursor)).flatten(),
            send_seconds,
            traces,
            retries,
            last_error_age: failed.map(|at| at.elapsed()),
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records of which is known what became of them.
fn done(cursor: &Cursor) -> u64 {
    cursor.delivered.saturating_add(cursor.filtered).saturating_add(cursor.rejected)
}

/// How long ago the first record after the cursor ended.
fn oldest(ledger: &Ledger, cursor: &Cursor) -> Option<Duration> {
    let first = ledger.read(cursor.seq, 1).ok()?.into_iter().next()?;
    Some(UnixNanos::from(SystemTime::now()).since(first.what.ended()))
}

#[cfg(test)]
mod tests {
    use tollgate_domain::passed::{Passed, Signal};
    use tollgate_ledger::{LedgerSettings, Payload};

    use super::*;

    /// A request of a megabyte.
    fn request() -> Payload {
        let passed = Passed {
            signal: Signal::Logs,
            tenant: None,
            arrived: UnixNanos(1),
            request: vec![0; 1 << 20],
        };
        Payload::Passed(Box::new(passed))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_falls_behind_is_waited_for_unless_nothing_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(LedgerSettings::new(folder.path().to_owned())).unwrap().ledger;
        let meter = ExporterMeter::new("e");
        assert!(!meter.falls_behind(&ledger), "there is nothing to read");
        ledger.received((0..8).map(|_| request()).collect()).await.unwrap();
        assert!(meter.falls_behind(&ledger));
        meter.failed("it is down");
        assert!(!meter.falls_behind(&ledger));
        meter.taken(&Accepted::default());
        assert!(meter.falls_behind(&ledger));
        meter.has_read(Seq(4));
        assert!(!meter.falls_behind(&ledger));
        // What it has not read is on disk only.
        ledger.received((0..16).map(|_| request()).collect()).await.unwrap();
        assert!(!meter.falls_behind(&ledger));
        ledger.close().await.unwrap();
    }
}
