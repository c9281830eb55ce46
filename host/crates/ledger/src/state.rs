//! What is counted, and whether anything can be put on record.

use std::time::Duration;

/// Bounds of how long commits take, in seconds.
const COMMIT_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Bounds of how many entries are committed together.
const BATCH: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How often a value fell between which bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Upper bounds, ascending, without infinity.
    pub bounds: &'static [f64],
    /// How many were at most that bound and above the one before; one more than there are bounds,
    /// for what was above them all.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: f64,
}

impl Spread {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
            self.sum += value;
        }
    }
}

/// What a ledger did since it was opened, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerState {
    /// Requests on record as started, those included that were in flight when it was opened.
    pub started: u64,
    /// Of those, how many this process ended.
    pub finished: u64,
    /// Of those, how many an earlier process left in flight and this one ended for it.
    pub aborted: u64,
    /// Requests on record as refused before they started.
    pub refused: u64,
    /// Requests on record that other programs served and told us of.
    pub received: u64,
    /// Batches on record of other programs' spans that are no requests.
    pub span_batches: u64,
    /// Requests on record of other programs' metrics and logs.
    pub passed: u64,
    /// Requests that have started and not ended.
    pub in_flight: u64,
    /// Of those, how many nobody will end before the next start: a fault of ours.
    pub abandoned: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// How long commits took, in seconds.
    pub commit_seconds: Spread,
    /// How many entries were committed together.
    pub batch: Spread,
    /// Size of all its files.
    pub bytes: u64,
    /// Size of the journal of its newest file.
    pub wal_bytes: u64,
    /// How many files it has.
    pub partitions: u64,
    /// Size it may have.
    pub budget_bytes: Option<u64>,
    /// Room on its disk.
    pub free_bytes: Option<u64>,
    /// Room on its disk below which it takes nothing.
    pub min_free_bytes: u64,
    /// Why it takes nothing, if it does not.
    pub unavailable: Option<String>,
}

/// What the writer counts.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) started: u64,
    pub(crate) finished: u64,
    pub(crate) aborted: u64,
    pub(crate) refused: u64,
    pub(crate) received: u64,
    pub(crate) span_batches: u64,
    pub(crate) passed: u64,
    pub(crate) commits: u64,
    pub(crate) failed_commits: u64,
    pub(crate) commit_seconds: Spread,
    pub(crate) batch: Spread,
}

impl Counts {
    /// Nothing yet, but for requests that were found in flight.
    pub(crate) fn new(in_flight: usize) -> Self {
        Self {
            started: in_flight as u64,
            finished: 0,
            aborted: 0,
            refused: 0,
            received: 0,
            span_batches: 0,
            passed: 0,
            commits: 0,
            failed_commits: 0,
            commit_seconds: Spread::new(&COMMIT_SECONDS),
            batch: Spread::new(&BATCH),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a batch has a few hundred entries")]
    pub(crate) fn committed(&mut self, entries: usize, took: Duration) {
        self.commits = self.commits.saturating_add(1);
        self.commit_seconds.add(took.as_secs_f64());
        self.batch.add(entries as f64);
    }
}

/// What the upkeep sees of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    pub(crate) wal_bytes: u64,
    pub(crate) partitions: u64,
    pub(crate) free_bytes: Option<u64>,
}
