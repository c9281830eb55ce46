//! What is counted, as families that telemetry can write. Each module below counts or names one
//! thing; [`snapshot`] puts them together.
//!
//! Requests are counted once, from the record, when they end ([`RequestMeters::count`]). Each group
//! of families speaks the language of whoever defined it: the tutorial's, the GenAI conventions',
//! vLLM's and ours, each with its own labels, so that dashboards made for them work.
//!
//! Invariant: what clients call models and themselves makes a bounded number of series. The first
//! names have series of their own, the rest is counted as `other` ([`bounded`]).

mod backends;
mod bounded;
mod budgets;
mod conventions;
mod engine;
mod exporters;
mod ledger;
mod plugins;
mod received;
mod requests;
mod shadow;
mod spending;

use tollgate_plugin_host::PluginMeter;
use tollgate_telemetry::metrics::{Family, Snapshot, names};
use tollgate_tenancy::{LimiterStatus, Standings};
use tollgate_upstream::BackendStatus;

pub(crate) use engine::EngineLoad;
pub use exporters::ExporterCounts;
pub use ledger::LedgerCounts;
pub(crate) use plugins::File;
pub use plugins::FileState;
pub(crate) use requests::RequestMeters;

use crate::shadow::ShadowSeries;

/// What a model or a tenant is called that has no series of its own.
const OTHER: &str = "other";

/// What a snapshot is made of.
pub(crate) struct Sources<'a> {
    pub(crate) requests: &'a RequestMeters,
    /// Requests admitted and not accounted for yet.
    pub(crate) in_flight: usize,
    pub(crate) engines: &'a [EngineLoad<'a>],
    pub(crate) meters: &'a [PluginMeter],
    pub(crate) files: &'a [File<'a>],
    pub(crate) generation: u64,
    pub(crate) shadow: &'a [ShadowSeries],
    pub(crate) ledger: Option<&'a LedgerCounts>,
    pub(crate) exporters: &'a [ExporterCounts],
    pub(crate) backends: &'a [BackendStatus],
    pub(crate) limits: LimiterStatus,
    pub(crate) standings: &'a Standings,
}

/// Everything that is counted, as it is now.
pub(crate) fn snapshot(sources: &Sources<'_>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    snapshot.gauges.push(Family::of(&names::tollgate::BUILD_INFO).with(version, 1.0));
    sources.requests.families(&mut snapshot);
    let in_flight = Family::of(&names::tollgate::REQUESTS_IN_FLIGHT);
    snapshot.gauges.push(in_flight.with([], double(sources.in_flight as u64)));
    engine::of_load(sources.engines, &mut snapshot);
    plugins::of_calls(sources.meters, &mut snapshot);
    plugins::of_instances(sources.meters, &mut snapshot);
    plugins::of_files(sources.files, sources.generation, &mut snapshot);
    shadow::of_shadow(sources.shadow, &mut snapshot);
    if let Some(counts) = sources.ledger {
        ledger::of_ledger(counts, &mut snapshot);
    }
    exporters::of_exporters(sources.exporters, &mut snapshot);
    backends::of_backends(sources.backends, &mut snapshot);
    backends::of_limits(sources.limits, &mut snapshot);
    budgets::of_budgets(sources.standings, &mut snapshot);
    let left_out = Family::of(&names::tollgate::SERIES_LEFT_OUT);
    let lost = double(snapshot.left_out());
    snapshot.gauges.push(left_out.with([], lost));
    snapshot
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double, and no such count needs more")]
fn double(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
pub(crate) mod tests;
