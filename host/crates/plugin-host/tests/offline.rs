//! A cost model without a gateway answers as it does within one.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use serde_json::json;
use support::{Fixture, built, usage};
use tollgate_plugin_host::{Limits, OfflineCostModel, PluginHostSettings};

fn settings() -> PluginHostSettings {
    PluginHostSettings::new("")
}

#[test]
fn it_says_what_the_set_says() {
    let fixture = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let offline = OfflineCostModel::open(&settings(), &built("cost_per_token"), "{}").unwrap();
    let set = fixture.host.pin();
    assert_eq!(Some(offline.identity()), set.plugins().next());
    for (model, tokens) in [("gpt-4o-mini", 127_999), ("mistral-7b", 7), ("of nobody's", 0)] {
        let usage = usage(model, tokens, tokens / 2);
        for tenant in [None, Some("acme")] {
            assert_eq!(offline.price(tenant, &usage), set.price(tenant, &usage), "{model}");
        }
    }
}

#[test]
fn it_is_configured_as_it_is_told() {
    let config = json!({ "models": [{ "match": "m", "input": "$7/M", "output": "$0/M" }] });
    let config = config.to_string();
    let priced = |config| {
        let model = OfflineCostModel::open(&settings(), &built("cost_per_token"), config).unwrap();
        model.price(None, &usage("m", 1_000_000, 0))
    };
    let with = priced(&config);
    assert_eq!(support::amount(&with), "7");
    let digest = with.cost().unwrap().config_digest.clone();
    assert!(digest.is_some() && digest == OfflineCostModel::config_digest(&config));
    assert_eq!(OfflineCostModel::config_digest("{}"), None);
    let without = priced("{}");
    assert_ne!(support::amount(&without), "7");
    assert_eq!(without.cost().unwrap().config_digest, None);
}

#[test]
fn what_is_no_cost_model_is_refused() {
    let error = OfflineCostModel::open(&settings(), &built("filter_redact"), "{}");
    let error = error.unwrap_err();
    assert_eq!(error.error.kind(), "roles");
    assert!(error.to_string().contains("export-filter"), "{error}");
}
