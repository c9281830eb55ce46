//! Spans through the bundled enricher and the bundled filter.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use support::{Fixture, span};
use tollgate_domain::{Resource, Span, Value};
use tollgate_plugin_host::Limits;

fn spans(count: i64) -> Vec<Span> {
    (0..count)
        .map(|n| {
            let mut span = span();
            span.attributes.set("n", n);
            span
        })
        .collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    match span.attributes.get(key) {
        Some(Value::Text(text)) => Some(text.clone()),
        Some(other) => Some(format!("{other:?}")),
        None => None,
    }
}

#[test]
fn labels_reach_every_span_of_many_batches() {
    let fixture = Fixture::new(&[("enrich_labels", "enrich.wasm")], Limits::default());
    fixture.configure(
        "enrich.wasm",
        r#"{ labels = [
            { key = "label.team", value = "search" },
            { key = "label.model", from = "llm.model", map = { m = "mapped" } },
            { key = "label.host", from = "k8s.node.name" },
            { key = "label.acme", value = true, when = { tenant = "acme" } },
        ] }"#
            .replace('\n', " ")
            .as_str(),
    );
    let mut resource = Resource::default();
    resource.attributes.set("k8s.node.name", "node-1");
    let mut all = spans(1100);
    let faults = fixture.host.pin().enrich(Some("acme"), &resource, &mut all);
    assert_eq!(faults, []);
    for (n, span) in (0_i64..).zip(&all) {
        assert_eq!(span.attributes.get("n"), Some(&Value::Int(n)));
        assert_eq!(text(span, "label.team").as_deref(), Some("search"));
        assert_eq!(text(span, "label.model").as_deref(), Some("mapped"));
        assert_eq!(text(span, "label.host").as_deref(), Some("node-1"));
        assert_eq!(span.attributes.get("label.acme"), Some(&Value::Bool(true)));
    }
    let mut other = spans(1);
    assert_eq!(fixture.host.pin().enrich(Some("else"), &resource, &mut other), []);
    assert_eq!(other.first().and_then(|span| text(span, "label.acme")), None);
}

#[test]
fn a_filter_removes_hashes_and_drops_for_its_exporter() {
    let fixture = Fixture::new(&[("filter_redact", "filter.wasm")], Limits::default());
    fixture.configure(
        "filter.wasm",
        r#"{ salt = "0123456789", rules = [
            { exporter = "otlp*", drop = ["secret.*", "service.instance.id"], hash = ["user"] },
            { exporter = "otlp*", drop_spans = { attribute = { key = "n", value = "1" } } },
        ] }"#
            .replace('\n', " ")
            .as_str(),
    );
    let mut all = spans(3);
    for span in &mut all {
        span.attributes.set("secret.prompt", "hush");
        span.attributes.set("service.instance.id", "i");
        span.attributes.set("user", "alice");
    }
    let set = fixture.host.pin();
    let untouched = set.filter("console", None, &Resource::default(), all.clone());
    assert_eq!((untouched.kept.as_slice(), untouched.dropped), (all.as_slice(), 0));

    let filtered = set.filter("otlp-grpc", None, &Resource::default(), all);
    assert_eq!(filtered.faults, []);
    assert_eq!(filtered.dropped, 1);
    let left: Vec<_> = filtered.kept.iter().filter_map(|span| span.attributes.get("n")).collect();
    assert_eq!(left, [&Value::Int(0), &Value::Int(2)]);
    for span in &filtered.kept {
        assert_eq!(text(span, "secret.prompt"), None);
        assert_eq!(text(span, "service.instance.id"), None);
        let hashed = text(span, "user").unwrap_or_default();
        assert!(hashed.len() == 16 && hashed != "alice", "{hashed}");
    }
}
