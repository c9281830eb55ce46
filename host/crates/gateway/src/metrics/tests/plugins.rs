//! Families of plugins and shadow prices, from meters and statuses made up here.

use tollgate_domain::{Currency, FaultKind, Money, PluginIdentity};
use tollgate_plugin_host::{LatencyHistogram, PluginMeter, Role};

use super::{assert_lines, nothing, written};
use crate::metrics::plugins::{File, FileState};
use crate::metrics::{RequestMeters, Sources};
use crate::shadow::{ShadowAmounts, ShadowGroup, ShadowResult, ShadowSeries};

fn identity(digest: &str) -> PluginIdentity {
    let (name, version) = ("acme/price".to_owned(), "1.2.0".to_owned());
    PluginIdentity { name, version, digest: digest.to_owned() }
}

fn meter(role: Role, digest: &str) -> PluginMeter {
    PluginMeter {
        plugin: "acme/price".to_owned(),
        version: "1.2.0".to_owned(),
        digest: digest.to_owned(),
        role,
        shadow: false,
        calls: 7,
        items: 9,
        faults: vec![(FaultKind::Trap, 2)],
        conflicts: 1,
        refused_edits: 4,
        latency: LatencyHistogram { buckets: vec![(0.001, 5)], count: 7, sum: 0.25 },
        memory_bytes: 1024,
        instances: 3,
        instances_started: 5,
        in_flight: 1,
    }
}

fn text(meters: &[PluginMeter], files: &[File<'_>], shadow: &[ShadowSeries]) -> String {
    let requests = RequestMeters::default();
    written(&Sources { meters, files, generation: 3, shadow, ..nothing(&requests) })
}

#[test]
fn meters_become_series() {
    let meters = [meter(Role::CostModel, "old"), meter(Role::AttributeEnricher, "old")];
    let plugin = identity("d1");
    let file = File {
        name: "a.wasm",
        state: FileState::Serving,
        plugin: Some(&plugin),
        breaker: "half_open",
    };
    let written = text(&meters, &[file], &[]);
    assert_lines(
        &written,
        &[
            r#"tollgate_plugin_calls_total{plugin="acme/price",role="cost-model",shadow="false"} 7"#,
            r#"tollgate_plugin_items_total{plugin="acme/price",role="attribute-enricher",shadow="false"} 9"#,
            r#"tollgate_plugin_faults_total{plugin="acme/price",role="cost-model",shadow="false",kind="trap"} 2"#,
            r#"tollgate_plugin_edit_conflicts_total{plugin="acme/price",role="cost-model",shadow="false"} 1"#,
            r#"tollgate_plugin_edits_refused_total{plugin="acme/price",role="cost-model",shadow="false"} 4"#,
            r#"tollgate_plugin_call_duration_seconds_bucket{plugin="acme/price",role="cost-model",shadow="false",le="0.001"} 5"#,
            r#"tollgate_plugin_call_duration_seconds_bucket{plugin="acme/price",role="cost-model",shadow="false",le="+Inf"} 7"#,
            r#"tollgate_plugin_call_duration_seconds_sum{plugin="acme/price",role="cost-model",shadow="false"} 0.25"#,
            // Once for the plugin, not for each role.
            r#"tollgate_plugin_memory_bytes{plugin="acme/price",shadow="false"} 1024.0"#,
            r#"tollgate_plugin_instances{plugin="acme/price",shadow="false"} 3.0"#,
            r#"tollgate_plugin_instances_started_total{plugin="acme/price",shadow="false"} 5"#,
            r#"tollgate_plugin_in_flight{plugin="acme/price",shadow="false"} 1.0"#,
            r#"tollgate_plugin_info{plugin="acme/price",version="1.2.0",digest="d1",file="a.wasm"} 1.0"#,
            r#"tollgate_plugin_breaker_state{plugin="acme/price",file="a.wasm",state="half_open"} 1.0"#,
            r#"tollgate_plugin_breaker_state{plugin="acme/price",file="a.wasm",state="closed"} 0.0"#,
            r#"tollgate_plugin_set_generation 3.0"#,
            r#"tollgate_plugin_files{state="serving"} 1.0"#,
            r#"tollgate_plugin_files{state="refused"} 0.0"#,
            r#"tollgate_metrics_series_left_out 0.0"#,
        ],
    );
}

#[test]
fn an_old_and_a_new_build_share_their_series() {
    let meters = [meter(Role::CostModel, "old"), meter(Role::CostModel, "new")];
    let written = text(&meters, &[], &[]);
    assert_lines(
        &written,
        &[
            r#"tollgate_plugin_calls_total{plugin="acme/price",role="cost-model",shadow="false"} 14"#,
            r#"tollgate_plugin_memory_bytes{plugin="acme/price",shadow="false"} 2048.0"#,
        ],
    );
}

#[test]
fn shadow_prices_become_series() {
    let usd = |pico| Money::new(pico, Currency::USD);
    let series = ShadowSeries {
        file: "s.wasm".into(),
        plugin: identity("d").into(),
        group: ShadowGroup::Of { model: "m".to_owned(), tenant: None },
        requests: [(ShadowResult::Cheaper, 2), (ShadowResult::Failed, 1)].into(),
        amounts: vec![ShadowAmounts { billed: usd(3_000_000), shadow: usd(1_000_000) }],
    };
    let other = ShadowSeries { group: ShadowGroup::Other, ..series.clone() };
    let written = text(&[], &[], &[series, other]);
    let by = r#"{plugin="acme/price",version="1.2.0",file="s.wasm",model="m",tenant="""#;
    assert_lines(
        &written,
        &[
            &format!(r#"tollgate_shadow_requests_total{by},result="cheaper"}} 2"#),
            &format!(r#"tollgate_shadow_requests_total{by},result="failed"}} 1"#),
            &format!(r#"tollgate_shadow_billed_cost{by},currency="USD"}} 3e-6"#),
            &format!(r#"tollgate_shadow_cost{by},currency="USD"}} 1e-6"#),
            &format!(r#"tollgate_shadow_cost_difference{by},currency="USD"}} -2e-6"#),
            r#"tollgate_shadow_requests_total{plugin="acme/price",version="1.2.0",file="s.wasm",model="other",tenant="other",result="failed"} 1"#,
        ],
    );
}

#[test]
fn a_file_is_in_one_state() {
    for (enabled, serves, refused, shadow, state) in [
        (true, true, false, false, FileState::Serving),
        (true, true, false, true, FileState::Shadow),
        (true, true, true, false, FileState::Held),
        (true, true, true, true, FileState::Held),
        (true, false, true, false, FileState::Refused),
        (true, false, false, false, FileState::Pending),
        (false, false, true, false, FileState::Disabled),
        (false, true, false, false, FileState::Disabled),
    ] {
        assert_eq!(FileState::from_facts(enabled, serves, refused, shadow), state);
    }
}
