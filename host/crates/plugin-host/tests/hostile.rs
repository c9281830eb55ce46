//! Whatever a plugin does costs its own answer and nothing else. Each act of the hostile fixture, in each call, against the
//! real host; what the host says of it is compared with `expected/`.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Fixture, built, expect, shown, span, told, usage, verdict};
use tollgate_domain::Resource;
use tollgate_plugin_host::{Limits, PluginHostSettings, Step, inspect};

const HOSTILE: &str = "hostile.wasm";

/// A bad plugin would not pass its trial call, and here it must get to serve. Filling its memory must fit into the deadline,
/// also on a machine that is busy with other tests.
fn lenient() -> Limits {
    Limits { trial_call: false, deadline_call: Duration::from_millis(500), ..Limits::default() }
}

/// What a request costs, or why it has no price.
const IN_PRICE: &[&str] = &[
    "act = 'loop'",
    "act = 'fibonacci'",
    "act = 'memory-copy'",
    "act = 'recursion'",
    "act = 'large-frames'",
    "act = 'deep-stack'",
    "act = 'ackermann'",
    "act = 'log-recursion'",
    "act = 'memory-bomb'",
    "act = 'gigabyte'",
    "act = 'trap'",
    "act = 'panic'",
    "act = 'abort'",
    "act = 'divide-by-zero'",
    "act = 'wild-pointer'",
    "act = 'exit'",
    "act = 'exit', n = 0",
    "act = 'log-flood'",
    "act = 'log-huge'",
    "act = 'error'",
    "act = 'huge-error'",
    "act = 'invalid-string'",
    "act = 'greatest-amounts'",
    "act = 'least-amounts'",
    "act = 'many-lines', n = 33",
    "act = 'many-lines', n = 1000000",
    "act = 'many-lines', n = 100000000",
    "act = 'huge-failure'",
    // Odd, but allowed. There is nothing to wait for in the sandbox.
    "act = 'behave'",
    "act = 'sleep'",
    "act = 'memory-grow'",
    "act = 'null-pointer'",
    "act = 'log-control', n = 3",
    "act = 'print-flood', n = 1000",
    "act = 'negative'",
];

#[test]
fn in_price() {
    let healthy = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let mut found = Vec::new();
    for act in IN_PRICE {
        hostile.configure(HOSTILE, &format!("{{ {act}, on = 'price' }}"));
        let began = Instant::now();
        // On a worker of a runtime, in place: the gateway's own case, with the smallest stack.
        let set = hostile.host.pin();
        let outcome = runtime
            .block_on(runtime.spawn(async move { set.price(None, &usage("m", 1, 1)) }))
            .unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{act} took {took:?}: {outcome:?}");
        assert_eq!(healthy.amount("mistral-7b", 7, 3), "0.0000013", "after {act}");
        found.push(format!("{act}: {}", shown(&outcome)));
    }
    expect("hostile-price.txt", &found);
}

/// What becomes of two spans.
const IN_SPANS: &[&str] = &[
    "act = 'behave'",
    "act = 'loop'",
    "act = 'trap'",
    "act = 'memory-bomb'",
    "act = 'deep-stack'",
    "act = 'error'",
    "act = 'huge-error'",
    "act = 'span-out-of-range'",
    "act = 'undeclared-index'",
    "act = 'undeclared-name'",
    "act = 'reserved-keys'",
    "act = 'control-key'",
    "act = 'invalid-utf8'",
    "act = 'text-out-of-range'",
    "act = 'phantom-arena'",
    "act = 'not-a-number'",
    "act = 'infinite'",
    "act = 'deep-json'",
    "act = 'many-edits'",
    "act = 'many-edits', n = 10000",
    "act = 'huge-text'",
    "act = 'huge-text', n = 100000",
    "act = 'too-few'",
    "act = 'too-many'",
    "act = 'empty'",
];

#[test]
fn in_enrich_and_filter() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    let resource = Resource::default();
    let mut found = Vec::new();
    for act in IN_SPANS {
        hostile.configure(HOSTILE, &format!("{{ {act} }}"));
        let set = hostile.host.pin();
        let mut spans = vec![span(), span()];
        let faults = set.enrich(Some("acme"), &resource, &mut spans);
        let said = faults.iter().map(|fault| told(fault.kind, &fault.message)).collect::<String>();
        let changed = if spans == [span(), span()] { "unchanged" } else { "changed" };
        found.push(format!("{act} in enrich: {changed} {said}").trim_end().to_owned());

        let filtered = set.filter("console", Some("acme"), &resource, vec![span(), span()]);
        let said: String =
            filtered.faults.iter().map(|fault| told(fault.kind, &fault.message)).collect();
        let changed = filtered.kept.iter().any(|kept| *kept != span());
        let changed = if changed { "changed" } else { "unchanged" };
        let (kept, dropped) = (filtered.kept.len(), filtered.dropped);
        found.push(
            format!("{act} in filter: {kept} kept, {dropped} dropped, {changed} {said}")
                .trim_end()
                .to_owned(),
        );
        // A filter that fails keeps everything in; nobody writes what is the gateway's.
        assert_eq!(filtered.faults.is_empty(), kept == 2, "{act}: {filtered:?}");
        assert_eq!(changed, "unchanged", "{act}: {filtered:?}");
    }
    expect("hostile-spans.txt", &found);
}

