//! `plugins.toml` as it goes wrong: broken, gone, naming what is not there; while a host runs and over a restart.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;

use support::{amount, built, usage};
use tollgate_domain::Resource;
use tollgate_plugin_host::{PluginHost, PluginHostSettings, PluginStatus};

const FILE: &str = "plugins.toml";
const OFF: &str = "[[plugin]]\nfile = \"labels.wasm\"\nenabled = false\n";
const BROKEN: &str = "ordre = 1\n";
const WAITS: &str = "plugins.toml is broken, so that nobody can tell how this file is to serve";

/// A plugin folder, and what is kept of it.
struct World {
    plugins: tempfile::TempDir,
    data: tempfile::TempDir,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let world =
            Self { plugins: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(file, plugin)| world.put(file, bytes(plugin)));
        world
    }

    fn put(&self, file: &str, content: impl AsRef<[u8]>) {
        let temporary = self.plugins.path().join(".arriving");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, self.plugins.path().join(file)).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.plugins.path().join(file)).unwrap();
    }

    /// A host whose predecessor may be about to go.
    fn start(&self) -> PluginHost {
        PluginHost::start(PluginHostSettings {
            state: Some(self.data.path().join("plugins")),
            ..PluginHostSettings::new(self.plugins.path())
        })
        .unwrap()
    }
}

fn bytes(plugin: &str) -> Vec<u8> {
    fs::read(built(plugin)).unwrap()
}

fn priced(dollars: u32) -> String {
    format!(
        "[[plugin]]\nfile = \"cost.wasm\"\nconfig = {{ default = {{ input = \"${dollars}/M\", output = \"$0/M\" }} }}\n"
    )
}

/// What a million tokens cost, and how many plugins serve.
fn serving(host: &PluginHost) -> (String, usize) {
    let set = host.pin();
    (amount(&set.price(None, &usage("m", 1_000_000, 0))), set.plugins().count())
}

fn is(dollars: u32, plugins: usize) -> (String, usize) {
    (dollars.to_string(), plugins)
}

fn status(host: &PluginHost, file: &str) -> PluginStatus {
    host.status().into_iter().find(|status| status.file == file).unwrap()
}

fn error(host: &PluginHost, file: &str) -> String {
    status(host, file).error.unwrap().message
}

#[test]
fn a_broken_one_changes_nothing_that_serves_also_over_a_restart() {
    let world = World::new(&[
        ("cost.wasm", "cost_per_token"),
        ("labels.wasm", "enrich_labels"),
        ("redact.wasm", "filter_redact"),
    ]);
    world.put(FILE, priced(7) + OFF);
    let host = world.start();
    assert_eq!(serving(&host), is(7, 2));
    drop(host);

    world.put(FILE, priced(8) + OFF + BROKEN);
    let host = world.start();
    assert_eq!(serving(&host), is(7, 2));
    assert!(!status(&host, "labels.wasm").enabled);
    let said = error(&host, FILE);
    assert!(said.contains("ordre") && said.contains("the last good settings stay"), "{said}");

    // What comes meanwhile waits, unless the last good one tells how it is to serve.
    world.put("new.wasm", bytes("cost_device_seconds"));
    host.rescan().unwrap();
    let new = status(&host, "new.wasm");
    assert!(new.enabled && new.identity.is_none() && new.error.is_none(), "{new:?}");
    assert!(new.held.unwrap().starts_with(WAITS));
    world.put("cost.wasm", [bytes("cost_per_token"), b"\0\x05\x04note".to_vec()].concat());
    host.rescan().unwrap();
    assert!(status(&host, "cost.wasm").previous.is_some());
    assert_eq!(serving(&host), is(7, 2));
    drop(host);
    let host = world.start();
    assert_eq!(serving(&host), is(7, 2));

    world.put(FILE, priced(8) + OFF);
    host.rescan().unwrap();
    assert_eq!(serving(&host), is(8, 3));
    assert!(status(&host, "new.wasm").held.is_none());
}

#[test]
fn where_no_good_one_is_known_nothing_serves() {
    let world = World::new(&[("cost.wasm", "cost_per_token"), ("redact.wasm", "filter_redact")]);
    world.put(FILE, BROKEN);
    let host = world.start();
    assert_eq!(serving(&host).1, 0);
    let said = error(&host, FILE);
    assert!(said.contains("no plugin serves until then"), "{said}");
    assert!(status(&host, "cost.wasm").held.unwrap().starts_with(WAITS));

    // Taken away, as the message says. That there was none is good to know, too.
    world.remove(FILE);
    support::until(&host, "the defaults", |host| serving(host).1 == 2);
    drop(host);
    world.put(FILE, BROKEN);
    world.put("new.wasm", bytes("cost_device_seconds"));
    let host = world.start();
    assert_eq!(serving(&host).1, 2);
    assert!(status(&host, "new.wasm").held.is_some());
}

