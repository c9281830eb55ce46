//! A plugin as the admin API shows it; `tollgate plugin` reads the same types back.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tollgate_domain::{BreakerState, PluginIdentity};
use tollgate_gateway::{FileState, PluginMeter, PluginStatus};

/// All files of the plugin folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginsView {
    /// Number of the plugin set that serves; it grows with each swap.
    pub generation: u64,
    /// The files, in the order of their names. A broken `plugins.toml` is one of them.
    pub plugins: Vec<PluginView>,
}

/// A file of the plugin folder and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its name in the folder.
    pub file: String,
    /// `serving`, `shadow`, `held` (an older content of it serves), `refused`, `disabled` or
    /// `pending`.
    pub state: String,
    /// The plugin that serves from it; none if none does.
    pub plugin: Option<PluginIdentity>,
    /// What it says of itself.
    pub description: Option<String>,
    /// The version of the contract it was built for.
    pub api_version: Option<String>,
    /// What it does: `cost-model`, `attribute-enricher`, `export-filter`.
    pub roles: Vec<String>,
    /// Since when it serves.
    pub since: Option<String>,
    /// Whether it may serve at all.
    pub enabled: bool,
    /// Whether it prices beside the others and never bills.
    pub shadow: bool,
    /// `plugin`, `tenant` or `batch`: how its instances are kept apart.
    pub isolation: String,
    /// Whether its calls are let through.
    pub breaker: BreakerView,
    /// Why something else serves than what the file holds, or nothing at all.
    pub held: Option<String>,
    /// What a rollback would go back to.
    pub previous: Option<PluginIdentity>,
    /// SHA-256 of the file as it is now; that of `plugin` is another one if it is held.
    pub digest_of_file: Option<String>,
    /// Why the file as it is now is not used.
    pub error: Option<RefusalView>,
    /// JSON Schema of its configuration; only where one plugin was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// What it did, by role; only where one plugin was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meters: Option<Vec<MeterView>>,
}

/// A breaker's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerView {
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// When an open one lets a call through again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The fault that opened it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusalView {
    /// A stable word.
    pub kind: String,
    /// The whole chain of causes, and what to do.
    pub message: String,
}

/// What a plugin did in one role since the gateway began; all are counts but those that say
/// otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeterView {
    /// The role.
    pub role: String,
    /// Calls.
    pub calls: u64,
    /// Items in them.
    pub items: u64,
    /// Seconds of all calls together.
    pub seconds: f64,
    /// How long calls take, in milliseconds, as bounds: half of them at most so long.
    #[serde(default)]
    pub p50_ms: Option<f64>,
    /// All but one of a hundred at most so long; none of neither if calls took longer than is told
    /// apart.
    #[serde(default)]
    pub p99_ms: Option<f64>,
    /// Failed calls, by kind.
    pub faults: Vec<FaultCount>,
    /// Attributes that two enrichers wrote.
    pub edit_conflicts: u64,
    /// Edits of reserved or undeclared attributes.
    pub edits_refused: u64,
    /// Bytes of its instances; this and what follows is the plugin's, whatever the role.
    pub memory_bytes: u64,
    /// Its instances, at work or waiting.
    pub instances: u64,
    /// Instances ever started.
    pub instances_started: u64,
    /// Calls under way now.
    pub in_flight: u64,
}

/// How many calls failed in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultCount {
    /// The way.
    pub kind: String,
    /// How many.
    pub count: u64,
}

impl From<&PluginStatus> for PluginView {
    fn from(status: &PluginStatus) -> Self {
        Self {
            file: status.file.clone(),
            state: FileState::of(status).name().to_owned(),
            plugin: status.identity.clone(),
            description: status.description.clone(),
            api_version: status.api_version.clone(),
            roles: status.roles.iter().map(|role| role.name().to_owned()).collect(),
            since: status.since.map(timestamp),
            enabled: status.enabled,
            shadow: status.shadow,
            isolation: status.isolation.name().to_owned(),
            breaker: BreakerView::of(status),
            held: status.held.clone(),
            previous: status.previous.clone(),
            digest_of_file: status.digest_of_file.clone(),
            error: status.error.as_ref().map(|error| RefusalView {
                kind: error.kind.to_owned(),
                message: error.message.clone(),
            }),
            config_schema: None,
            meters: None,
        }
    }
}

impl PluginView {
    /// With everything there is to say of it.
    pub(super) fn whole(status: &PluginStatus, meters: &[PluginMeter]) -> Self {
        let name = status.identity.as_ref().map(|identity| identity.name.as_str());
        let is_its = |meter: &&PluginMeter| {
            Some(meter.plugin.as_str()) == name && meter.shadow == status.shadow
        };
        let of_it = meters.iter().filter(is_its);
        // A schema that is no JSON is shown as the text it is.
        let schema = status.config_schema.as_ref().map(|schema| {
            serde_json::from_str(schema).unwrap_or_else(|_| Value::String(schema.clone()))
        });
        Self {
            config_schema: schema,
            meters: Some(of_it.map(MeterView::from).collect()),
            ..Self::from(status)
        }
    }
}

impl BreakerView {
    fn of(status: &PluginStatus) -> Self {
        let until = match status.breaker {
            BreakerState::Open { wait } => Some(timestamp(SystemTime::now() + wait)),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        };
        let fault = Some(status.breaker_fault.clone()).filter(|fault| !fault.is_empty());
        Self { state: status.breaker.name().to_owned(), until, fault }
    }
}

impl From<&PluginMeter> for MeterView {
    fn from(meter: &PluginMeter) -> Self {
        let faults = meter.faults.iter().filter(|(_, count)| *count > 0);
        Self {
            role: meter.role.name().to_owned(),
            calls: meter.calls,
            items: meter.items,
            seconds: meter.latency.sum,
            p50_ms: bound(meter, 50),
            p99_ms: bound(meter, 99),
            faults: faults
                .map(|(kind, count)| FaultCount { kind: kind.name().to_owned(), count: *count })
                .collect(),
            edit_conflicts: meter.conflicts,
            edits_refused: meter.refused_edits,
            memory_bytes: meter.memory_bytes,
            instances: meter.instances,
            instances_started: meter.instances_started,
            in_flight: meter.in_flight,
        }
    }
}

/// The least bound that so many of a hundred calls kept.
fn bound(meter: &PluginMeter, percent: u64) -> Option<f64> {
    let wanted = meter.latency.count.saturating_mul(percent).div_ceil(100).max(1);
    let kept = meter.latency.buckets.iter().find(|(_, calls)| *calls >= wanted);
    kept.map(|(seconds, _)| seconds * 1e3)
}

/// RFC 3339, UTC, milliseconds.
fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