#[test]
fn a_fault_costs_the_instance_and_the_next_call_works() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    // A store that trapped is never entered again: the count of calls begins anew.
    hostile.configure(HOSTILE, "{ act = 'trap-at', n = 3 }");
    let price = || shown(&hostile.host.pin().price(None, &usage("m", 1, 1)));
    let outcomes: Vec<String> = (0..9).map(|_| price()).collect();
    for round in outcomes.chunks(3) {
        assert_eq!(round[..2], ["0.01", "0.01"]);
        assert!(round[2].starts_with("trap: "), "{round:?}");
    }
    // What leaks is retired before it fails.
    hostile.configure(HOSTILE, "{ act = 'leak', n = 1000000 }");
    for call in 0..300 {
        assert_eq!(price(), "0.01", "call {call}");
    }
}

/// What fails at once does not get to serve.
const AT_THE_GATE: &[&str] = &[
    "act = 'loop', on = 'configure'",
    "act = 'trap', on = 'configure'",
    "act = 'memory-bomb', on = 'configure'",
    "act = 'exit', on = 'configure'",
    "act = 'error', on = 'configure'",
    "act = 'huge-error', on = 'configure'",
    "act = 'log-flood', on = 'configure'",
    "act = 'bad-currency'",
    "act = 'huge-currency'",
    "act = 'loop', on = 'price'",
    "act = 'trap', on = 'price'",
    "act = 'loop', on = 'enrich'",
    "act = 'span-out-of-range', on = 'enrich'",
    "act = 'loop', on = 'filter'",
    "act = 'empty', on = 'filter'",
    "nonsense = 1",
];

#[test]
fn the_gate_keeps_out_what_fails_at_once() {
    let mut found = Vec::new();
    let fixture = Fixture::new(&[("hostile", HOSTILE)], Limits::default());
    let settles = |what: &str, refused: bool| {
        fixture.until(what, |host| {
            host.status().iter().any(|file| file.file == HOSTILE && file.error.is_some() == refused)
        });
    };
    for act in AT_THE_GATE {
        let manifest = |config: &str| {
            format!("[[plugin]]\nfile = \"{HOSTILE}\"\nconfig = {{ {config} }}\n").into_bytes()
        };
        fixture.place("plugins.toml", &manifest(""));
        settles("the good configuration", false);
        fixture.place("plugins.toml", &manifest(act));
        settles(act, true);
        found.push(format!("{act}: {}", verdict(&fixture.host, HOSTILE)));
        // The last good one goes on serving.
        assert_eq!(fixture.amount("m", 1, 1), "0.01");
    }
    expect("hostile-gate.txt", &found);
}

/// An error in due form about an item that nobody ever sent is no reason to keep a plugin out.
#[test]
fn the_gate_lets_in_what_reports_an_error() {
    let file = built("hostile");
    for (act, role) in [
        (json!({ "act": "error", "on": "price" }), "cost-model"),
        (json!({ "act": "huge-failure", "on": "price", "n": 9 }), "cost-model"),
        (json!({ "act": "error", "on": "enrich" }), "attribute-enricher"),
        (json!({ "act": "error", "on": "filter" }), "export-filter"),
    ] {
        let passed = inspect(&PluginHostSettings::new(""), &file, Some(&act));
        let steps = passed.unwrap_or_else(|refused| panic!("{act}: {refused}")).steps;
        let trial = &steps.iter().find(|taken| taken.step == Step::Trial).unwrap().found;
        let said = format!("{role} (which answered with an error: ");
        assert!(trial.contains(&said) && trial.matches("(which").count() == 1, "{act}: {trial}");
    }
    let fixture = Fixture::prepared(Limits::default(), |folder| {
        std::fs::copy(&file, folder.join(HOSTILE)).unwrap();
        let told = format!("[[plugin]]\nfile = \"{HOSTILE}\"\nconfig = {{ act = 'error' }}\n");
        std::fs::write(folder.join("plugins.toml"), told).unwrap();
    });
    assert_eq!(verdict(&fixture.host, HOSTILE), "serves as tollgate/hostile");
}

#[test]
fn what_describe_does_wrong_is_refused() {
    let variants = ["describe_loop", "describe_trap", "describe_changes", "describe_huge"];
    let names: Vec<(String, String)> = variants
        .iter()
        .map(|variant| (format!("hostile_{variant}"), format!("{variant}.wasm")))
        .collect();
    let files: Vec<(&str, &str)> =
        names.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let fixture = Fixture::new(&files, Limits::default());
    let found: Vec<String> =
        files.iter().map(|(_, file)| format!("{file}: {}", verdict(&fixture.host, file))).collect();
    expect("hostile-describe.txt", &found);
    assert_eq!(fixture.host.pin().plugins().count(), 0);
}