#[test]
fn what_is_no_file_says_what_to_do() {
    let world = World::new(&[]);
    fs::create_dir(world.plugins.path().join(FILE)).unwrap();
    let host = world.start();
    let said = error(&host, FILE);
    assert!(said.contains("it is a folder and no plain file; correct it"), "{said}");
    fs::remove_dir(world.plugins.path().join(FILE)).unwrap();
    world.put(FILE, "#".repeat(2 << 20));
    host.rescan().unwrap();
    let said = error(&host, FILE);
    assert!(said.contains("it has 2097152 bytes") && !said.contains("component-mib"), "{said}");
}

#[test]
fn an_entry_without_its_file_is_told_of() {
    let world = World::new(&[("cost-per-token.wasm", "cost_per_token")]);
    let entry = |file: &str| format!("[[plugin]]\nfile = \"{file}\"\n");
    let gone = entry("gone.wasm") + "enabled = false\n";
    world.put(FILE, entry("cost_per_tokens.wasm") + &entry("other.wasm") + &gone);
    let host = world.start();
    let refused = |host: &PluginHost| {
        let refused = host.status().into_iter().filter(|status| status.error.is_some());
        refused.map(|status| status.file).collect::<Vec<_>>()
    };
    assert_eq!(refused(&host), ["cost_per_tokens.wasm", "other.wasm"]);
    let said = error(&host, "cost_per_tokens.wasm");
    assert!(said.contains("did you mean cost-per-token.wasm, which has no entry?"), "{said}");
    assert!(!error(&host, "other.wasm").contains("did you mean"));
    world.put("other.wasm", bytes("cost_device_seconds"));
    world.put(FILE, entry("cost-per-token.wasm") + &entry("other.wasm") + &gone);
    host.rescan().unwrap();
    assert_eq!(refused(&host), [""; 0]);
    assert_eq!(host.status().len(), 2);
    // A file that goes with its entry is nothing to tell of; one that has yet to come is, after a while.
    world.remove("other.wasm");
    world.put(FILE, entry("cost-per-token.wasm"));
    support::until(&host, "it is gone", |host| host.status().len() == 1);
    assert_eq!(refused(&host), [""; 0]);
    world.put(FILE, entry("cost-per-token.wasm") + &entry("other.wasm"));
    support::until(&host, "it is not there", |host| refused(host) == ["other.wasm"]);
}

/// Whether a span keeps its prompt on the way out.
fn leaks(host: &PluginHost) -> bool {
    let mut span = support::span();
    span.attributes.set("secret", "x");
    let filtered = host.pin().filter("x", None, &Resource::default(), vec![span]);
    filtered.kept.first().unwrap().attributes.get("secret").is_some()
}

#[test]
fn a_shadow_that_means_nothing_does_not_stop_a_filter() {
    let world = World::new(&[("redact.wasm", "filter_redact")]);
    let told = |more: &str| {
        format!(
            "[[plugin]]\nfile = \"redact.wasm\"\n{more}\nconfig = {{ rules = [{{ drop = [\"secret\"] }}] }}\n"
        )
    };
    world.put(FILE, told(""));
    let host = world.start();
    assert!(!leaks(&host));
    world.put(FILE, told("shadow = true"));
    host.rescan().unwrap();
    let refused = |host: &PluginHost| {
        let now = status(host, "redact.wasm");
        let said = now.error.unwrap();
        assert_eq!(said.kind, "shadow");
        assert!(said.message.contains("used as export-filter only"), "{}", said.message);
        (now.shadow, leaks(host))
    };
    assert_eq!(refused(&host), (false, false));
    drop(host);
    let host = world.start();
    for _ in 0..2 {
        assert_eq!(refused(&host), (false, false), "after a start too");
        host.rescan().unwrap();
    }
    world.put(FILE, told(""));
    host.rescan().unwrap();
    let now = status(&host, "redact.wasm");
    assert!(now.error.is_none() && now.held.is_none() && !leaks(&host), "{now:?}");
    world.put(FILE, told("roles = [\"cost-model\"]"));
    host.rescan().unwrap();
    assert_eq!(status(&host, "redact.wasm").error.unwrap().kind, "roles");
    assert!(!leaks(&host));
}
