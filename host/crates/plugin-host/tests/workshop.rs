//! One component on the author's bench.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tollgate_plugin_host::workshop::{Case, Workshop};
use tollgate_plugin_host::{Limits, Role, strip};

fn component(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../plugins/target/wasm32-wasip2/release")
        .join(format!("{name}.wasm"));
    assert!(built.exists(), "{name}.wasm is missing: run `cargo xtask build-plugins`");
    built
}

#[test]
fn stripping_takes_out_names_and_nothing_else() {
    let original = fs::read(component("cost_per_token")).unwrap();
    let stripped = strip(&original).unwrap();
    assert_eq!(stripped.roles, [Role::CostModel]);
    assert!(stripped.bytes.len() <= original.len());
    let with_names = [&stripped.bytes[..], b"\0\x0f\x0ecomponent-name"].concat();
    assert_eq!(strip(&with_names).unwrap().digest, stripped.digest);
    assert!(strip(b"not wasm").is_err());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("stripped.wasm");
    fs::write(&file, &stripped.bytes).unwrap();
    let workshop = Workshop::open(&file, &Limits::default()).unwrap();
    assert_eq!(workshop.about().plugin.digest, stripped.digest);
    let case =
        Case::parse(r#"{ "usages": [{ "model": "gpt-4o-mini", "tokens": { "input": 1 } }] }"#);
    let outcome = workshop.answer("{}", &case.unwrap());
    assert_eq!(outcome.answer["prices"][0]["total"], json!("0.00000015"));
    assert!(outcome.disagreed.is_none());
}

#[test]
fn spans_are_answered_in_their_order() {
    let workshop = Workshop::open(&component("filter_redact"), &Limits::default()).unwrap();
    let config = r#"{ "rules": [{ "drop_spans": { "name": "b" } }, { "drop": ["secret"] }] }"#;
    let case = r#"{ "spans": [{ "name": "a", "attributes": { "secret": 1, "x": 2 } }, { "name": "b" }, {}] }"#;
    let outcome = workshop.answer(config, &Case::parse(case).unwrap());
    assert_eq!(
        outcome.answer,
        json!({ "filtered": [{ "kept": { "x": 2 } }, "dropped", { "kept": {} }] })
    );
    let refused = workshop.answer(r#"{ "rules": 1 }"#, &Case::parse("{}").unwrap());
    assert!(refused.answer["refused"].as_str().unwrap().contains("/rules"));
}
