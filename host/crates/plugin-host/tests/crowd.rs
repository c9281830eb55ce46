//! More tenants than there are places for instances: nobody is turned away for what somebody else keeps warm.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;
use std::thread;

use support::{amount, built, span, usage};
use tollgate_domain::Resource;
use tollgate_plugin_host::{PluginHost, PluginHostSettings};

const PLUGINS: [&str; 4] =
    ["cost_per_token", "cost_device_seconds", "enrich_labels", "filter_redact"];
const PRICE: &str = "{ default = { input = \"$1/M\", output = \"$1/M\" } }";
const LABEL: &str = "{ labels = [{ key = \"label.team\", value = \"search\" }] }";

/// All of them, with an instance for each tenant.
fn crowded(instances: u32) -> (tempfile::TempDir, PluginHost) {
    let folder = tempfile::tempdir().unwrap();
    let mut told = String::new();
    for plugin in PLUGINS {
        fs::copy(built(plugin), folder.path().join(format!("{plugin}.wasm"))).unwrap();
        let config = match plugin {
            "cost_per_token" => PRICE,
            "enrich_labels" => LABEL,
            _ => "{}",
        };
        told += &format!(
            "[[plugin]]\nfile = \"{plugin}.wasm\"\nisolation = \"tenant\"\nconfig = {config}\n"
        );
    }
    fs::write(folder.path().join("plugins.toml"), told).unwrap();
    let settings = PluginHostSettings { instances, ..PluginHostSettings::new(folder.path()) };
    (folder, PluginHost::start(settings).unwrap())
}

/// A price, a label and a span that leaves, all of them right.
fn serves(host: &PluginHost, tenant: &str) {
    let set = host.pin();
    assert_eq!(amount(&set.price(Some(tenant), &usage("m", 1_000_000, 0))), "1", "{tenant}");
    let (resource, mut spans) = (Resource::default(), vec![span()]);
    let faults = set.enrich(Some(tenant), &resource, &mut spans);
    assert!(faults.is_empty(), "{tenant}: {faults:?}");
    assert!(spans.first().unwrap().attributes.get("label.team").is_some());
    let filtered = set.filter("x", Some(tenant), &resource, spans);
    assert!(filtered.faults.is_empty(), "{tenant}: {:?}", filtered.faults);
    assert_eq!(filtered.kept.len(), 1, "{tenant}");
}

#[test]
fn forty_tenants_share_few_places() {
    // Four plugins keep up to 32 each.
    let (folder, host) = crowded(24);
    for round in 0..2 {
        thread::scope(|scope| {
            for thread in 0..4 {
                let host = &host;
                scope.spawn(move || {
                    for n in 0..40 {
                        serves(host, &format!("tenant-{}", (n + thread * 10) % 40));
                    }
                });
            }
        });
        // With every place taken by warm instances a new content passes the gate.
        let instances: u64 = host.meters().iter().map(|meter| meter.instances).sum();
        assert!(instances >= 12, "round {round}: {instances} are warm");
        let before = host.pin().generation();
        let content = fs::read(built("cost_per_token")).unwrap();
        let note = [b"\0\x06\x04note".as_slice(), &[round]].concat();
        fs::write(folder.path().join("arriving"), [content, note].concat()).unwrap();
        let to = folder.path().join("cost_per_token.wasm");
        fs::rename(folder.path().join("arriving"), to).unwrap();
        host.rescan().unwrap();
        let status = host.status();
        assert!(status.iter().all(|status| status.error.is_none()), "{status:#?}");
        assert_eq!(host.pin().generation(), before + 1);
    }
    serves(&host, "tenant-0");
}
