//! Spans through the plugin.

use crate::FilterRedact;
use tollgate_plugin::{
    Status, Value,
    testing::{Case, Changes, Configured},
};

fn filter(json: &str, case: Case) -> Option<Changes> {
    Configured::<FilterRedact>::configure(json)
        .unwrap_or_else(|error| panic!("{json}: {error}"))
        .filter(case)
}

fn change(op: &'static str, key: &str, value: &str) -> (&'static str, String, String) {
    (op, key.to_owned(), value.to_owned())
}

#[test]
fn drops_and_hashes_attributes() {
    let config = r#"{"salt":"salt and pepper","hash_length":12,"rules":[
        {"drop":["llm.prompt","gen_ai.input.*"]},
        {"hash":["user.*","llm.prompt","big"]},
        {"exporter":"otlp*","drop":["host.name"]}]}"#;
    let case = Case::span("inference.request")
        .attribute("llm.prompt", "hello")
        .attribute("gen_ai.input.messages", "hello")
        .attribute("user.email", "a@b.c")
        .attribute("user.roles", "a")
        .attribute("user.roles", "b")
        .attribute("big", Value::Elided { size: 1 << 20 })
        .attribute("host.name", "h1")
        .attribute("llm.model", "m");
    // The hashes are what `printf ... | openssl dgst -sha256 -hmac 'salt and pepper'` prints.
    let mut expected = vec![
        change("remove", "llm.prompt", ""),
        change("remove", "gen_ai.input.messages", ""),
        change("set", "user.email", "579fefc4d6ae"),
        change("set", "user.roles", "61a4a9c683ce"),
        change("remove", "big", ""),
    ];
    assert_eq!(filter(config, case.clone().exporter("console")), Some(expected.clone()));
    expected.push(change("remove", "host.name", ""));
    assert_eq!(filter(config, case.clone().exporter("otlp/main")), Some(expected));
    assert_eq!(filter("{}", case), Some(vec![]));
}

#[test]
fn what_holds_for_one_exporter_is_not_remembered_for_the_next() {
    let config = r#"{"rules":[{"exporter":"otlp*","drop":["host.*"]}]}"#;
    let plugin = Configured::<FilterRedact>::configure(config).unwrap();
    let removed = vec![change("remove", "host.name", "")];
    for (exporter, changes) in [("otlp", &removed), ("console", &vec![]), ("otlp", &removed)] {
        let case = Case::span("inference.request").attribute("host.name", "h1").exporter(exporter);
        assert_eq!(plugin.filter(case).as_ref(), Some(changes), "{exporter}");
    }
}

#[test]
fn drops_spans() {
    let rule = |spans: &str| format!(r#"{{"rules":[{{"drop_spans":{spans}}}]}}"#);
    let span = || {
        Case::span("inference.tokenize")
            .duration(2_000_000)
            .attribute("http.route", "/health")
            .attribute("n", 3)
    };
    for (spans, dropped) in [
        (r#"{"name":"inference.tok*"}"#, true),
        (r#"{"name":"inference.decode"}"#, false),
        (r#"{"shorter_than_ms":3}"#, true),
        (r#"{"shorter_than_ms":2}"#, false),
        (r#"{"status":"ok"}"#, true),
        (r#"{"status":"error"}"#, false),
        (r#"{"attribute":{"key":"http.route","value":"/health"}}"#, true),
        (r#"{"attribute":{"key":"http.route","value":"/other"}}"#, false),
        (r#"{"attribute":{"key":"n","value":"3"}}"#, true),
        (r#"{"name":"*","status":"error"}"#, false),
    ] {
        assert_eq!(filter(&rule(spans), span()).is_none(), dropped, "{spans}");
    }
    assert!(filter(&rule(r#"{"status":"error"}"#), span().status(Status::Error)).is_none());
}

#[test]
fn refusals_point_at_the_fault() {
    let refused =
        |json: &str| Configured::<FilterRedact>::configure(json).expect_err(json).to_string();
    assert!(
        refused(r#"{"rules":[{"hash":["user.id"]}]}"#).starts_with("/salt: hashes need a salt")
    );
    assert!(refused(r#"{"rules":[{}]}"#).starts_with("/rules/0: the rule does nothing"));
    assert!(
        refused(r#"{"rules":[{"drop_spans":{}}]}"#)
            .starts_with("/rules/0/drop_spans: this would drop every span")
    );
    assert!(refused(r#"{"hash_length":4}"#).starts_with("/hash_length"));
    assert!(
        refused(r#"{"rules":[{"drop":["a"],"keep":[]}]}"#)
            .starts_with("/rules/0/keep: unknown field")
    );
    assert!(
        refused(r#"{"rules":[{"drop_spans":{"status":"bad"}}]}"#)
            .starts_with("/rules/0/drop_spans/status")
    );
}
