//! What a rollback goes back to: an older content, and what plugins.toml says now.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;

use support::{Fixture, amount, built, usage};
use tollgate_plugin_host::{Isolation, Limits, PluginHost, PluginStatus};

const COST: &str = "cost.wasm";

fn told(fixture: &Fixture, text: &str) {
    fixture.place("plugins.toml", format!("[[plugin]]\nfile = \"{COST}\"\n{text}").as_bytes());
    fixture.host.rescan().unwrap();
}

fn priced(dollars: u32) -> String {
    format!("config = {{ default = {{ input = \"${dollars}/M\", output = \"$0/M\" }} }}\n")
}

fn price(host: &PluginHost) -> String {
    amount(&host.pin().price(None, &usage("m", 1_000_000, 0)))
}

fn status(host: &PluginHost) -> PluginStatus {
    host.status().into_iter().find(|status| status.file == COST).unwrap()
}

#[test]
fn it_serves_with_the_settings_of_now() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let host = &fixture.host;
    told(&fixture, &priced(1));
    let first = status(host).identity.unwrap();
    let other = [fs::read(built("cost_per_token")).unwrap(), b"\0\x05\x04note".to_vec()].concat();
    fixture.place(COST, &other);
    host.rescan().unwrap();
    told(&fixture, &format!("isolation = \"tenant\"\nlimits = {{ call-ms = 7 }}\n{}", priced(5)));
    assert_eq!(price(host), "5");
    let back = host.roll_back(COST).unwrap();
    assert_eq!(back.identity.as_ref(), Some(&first));
    assert_eq!((price(host).as_str(), back.isolation), ("5", Isolation::Tenant));
    let generation = host.pin().generation();
    host.rescan().unwrap();
    assert_eq!(host.pin().generation(), generation, "there was nothing left to do");
}

#[test]
fn it_keeps_what_it_had_where_it_does_not_take_the_settings_of_now_and_says_so() {
    let fixture = Fixture::new(&[("cost_per_token", COST)], Limits::default());
    let host = &fixture.host;
    told(&fixture, &format!("order = 3\n{}", priced(1)));
    let first = status(host).identity.unwrap();
    // Settings for the next content, which the present one refuses.
    told(&fixture, "isolation = \"batch\"\nconfig = { act = \"trap-at\", n = 99 }\n");
    assert_eq!(price(host), "1");
    fixture.place(COST, &fs::read(built("hostile")).unwrap());
    host.rescan().unwrap();
    assert_eq!(status(host).identity.unwrap().name, "tollgate/hostile");
    let back = host.roll_back(COST).unwrap();
    assert_eq!((back.identity, back.isolation), (Some(first), Isolation::Plugin));
    let held = back.held.unwrap();
    assert!(
        held.contains("was rolled back by command; its settings are those from before"),
        "{held}"
    );
    assert!(held.contains("act"), "{held}");
    assert_eq!(price(host), "1");
    host.rescan().unwrap();
    assert_eq!(status(host).held.unwrap(), held);
    told(&fixture, &priced(5));
    assert_eq!(price(host), "5");
    let held = status(host).held.unwrap();
    assert!(!held.contains("its settings"), "{held}");
}
