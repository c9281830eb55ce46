//! What becomes of the records that an exporter delivers: counted by its courier, read by anyone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tollgate_ledger::Cursor;
use tollgate_telemetry::Accepted;

/// How often one exporter warns of the same trouble at most.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What one exporter did so far.
#[derive(Debug)]
pub(crate) struct ExporterMeter {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cursor: Cursor,
    attempts: u64,
    retries: u64,
    rejected_spans: u64,
    sending: Duration,
    /// Since when the receiver takes nothing.
    failing_since: Option<Instant>,
    warned: Option<Instant>,
}

/// What one exporter did so far, records counted over all starts of the gateway.
#[derive(Clone, Debug)]
pub struct ExporterCounts {
    /// Its name.
    pub name: String,
    /// How far it is, and what became of the records up to there.
    pub cursor: Cursor,
    /// Attempts to send since the start.
    pub attempts: u64,
    /// How many of them the receiver did not take for now.
    pub retries: u64,
    /// Spans that receivers refused in batches that they took, since the start.
    pub rejected_spans: u64,
    /// Time spent sending since the start.
    pub sending: Duration,
    /// For how long the receiver has taken nothing.
    pub failing_for: Option<Duration>,
}

impl ExporterMeter {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: Mutex::default() }
    }

    pub(crate) fn moved(&self, to: &Cursor) {
        self.locked().cursor = *to;
    }

    pub(crate) fn attempted(&self, took: Duration) {
        let mut state = self.locked();
        state.attempts += 1;
        state.sending += took;
    }

    pub(crate) fn taken(&self, accepted: &Accepted) {
        let mut state = self.locked();
        state.rejected_spans += accepted.rejected_spans;
        let again = state.failing_since.take();
        drop(state);
        if let Some(since) = again {
            tracing::info!(exporter = self.name, after = ?since.elapsed(), "exporter delivers again");
        }
        if accepted.rejected_spans > 0 {
            let said = accepted.message.as_deref().unwrap_or("without a reason");
            self.trouble(&format!(
                "the receiver refused {} spans: {said}",
                accepted.rejected_spans
            ));
        }
    }

    pub(crate) fn failed(&self, message: &str) {
        let mut state = self.locked();
        state.retries += 1;
        state.failing_since.get_or_insert_with(Instant::now);
        drop(state);
        self.trouble(message);
    }

    /// Logs trouble, unless there was a warning not long ago: the counts tell the rest.
    pub(crate) fn trouble(&self, message: &str) {
        let mut state = self.locked();
        let quiet = state.warned.is_some_and(|at| at.elapsed() < WARN_EVERY);
        if !quiet {
            state.warned = Some(Instant::now());
            drop(state);
            tracing::warn!(exporter = self.name, "{message}");
        }
    }

    pub(crate) fn counts(&self) -> ExporterCounts {
        let state = self.locked();
        ExporterCounts {
            name: self.name.clone(),
            cursor: state.cursor,
            attempts: state.attempts,
            retries: state.retries,
            rejected_spans: state.rejected_spans,
            sending: state.sending,
            failing_for: state.failing_since.map(|since| since.elapsed()),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
