//! Several files of one plugin: who has the name, and when all of them serve.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;
use std::path::Path;

use support::{amount, built, usage};
use tollgate_plugin_host::{PluginHost, PluginHostSettings};

/// As it is served where nothing is configured.
const BY_TABLE: &str = "0.2";

fn settings(folder: &Path, data: &Path) -> PluginHostSettings {
    PluginHostSettings { state: Some(data.join("plugins")), ..PluginHostSettings::new(folder) }
}

fn entry(file: &str, config: &str, more: &str) -> String {
    format!("[[plugin]]\nfile = \"{file}\"\nconfig = {{ {config} }}\n{more}\n")
}

const DOLLAR: &str = "default = { input = \"$1/M\", output = \"$0/M\" }";
const EURO: &str = "currency = \"EUR\", default = { input = \"€9/M\", output = \"€0/M\" }";

fn price(host: &PluginHost, model: &str) -> String {
    let outcome = host.pin().price(None, &usage(model, 1_000_000, 0));
    let currency = outcome.cost().map_or("", |cost| cost.total.currency.code()).to_owned();
    format!("{} {currency}", amount(&outcome))
}

fn error(host: &PluginHost, file: &str) -> Option<String> {
    let status = host.status().into_iter().find(|status| status.file == file).unwrap();
    status.error.map(|error| error.message)
}

fn place(folder: &Path, file: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(".arriving"), content).unwrap();
    fs::rename(folder.join(".arriving"), folder.join(file)).unwrap();
}

#[test]
fn a_copy_with_an_earlier_name_takes_nothing_over() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, data) = (folder.path(), data.path());
    let content = fs::read(built("cost_per_token")).unwrap();
    place(folder, "cost.wasm", &content);
    place(folder, "plugins.toml", entry("cost.wasm", DOLLAR, ""));
    let host = PluginHost::start(settings(folder, data)).unwrap();
    assert_eq!(price(&host, "m"), "1 USD");
    place(folder, "backup-of-cost.wasm", &content);
    host.rescan().unwrap();
    assert_eq!(price(&host, "m"), "1 USD");
    let said = error(&host, "backup-of-cost.wasm").unwrap();
    assert!(said.contains("is taken by cost.wasm") && said.contains("plugins.toml"), "{said}");
    assert_eq!(error(&host, "cost.wasm"), None);
    drop(host);
    // Over a restart, and where nothing is known of the time before.
    let host = PluginHost::start(settings(folder, data)).unwrap();
    assert_eq!(price(&host, "m"), "1 USD");
    drop(host);
    let host = PluginHost::start(PluginHostSettings::new(folder)).unwrap();
    assert_eq!(price(&host, "m"), "1 USD");
    assert_eq!(error(&host, "cost.wasm"), None);
}

#[test]
fn who_serves_goes_on_over_a_restart_also_without_an_entry() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, data) = (folder.path(), data.path());
    let content = fs::read(built("cost_per_token")).unwrap();
    place(folder, "z.wasm", &content);
    let host = PluginHost::start(settings(folder, data)).unwrap();
    place(folder, "a.wasm", &content);
    place(folder, "plugins.toml", entry("a.wasm", DOLLAR, ""));
    host.rescan().unwrap();
    assert_eq!(price(&host, "m"), format!("{BY_TABLE} USD"));
    drop(host);
    let host = PluginHost::start(settings(folder, data)).unwrap();
    assert_eq!(price(&host, "m"), format!("{BY_TABLE} USD"));
    assert!(error(&host, "a.wasm").is_some());
    fs::remove_file(folder.join("z.wasm")).unwrap();
    support::until(&host, "its turn", |host| price(host, "m") == "1 USD");
}

#[test]
fn two_that_plugins_toml_names_serve_side_by_side() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, data) = (folder.path(), data.path());
    let content = fs::read(built("cost_per_token")).unwrap();
    place(folder, "cost.wasm", &content);
    place(folder, "cost-eur.wasm", &content);
    let euro = |order: i32| {
        let more = format!("order = {order}\nmatch = {{ models = [\"eu-*\"] }}");
        entry("cost-eur.wasm", EURO, &more) + &entry("cost.wasm", DOLLAR, "")
    };
    place(folder, "plugins.toml", euro(-1));
    let host = PluginHost::start(settings(folder, data)).unwrap();
    for _ in 0..2 {
        assert_eq!((error(&host, "cost.wasm"), error(&host, "cost-eur.wasm")), (None, None));
        assert_eq!(price(&host, "eu-large"), "9 EUR");
        assert_eq!(price(&host, "m"), "1 USD");
        host.rescan().unwrap();
    }
    // The figures are those of the plugin, the status that of each file.
    let meters = host.meters();
    let calls: Vec<u64> = meters.iter().map(|meter| meter.calls).collect();
    assert_eq!(calls, [4], "{meters:?}");
    let same = |file| host.try_price(file, None, &usage("m", 1_000_000, 0));
    assert_eq!(amount(&same("cost-eur.wasm").unwrap()), "9");
    let said = same("tollgate/cost-per-token").unwrap_err().to_string();
    assert!(said.contains("cost-eur.wasm, cost.wasm; name one of the files"), "{said}");
    // Without an entry of its own it is a copy like any other.
    place(folder, "plugins.toml", entry("cost.wasm", DOLLAR, ""));
    host.rescan().unwrap();
    assert_eq!(price(&host, "eu-large"), "1 USD");
    assert!(error(&host, "cost-eur.wasm").unwrap().contains("is taken by cost.wasm"));
}
