//! The ledger and who reads it.
//!
//! `GET /admin/ledger`: `records` and `entries` (numbers of the newest), counts since the gateway
//! began, sizes in bytes, `durability` (`power` or `process`), and `unavailable`: why nothing can be
//! put on record, or null. `GET /admin/exporters`: `{"exporters": [..]}`; for each
//! `delivered + filtered + rejected + pending = records`; `failing_seconds` is null while the
//! receiver takes what it is sent, `trouble` what was wrong last.

use serde_json::{Value, json};
use tollgate_gateway::{Durability, ExporterStatus, LedgerStanding};

/// The ledger.
pub(super) fn ledger(standing: &LedgerStanding) -> Value {
    let LedgerStanding { state, head, durability } = standing;
    json!({
        "records": head.records,
        "entries": head.seq,
        "durability": match durability {
            Durability::Power => "power",
            Durability::Process => "process",
        },
        "unavailable": state.unavailable,
        "in_flight": state.in_flight,
        "started": state.started,
        "finished": state.finished,
        "aborted": state.aborted,
        "refused": state.refused,
        "commits": state.commits,
        "failed_commits": state.failed_commits,
        "commit_seconds": state.commit_seconds.sum,
        "files": state.partitions,
        "bytes": state.bytes,
        "journal_bytes": state.wal_bytes,
        "budget_bytes": state.budget_bytes,
        "free_bytes": state.free_bytes,
        "min_free_bytes": state.min_free_bytes,
    })
}

/// The exporters.
pub(super) fn exporters(exporters: &[ExporterStatus]) -> Value {
    let one = |status: &ExporterStatus| {
        let counts = &status.counts;
        json!({
            "name": counts.name,
            "records": counts.records,
            "delivered": counts.delivered,
            "filtered": counts.filtered,
            "rejected": counts.rejected,
            "pending": counts.pending,
            "oldest_pending_seconds": counts.oldest_pending.map(|age| age.as_secs_f64()),
            "retries": counts.retries,
            "failing_seconds": status.failing_for.map(|time| time.as_secs_f64()),
            "trouble": status.trouble.as_ref().map(|(ago, message)| json!({
                "message": message, "seconds_ago": ago.as_secs_f64(),
            })),
        })
    };
    json!({"exporters": exporters.iter().map(one).collect::<Vec<_>>()})
}
