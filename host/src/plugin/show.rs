//! `tollgate plugin inspect --admin`: everything that a running gateway knows of one plugin.

use tollgate_domain::PluginIdentity;
use tollgate_http_api::{MeterView, PluginView};

use super::{PluginError, pretty};
use crate::admin::{Ask, Client, Target};
use crate::table::Table;

/// What there is to say of a file of the plugin folder.
pub(super) fn run(target: &Target, file: &str, json: bool) -> Result<String, PluginError> {
    let client = Client::of(target)?;
    let plugin: PluginView = client.ask(&Ask::Get, &["admin", "plugins", file])?;
    if json { pretty(&plugin) } else { text(&plugin) }
}

fn text(plugin: &PluginView) -> Result<String, PluginError> {
    let mut facts: Vec<(&str, Option<String>)> = vec![
        ("file", Some(plugin.file.clone())),
        ("state", Some(plugin.state.clone())),
        ("plugin", plugin.plugin.as_ref().map(named)),
        ("description", plugin.description.clone()),
        ("API version", plugin.api_version.clone()),
        ("roles", Some(plugin.roles.join(", "))),
        ("since", plugin.since.clone()),
        ("isolation", Some(plugin.isolation.clone())),
        ("breaker", Some(plugin.breaker.state.clone())),
        ("breaker open until", plugin.breaker.until.clone()),
        ("last fault", plugin.breaker.fault.clone()),
        ("held", plugin.held.clone()),
        ("previous", plugin.previous.as_ref().map(named)),
        ("digest", plugin.plugin.as_ref().map(|identity| identity.digest.clone())),
        ("digest of the file", plugin.digest_of_file.clone()),
    ];
    if let Some(error) = &plugin.error {
        facts.push(("error", Some(format!("{}: {}", error.kind, error.message))));
    }
    let mut text = String::new();
    for (name, value) in &facts {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            text.push_str(&format!("{:20}{value}\n", format!("{name}:")));
        }
    }
    if let Some(meters) = plugin.meters.as_ref().filter(|meters| !meters.is_empty()) {
        text.push('\n');
        text.push_str(&counts(meters));
    }
    if let Some(schema) = &plugin.config_schema {
        text.push_str(&format!("\nconfiguration:\n{}\n", pretty(schema)?));
    }
    Ok(text)
}

fn counts(meters: &[MeterView]) -> String {
    let mut table = Table::new(["ROLE", "CALLS", "ITEMS", "MEAN", "FAULTS", "INSTANCES", "MEMORY"]);
    for meter in meters {
        let faults: Vec<String> =
            meter.faults.iter().map(|fault| format!("{} {}", fault.count, fault.kind)).collect();
        table.row([
            &meter.role,
            &meter.calls.to_string(),
            &meter.items.to_string(),
            &mean(meter),
            &if faults.is_empty() { "0".to_owned() } else { faults.join(", ") },
            &meter.instances.to_string(),
            &format!("{} KiB", meter.memory_bytes / 1024),
        ]);
    }
    table.text()
}

/// Microseconds of a call.
#[expect(clippy::cast_precision_loss, reason = "a mean for people")]
fn mean(meter: &MeterView) -> String {
    if meter.calls == 0 {
        return "-".to_owned();
    }
    format!("{:.1} us", meter.seconds * 1e6 / meter.calls as f64)
}

fn named(identity: &PluginIdentity) -> String {
    format!("{} {}", identity.name, identity.version)
}
