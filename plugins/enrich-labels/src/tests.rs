//! Spans through the plugin.

use crate::EnrichLabels;
use tollgate_plugin::testing::{Case, Changes, Configured};

fn labels(json: &str, case: Case) -> Changes {
    Configured::<EnrichLabels>::configure(json)
        .unwrap_or_else(|error| panic!("{json}: {error}"))
        .enrich(case)
}

fn change(op: &'static str, key: &str, value: &str) -> (&'static str, String, String) {
    (op, key.to_owned(), value.to_owned())
}

#[test]
fn fixed_copied_and_mapped() {
    let config = r#"{"labels":[
        {"key":"label.team","value":"search"},
        {"key":"label.level","value":3,"overwrite":true},
        {"key":"app.who","from":"llm.user"},
        {"key":"label.tier","from":"gen_ai.request.model","map":{"gpt-4o":"premium"},"default":"standard"},
        {"key":"label.stream","from":"gen_ai.request.stream","map":{"true":"yes","false":"no"}}]}"#;
    let case = Case::span("inference.request")
        .attribute("gen_ai.request.model", "gpt-4o")
        .attribute("gen_ai.request.stream", true)
        .attribute("llm.user", "tenant-a")
        .attribute("gen_ai.input.messages", "secret");
    assert_eq!(
        labels(config, case),
        [
            change("default", "label.team", "search"),
            change("set", "label.level", "3"),
            change("default", "app.who", "tenant-a"),
            change("default", "label.tier", "premium"),
            change("default", "label.stream", "yes"),
        ]
    );
    assert_eq!(
        labels(config, Case::span("other")),
        [
            change("default", "label.team", "search"),
            change("set", "label.level", "3"),
            change("default", "label.tier", "standard"),
        ]
    );
}

#[test]
fn conditions() {
    let config = r#"{"labels":[
        {"key":"label.a","value":true,"when":{"model":"mistral*"}},
        {"key":"deployment.environment.name","value":"prod","when":{"tenant":"acme","span":"inference.*"}}]}"#;
    let keys =
        |case: Case| labels(config, case).into_iter().map(|(_, key, _)| key).collect::<Vec<_>>();
    assert_eq!(
        keys(Case::span("inference.request").attribute("llm.model", "mistral-7b")),
        ["label.a"]
    );
    let acme = Case::span("inference.decode").tenant("acme");
    assert_eq!(keys(acme), ["deployment.environment.name"]);
    assert!(keys(Case::span("other").tenant("acme")).is_empty());
    assert!(keys(Case::span("inference.request")).is_empty());
    assert!(labels("{}", Case::span("x").attribute("llm.model", "m")).is_empty());
}

#[test]
fn refusals_point_at_the_fault() {
    let refused = |label: &str| {
        let json = format!(r#"{{"labels":[{label}]}}"#);
        Configured::<EnrichLabels>::configure(&json).expect_err(label).to_string()
    };
    assert!(
        refused(r#"{"key":"llm.model","value":1}"#)
            .starts_with("/labels/0/key: `llm.model` is not a key for labels")
    );
    assert!(refused(r#"{"key":"label.a"}"#).starts_with("/labels/0/value"));
    assert!(
        refused(r#"{"key":"label.a","value":1,"from":"llm.user"}"#).starts_with("/labels/0/from")
    );
    assert!(
        refused(r#"{"key":"label.a","from":"gen_ai.input.messages"}"#)
            .starts_with("/labels/0/from")
    );
    assert!(refused(r#"{"key":"label.a","value":1.5}"#).contains("a whole number"));
    assert!(
        refused(r#"{"key":"label.a","value":1,"if":{}}"#)
            .starts_with("/labels/0/if: unknown field")
    );
}
