//! Plugins: their calls, instances and files. Counts of plugins are kept where they are called, in
//! the plugin host; here they get their names. A label is a plugin's own name, never its digest: a
//! new version goes on with the series of the old one, and `tollgate_plugin_info` says which version
//! that is.

use std::collections::BTreeSet;

use tollgate_domain::{BreakerState, PluginIdentity};
use tollgate_plugin_host::{LatencyHistogram, PluginMeter, PluginStatus};
use tollgate_telemetry::metrics::{Family, Histogram, Snapshot, Unit};

use super::double;

/// What is told of a file of the plugin folder.
pub(crate) struct File<'a> {
    pub(super) name: &'a str,
    pub(super) state: FileState,
    pub(super) plugin: Option<&'a PluginIdentity>,
    pub(super) breaker: &'static str,
}

impl<'a> From<&'a PluginStatus> for File<'a> {
    fn from(status: &'a PluginStatus) -> Self {
        Self {
            name: &status.file,
            state: FileState::of(status),
            plugin: status.identity.as_ref(),
            breaker: status.breaker.name(),
        }
    }
}

pub(super) fn of_calls(meters: &[PluginMeter], to: &mut Snapshot) {
    let mut calls = Family::new("tollgate.plugin.calls", "Calls of a plugin.");
    let mut items =
        Family::new("tollgate.plugin.items", "Items in the calls of a plugin: usages or spans.");
    let mut faults = Family::new(
        "tollgate.plugin.faults",
        "Failed calls of a plugin, by kind; with breaker_open, calls that were not made.",
    );
    let mut conflicts = Family::new(
        "tollgate.plugin.edit_conflicts",
        "Attributes that an earlier enricher had written too; the later one won.",
    );
    let mut refused = Family::new(
        "tollgate.plugin.edits_refused",
        "Edits of attributes that are reserved, or that the plugin had not declared.",
    );
    let mut took = Family::new("tollgate.plugin.call_duration", "Time of one call of a plugin.")
        .unit(Unit::Seconds);
    for meter in meters {
        let labels = [
            ("plugin", meter.plugin.as_str()),
            ("role", meter.role.name()),
            ("shadow", yes_or_no(meter.shadow)),
        ];
        calls.add(labels, meter.calls);
        items.add(labels, meter.items);
        conflicts.add(labels, meter.conflicts);
        refused.add(labels, meter.refused_edits);
        took.add(labels, histogram(&meter.latency));
        for (kind, count) in &meter.faults {
            let [plugin, role, shadow] = labels;
            faults.add([plugin, role, shadow, ("kind", kind.name())], *count);
        }
    }
    to.counters.extend([calls, items, faults, conflicts, refused]);
    to.histograms.push(took);
}

/// From counts that include those of the lower bounds to counts of each bucket alone.
fn histogram(latency: &LatencyHistogram) -> Histogram {
    let up_to = latency.buckets.iter().map(|(_, count)| *count);
    let before = std::iter::once(0).chain(up_to.clone());
    Histogram {
        bounds: latency.buckets.iter().map(|(bound, _)| *bound).collect(),
        counts: up_to
            .chain([latency.count])
            .zip(before)
            .map(|(up_to, before)| up_to.saturating_sub(before))
            .collect(),
        sum: latency.sum,
        ..Histogram::default()
    }
}

pub(super) fn of_instances(meters: &[PluginMeter], to: &mut Snapshot) {
    let mut started =
        Family::new("tollgate.plugin.instances_started", "Instances of a plugin ever started.");
    let mut memory =
        Family::new("tollgate.plugin.memory", "Memories and tables of a plugin's instances.")
            .unit(Unit::Bytes);
    let mut instances =
        Family::new("tollgate.plugin.instances", "Instances of a plugin, at work or waiting.");
    let mut in_flight = Family::new(
        "tollgate.plugin.in_flight",
        "Calls of a plugin under way; they run in place, so there is no queue.",
    );
    let mut seen = BTreeSet::new();
    for meter in meters {
        // These are of the plugin and not of one of its roles: the same in each of its meters.
        if seen.insert((&meter.plugin, &meter.digest, meter.shadow)) {
            let plugin = [("plugin", meter.plugin.as_str()), ("shadow", yes_or_no(meter.shadow))];
            memory.add(plugin, double(meter.memory_bytes));
            instances.add(plugin, double(meter.instances));
            in_flight.add(plugin, double(meter.in_flight));
            started.add(plugin, meter.instances_started);
        }
    }
    to.counters.push(started);
    to.gauges.extend([memory, instances, in_flight]);
}

pub(super) fn of_files(all: &[File<'_>], generation: u64, to: &mut Snapshot) {
    let sets = Family::new(
        "tollgate.plugin.set_generation",
        "Number of the plugin set that serves; it grows with each swap.",
    );
    let mut info = Family::new("tollgate.plugin.info", "Which plugins serve, by version.");
    let mut breakers = Family::new(
        "tollgate.plugin.breaker_state",
        "1 for the state that a plugin's breaker is in, 0 for the others.",
    );
    let mut files = Family::new("tollgate.plugin.files", "Files of the plugin folder, by state.");
    for state in FileState::ALL {
        files.add([("state", state.name())], 0.0);
    }
    for File { name, state, plugin, breaker } in all {
        files.add([("state", state.name())], 1.0);
        let Some(plugin) = plugin else { continue };
        let (of_plugin, of_file) = (("plugin", plugin.name.as_str()), ("file", *name));
        let (version, digest) = (("version", &*plugin.version), ("digest", &*plugin.digest));
        info.add([of_plugin, version, digest, of_file], 1.0);
        for state in BreakerState::NAMES {
            let value = if *breaker == state { 1.0 } else { 0.0 };
            breakers.add([of_plugin, of_file, ("state", state)], value);
        }
    }
    to.gauges.extend([sets.with([], double(generation)), info, breakers, files]);
}

fn yes_or_no(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

/// What becomes of a file of the plugin folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Its plugin serves.
    Serving,
    /// Its plugin prices beside the others and never bills.
    Shadow,
    /// An older content of it serves: the present one is refused or was rolled back from.
    Held,
    /// It is refused, and nothing of it serves.
    Refused,
    /// It is turned off.
    Disabled,
    /// It was not looked at yet: it is being written, or nobody can tell how it is to serve.
    Pending,
}

impl FileState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Serving, Self::Shadow, Self::Held, Self::Refused, Self::Disabled, Self::Pending];

    /// What a file's status comes to in one word.
    #[must_use]
    pub fn of(file: &PluginStatus) -> Self {
        let serves = file.identity.is_some();
        let older = file.error.is_some() || (serves && file.held.is_some());
        Self::from_facts(file.enabled, serves, older, file.shadow)
    }

    /// `refused`: the file as it is now is not used.
    pub(super) fn from_facts(enabled: bool, serves: bool, refused: bool, shadow: bool) -> Self {
        match (enabled, serves, refused) {
            (false, _, _) => Self::Disabled,
            (true, true, true) => Self::Held,
            (true, true, false) if shadow => Self::Shadow,
            (true, true, false) => Self::Serving,
            (true, false, true) => Self::Refused,
            (true, false, false) => Self::Pending,
        }
    }

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Shadow => "shadow",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Disabled => "disabled",
            Self::Pending => "pending",
        }
    }
}
