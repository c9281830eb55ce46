//! The ledger, as it counts itself.

use std::collections::BTreeMap;

use tollgate_ledger::{LedgerState, Spread};
use tollgate_telemetry::metrics::{Family, Histogram, Snapshot, Unit};

use super::double;

/// What a ledger did since its process began, and how it stands. All numbers are of one moment, so
/// that `started = finished + aborted + in_flight` always holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerCounts {
    /// Requests on record as started, those included that it found in flight when it was opened.
    pub started: u64,
    /// Of those, how many this process ended.
    pub finished: u64,
    /// Of those, how many an earlier process left in flight and this one ended for it.
    pub aborted: u64,
    /// Requests on record as refused before they started.
    pub refused: u64,
    /// Requests on record that other programs served.
    pub received: u64,
    /// Batches on record of other programs' spans.
    pub span_batches: u64,
    /// Requests on record of other programs' metrics and logs.
    pub passed: u64,
    /// Requests that have started and not ended.
    pub in_flight: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// How long commits took.
    pub commit_seconds: Histogram,
    /// How many entries were committed together.
    pub batch: Histogram,
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
    /// Whether it takes requests.
    pub available: bool,
}

impl From<LedgerState> for LedgerCounts {
    fn from(state: LedgerState) -> Self {
        Self {
            started: state.started,
            finished: state.finished,
            aborted: state.aborted,
            refused: state.refused,
            received: state.received,
            span_batches: state.span_batches,
            passed: state.passed,
            in_flight: state.in_flight,
            commits: state.commits,
            failed_commits: state.failed_commits,
            commit_seconds: histogram(state.commit_seconds),
            batch: histogram(state.batch),
            bytes: state.bytes,
            wal_bytes: state.wal_bytes,
            partitions: state.partitions,
            budget_bytes: state.budget_bytes,
            free_bytes: state.free_bytes,
            min_free_bytes: state.min_free_bytes,
            available: state.unavailable.is_none(),
        }
    }
}

fn histogram(spread: Spread) -> Histogram {
    let Spread { bounds, counts, sum } = spread;
    Histogram { bounds: bounds.to_vec(), counts, sum, exemplars: BTreeMap::new() }
}

pub(super) fn of_ledger(counts: &LedgerCounts, to: &mut Snapshot) {
    let counters = [
        ("tollgate.ledger.started", "Requests on record as started.", counts.started),
        ("tollgate.ledger.finished", "Requests on record as ended.", counts.finished),
        (
            "tollgate.ledger.aborted",
            "Requests that an earlier process left in flight, on record as aborted.",
            counts.aborted,
        ),
        (
            "tollgate.ledger.refused",
            "Requests on record as refused before they started.",
            counts.refused,
        ),
        (
            "tollgate.ledger.received",
            "Requests on record that other programs served.",
            counts.received,
        ),
        (
            "tollgate.ledger.span_batches",
            "Batches on record of other programs' spans that are no requests.",
            counts.span_batches,
        ),
        (
            "tollgate.ledger.passed",
            "Requests on record of other programs' metrics and logs.",
            counts.passed,
        ),
    ];
    to.counters.extend(counters.map(|(name, help, count)| Family::new(name, help).with([], count)));
    let commits = Family::new("tollgate.ledger.commits", "Commits of the ledger, by result.")
        .with([("result", "ok")], counts.commits)
        .with([("result", "failed")], counts.failed_commits);
    to.counters.push(commits);

    let sizes = [
        ("tollgate.ledger.size", "Size of the ledger's files.", Some(counts.bytes)),
        (
            "tollgate.ledger.wal_size",
            "Size of the journal of the ledger's newest file.",
            Some(counts.wal_bytes),
        ),
        ("tollgate.ledger.budget", "Size that the ledger may have.", counts.budget_bytes),
        ("tollgate.ledger.disk_free", "Room on the ledger's disk.", counts.free_bytes),
        (
            "tollgate.ledger.disk_free_min",
            "Room on the ledger's disk below which requests are refused.",
            Some(counts.min_free_bytes),
        ),
    ];
    to.gauges.extend(sizes.into_iter().filter_map(|(name, help, size)| {
        Some(Family::new(name, help).unit(Unit::Bytes).with([], double(size?)))
    }));
    let available = f64::from(u8::from(counts.available));
    let gauges = [
        (
            "tollgate.ledger.in_flight",
            "Requests on record as started and not as ended.",
            double(counts.in_flight),
        ),
        ("tollgate.ledger.partitions", "Files of the ledger.", double(counts.partitions)),
        ("tollgate.ledger.available", "Whether the ledger takes requests: 1 or 0.", available),
    ];
    to.gauges.extend(gauges.map(|(name, help, value)| Family::new(name, help).with([], value)));

    let took = Family::new("tollgate.ledger.commit_duration", "Time of one commit.")
        .unit(Unit::Seconds)
        .with([], counts.commit_seconds.clone());
    let batch = Family::new("tollgate.ledger.batch", "Entries committed together.")
        .with([], counts.batch.clone());
    to.histograms.extend([took, batch]);
}
