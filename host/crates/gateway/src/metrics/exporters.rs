//! The exporters, as they count themselves and as their cursors say.

use std::time::Duration;

use tollgate_telemetry::metrics::{Family, Histogram, Snapshot, Unit};

use super::double;
use crate::traces::TraceCounts;

/// What became of the records that an exporter has to deliver. All numbers are of one moment, so
/// that `delivered + filtered + rejected + pending = records` always holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExporterCounts {
    /// Its name.
    pub name: String,
    /// Records in the ledger that it has to answer for.
    pub records: u64,
    /// Of those, how many have at least one span where it should be.
    pub delivered: u64,
    /// Of those, how many plugins let no span leave of.
    pub filtered: u64,
    /// Of those, how many the receiver refused for good.
    pub rejected: u64,
    /// Of those, how many are still to come.
    pub pending: u64,
    /// How long ago the oldest of those ended.
    pub oldest_pending: Option<Duration>,
    /// What has become of traces, where it waits for them.
    pub traces: Option<TraceCounts>,
    /// How long attempts took, failed ones too.
    pub send_seconds: Histogram,
    /// Attempts after the first at the same batch.
    pub retries: u64,
    /// How long ago an attempt failed last, if one ever did.
    pub last_error_age: Option<Duration>,
}

pub(super) fn of_exporters(exporters: &[ExporterCounts], to: &mut Snapshot) {
    let mut records = Family::new(
        "tollgate.exporter.records",
        "Records that an exporter has to answer for: the sum of the next four.",
    );
    let mut delivered =
        Family::new("tollgate.exporter.delivered", "Records whose spans an exporter delivered.");
    let mut filtered = Family::new(
        "tollgate.exporter.filtered",
        "Records of which plugins let no span leave by an exporter.",
    );
    let mut rejected = Family::new(
        "tollgate.exporter.rejected",
        "Records whose spans the receiver of an exporter refused for good.",
    );
    let mut pending =
        Family::new("tollgate.exporter.pending", "Records that an exporter has yet to deliver.");
    let mut oldest = Family::new(
        "tollgate.exporter.oldest_pending",
        "Time since the oldest record ended that an exporter has yet to deliver; 0 without one.",
    )
    .unit(Unit::Seconds);
    let mut retries = Family::new(
        "tollgate.exporter.retries",
        "Attempts of an exporter after the first at the same batch.",
    );
    let mut failed = Family::new(
        "tollgate.exporter.last_error_age",
        "Time since an exporter's last failed attempt; absent without one.",
    )
    .unit(Unit::Seconds);
    let mut took = Family::new(
        "tollgate.exporter.send_duration",
        "Time of an exporter's attempt at a batch, successful or not.",
    )
    .unit(Unit::Seconds);
    let mut traces = Family::new(
        "tollgate.exporter.traces",
        "Whole traces that an exporter decided on, by why they leave, or `dropped`.",
    );
    let mut overruled = Family::new(
        "tollgate.exporter.traces_overruled",
        "Traces that were to leave by an exporter and of which a filter of traces let nothing.",
    );
    let mut early = Family::new(
        "tollgate.exporter.traces_early",
        "Traces that an exporter decided before their wait was over, for want of room.",
    );
    let mut late = Family::new(
        "tollgate.exporter.late_spans",
        "Spans that came after an exporter had decided on their trace, and followed that.",
    );
    let mut waiting = Family::new(
        "tollgate.exporter.waiting_spans",
        "Spans of traces that an exporter has not decided on.",
    );
    let mut waiting_bytes = Family::new(
        "tollgate.exporter.waiting",
        "Memory that spans of traces take that an exporter has not decided on.",
    )
    .unit(Unit::Bytes);
    for exporter in exporters {
        let name = [("exporter", exporter.name.as_str())];
        records.add(name, exporter.records);
        delivered.add(name, exporter.delivered);
        filtered.add(name, exporter.filtered);
        rejected.add(name, exporter.rejected);
        pending.add(name, double(exporter.pending));
        oldest.add(name, exporter.oldest_pending.unwrap_or_default().as_secs_f64());
        retries.add(name, exporter.retries);
        if let Some(age) = exporter.last_error_age {
            failed.add(name, age.as_secs_f64());
        }
        took.add(name, exporter.send_seconds.clone());
        if let Some(counts) = &exporter.traces {
            for (decision, count) in &counts.decided {
                traces.add([name[0], ("decision", decision.name())], *count);
            }
            overruled.add(name, counts.overruled);
            early.add(name, counts.early);
            late.add(name, counts.late_spans);
            waiting.add(name, double(counts.waiting_spans));
            waiting_bytes.add(name, double(counts.waiting_bytes));
        }
    }
    to.counters.extend([records, delivered, filtered, rejected, retries]);
    to.counters.extend([traces, overruled, early, late]);
    to.gauges.extend([pending, oldest, failed, waiting, waiting_bytes]);
    to.histograms.push(took);
}
