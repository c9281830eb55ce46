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
    // Nothing is kept: what a gateway that runs keeps is its own.
    let gate = match plugin_settings(settings) {
        Ok(gate) => PluginHostSettings { state: None, ..gate },
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
    let file = &plugin.file;
    if let Some(error) = &plugin.error {
        return Finding::failed(
            CHECK,
            format!("{file}: {}: {}", error.kind, error.message),
            format!(
                "`tollgate plugin check --plugins-toml {}` shows it step by step; mend the plugin or its \
                 entry in plugins.toml, or take the file away",
                folder.join(file).display()
            ),
        );
    }
    let named =
        plugin.plugin.as_ref().map(|identity| format!("{} {}", identity.name, identity.version));
    let roles = plugin.roles.join(", ");
    let shadow = if plugin.shadow { ", in the shadow" } else { "" };
    let seen = format!("{file}: {} ({roles}{shadow})", named.unwrap_or_default());
    if plugin.enabled {
        Finding { check: CHECK, verdict: Verdict::Ok, seen, mend: None }
    } else {
        Finding::warning(
            CHECK,
            format!("{seen} is turned off"),
            "set `enabled = true` in plugins.toml",
        )
    }
}
