//! The plugin folder, every file of it taken through the gate.

use std::path::Path;

use tollgate_http_api::PluginView;
use tollgate_plugin_host::{PluginHost, PluginHostSettings, chain};
use tollgate_settings::Settings;

use super::storage::others_may_write;
use super::{Finding, Verdict};
use crate::start::plugin_settings;

const CHECK: &str = "plugins";

/// The folder first, then its files in the order in which they serve.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let folder = settings.plugins.display();
    let not_there = |why: String| {
        let mend =
            "make the folder, let the gateway's user read it, or name another with --plugins";
        vec![Finding::failed(CHECK, format!("{folder}: {why}"), mend)]
    };
    if let Err(error) = std::fs::read_dir(&settings.plugins) {
        return not_there(error.to_string());
    }
    // What was disabled, rolled back or good before counts; but it is the gateway's own, which may be running.
    let gate = match plugin_settings(settings) {
        Ok(gate) => PluginHostSettings { peeks: true, ..gate },
        Err(error) => {
            let mend = "a key is the second line of the .pub file that minisign writes";
            return vec![Finding::failed(CHECK, error.to_string(), mend)];
        }
    };
    let host = match PluginHost::start(gate) {
        Ok(host) => host,
        Err(error) => return not_there(chain(&error)),
    };
    let mut findings = Vec::new();
    if others_may_write(&settings.plugins) {
        findings.push(Finding::warning(
            CHECK,
            format!("{folder} can be written by every user of this machine, who so make prices"),
            format!("chmod o-w {folder}"),
        ));
    }
    let plugins: Vec<PluginView> = host.status().iter().map(PluginView::from).collect();
    if plugins.is_empty() {
        findings.push(Finding::warning(
            CHECK,
            format!("{folder} has no plugins: requests will not be priced"),
            "copy .wasm files into it, or name another with --plugins",
        ));
    }
    findings.extend(plugins.iter().map(|plugin| one(&settings.plugins, plugin)));
    let prices = |plugin: &&PluginView| plugin.roles.iter().any(|role| role == "cost-model");
    if !plugins.is_empty() && !plugins.iter().any(|plugin| prices(&plugin) && !plugin.shadow) {
        findings.push(Finding::warning(
            CHECK,
            "no plugin of the folder is a cost model: requests will not be priced",
            "copy one into it, such as cost_per_token.wasm",
        ));
    }
    findings
}

fn one(folder: &Path, plugin: &PluginView) -> Finding {
    let (file, roles) = (&plugin.file, plugin.roles.join(", "));
    let shadow = if plugin.shadow { ", in the shadow" } else { "" };
    let serves = plugin.plugin.as_ref().map(|identity| {
        format!("{file}: {} {} ({roles}{shadow})", identity.name, identity.version)
    });
    let seen = serves.clone().unwrap_or_else(|| file.clone());
    if let Some(error) = &plugin.error {
        let wrong = format!("{file}: {}: {}", error.kind, error.message);
        let held = plugin.held.as_deref().unwrap_or("what was good before");
        return match serves {
            Some(serves) => Finding::warning(
                CHECK,
                format!("{wrong}; {serves} serves: {held}"),
                mend(folder, plugin),
            ),
            None => Finding::failed(CHECK, wrong, mend(folder, plugin)),
        };
    }
    match &plugin.held {
        Some(held) => Finding::warning(CHECK, format!("{seen}: {held}"), mend(folder, plugin)),
        None if plugin.enabled => Finding { check: CHECK, verdict: Verdict::Ok, seen, mend: None },
        None => Finding::warning(
            CHECK,
            format!("{seen} is turned off"),
            "set `enabled = true` in plugins.toml",
        ),
    }
}

fn mend(folder: &Path, plugin: &PluginView) -> String {
    let (file, kind) = (&plugin.file, plugin.error.as_ref().map(|error| error.kind.as_str()));
    let place = folder.join(file);
    match kind {
        Some("manifest") => format!("correct {}", place.display()),
        Some("absent") => "put the file there, or correct its name in plugins.toml".to_owned(),
        Some("duplicate") => {
            "take one of the two away, or give each an entry in plugins.toml".to_owned()
        }
        Some("rejected") => {
            format!(
                "drop another build, or allow this one again with `tollgate plugin enable {file}`"
            )
        }
        Some(_) => format!(
            "`tollgate plugin check --plugins-toml {}` shows it step by step; mend the plugin or its entry in \
             plugins.toml, or take the file away",
            place.display()
        ),
        None if plugin.enabled => "mend plugins.toml, and look again".to_owned(),
        None => format!("`tollgate plugin enable {file}` turns it on again"),
    }
}
