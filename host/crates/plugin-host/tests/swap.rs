//! The folder changes while it is served from.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::fs;

use support::{Fixture, amount, built, usage};
use tollgate_plugin_host::{Limits, PluginHost, PluginHostSettings};

const COST: &str = "cost.wasm";

fn cheap() -> Fixture {
    Fixture::new(&[("cost_per_token", COST)], Limits::default())
}

fn refused(host: &PluginHost, file: &str, kind: &str) -> bool {
    host.status().iter().any(|s| s.file == file && s.error.as_ref().is_some_and(|e| e.kind == kind))
}

#[test]
fn a_pinned_set_keeps_its_price_through_a_swap() {
    let fixture = cheap();
    let pinned = fixture.host.pin();
    fixture.configure(COST, r#"{ default = { input = "$1/M", output = "$2/M" } }"#);
    assert_eq!(fixture.amount("mistral-7b", 1, 1), "0.000003");
    assert_eq!(amount(&pinned.price(None, &usage("mistral-7b", 7, 3))), "0.0000013");

    // Another file in the place of this one.
    let before = fixture.host.pin().generation();
    fixture.place("plugins.toml", b"");
    fixture.place(COST, &fs::read(built("hostile")).unwrap());
    fixture.until("swap", |host| {
        host.pin().generation() > before
            && host.pin().plugins().any(|p| p.name == "tollgate/hostile")
    });
    assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.01");
    assert_eq!(amount(&pinned.price(None, &usage("mistral-7b", 7, 3))), "0.0000013");
    assert_eq!(pinned.generation(), 1);
}

#[test]
fn a_bad_file_leaves_the_last_good_version() {
    let fixture = cheap();
    let whole = fs::read(built("cost_per_token")).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "format"),
        (b"hello", "format"),
        (b"\0asm\x01\0\0\0", "format"),
        (&whole[..whole.len() / 2], "compile"),
        (b"\0asm\x0d\0\x01\0", "interface"),
    ];
    for (bytes, kind) in cases {
        fixture.place(COST, bytes);
        fixture.until(kind, |host| refused(host, COST, kind));
        assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.0000013");
        assert_eq!(fixture.host.pin().generation(), 1);
    }
    // Back again: the same content is what serves already.
    fixture.place(COST, &whole);
    fixture.until("no error", |host| host.status().iter().all(|s| s.error.is_none()));
    assert_eq!(fixture.host.pin().generation(), 1);
}

#[test]
fn a_removed_file_takes_its_plugin_with_it() {
    let fixture = cheap();
    fs::remove_file(fixture.folder.path().join(COST)).unwrap();
    fixture.until("removal", |host| host.pin().plugins().count() == 0 && host.status().is_empty());
    // A rename is no removal: the plugin serves all along.
    let again = cheap();
    fs::rename(again.folder.path().join(COST), again.folder.path().join("b.wasm")).unwrap();
    again.until("rename", |host| {
        host.status().iter().any(|s| s.file == "b.wasm" && s.identity.is_some())
    });
    assert_eq!(again.amount("mistral-7b", 7, 3), "0.0000013");
    assert_eq!(again.host.pin().generation(), 2, "one swap, and none without it");
}

#[test]
fn a_broken_manifest_keeps_the_last_good_set() {
    let fixture = cheap();
    fixture.configure(COST, r#"{ default = { input = "$1/M", output = "$2/M" } }"#);
    fixture.place("plugins.toml", b"[[plugin]]\nfile = \"cost.wasm\"\nordre = 1\n");
    fixture.until("report", |host| refused(host, "plugins.toml", "manifest"));
    assert_eq!(fixture.amount("mistral-7b", 1, 1), "0.000003");
    fixture.place("plugins.toml", b"[[plugin]]\nfile = \"cost.wasm\"\nenabled = false\n");
    fixture.until("disabled", |host| host.pin().plugins().count() == 0);
    fs::remove_file(fixture.folder.path().join("plugins.toml")).unwrap();
    fixture.until("defaults", |host| host.pin().plugins().count() == 1);
    assert_eq!(fixture.amount("mistral-7b", 7, 3), "0.0000013");
}

#[test]
fn two_files_of_one_plugin_and_strangers_are_reported() {
    let fixture = cheap();
    fixture.place("other.wasm", &fs::read(built("cost_per_token")).unwrap());
    fixture.until("duplicate", |host| refused(host, "other.wasm", "duplicate"));
    fixture.place(".hidden.wasm", b"x");
    fixture.place("note.txt", b"x");
    fixture.place("large.wasm", &vec![0; (16 << 20) + 1]);
    fixture.until("large", |host| refused(host, "large.wasm", "too_large"));
    assert_eq!(fixture.host.status().len(), 3);
    assert_eq!(fixture.host.pin().generation(), 1);
}

#[test]
fn a_missing_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap().path().join("nowhere");
    let error = PluginHost::start(PluginHostSettings::new(&folder)).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(error.kind(), "folder");
}
