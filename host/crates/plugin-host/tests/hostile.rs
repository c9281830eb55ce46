//! Whatever a plugin does costs its own answer and nothing else.
#![allow(clippy::unwrap_used, clippy::allow_attributes, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use std::time::{Duration, Instant};

use support::{Fixture, amount, span, usage};
use tollgate_domain::{CostOutcome, FaultKind, Resource};
use tollgate_plugin_host::Limits;

const HOSTILE: &str = "hostile.wasm";

/// A bad plugin would not pass its trial call, and here it must get to serve. Filling its memory must fit into the deadline,
/// also on a machine that is busy with other tests.
fn lenient() -> Limits {
    Limits { trial_call: false, deadline_call: Duration::from_millis(300), ..Limits::default() }
}

fn fault_of(outcome: &CostOutcome) -> Option<FaultKind> {
    match outcome {
        CostOutcome::PluginFailed(fault) => Some(fault.kind),
        _ => None,
    }
}

#[test]
fn each_act_in_price_is_its_own_fault() {
    let healthy = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let cases = [
        ("loop", FaultKind::Deadline),
        ("recursion", FaultKind::Trap),
        ("deep-stack", FaultKind::Stack),
        ("memory-bomb", FaultKind::Memory),
        ("trap", FaultKind::Trap),
        ("panic", FaultKind::Trap),
        ("divide-by-zero", FaultKind::Trap),
        ("exit", FaultKind::Trap),
        ("log-flood", FaultKind::Deadline),
        ("log-huge", FaultKind::ResultTooLarge),
        ("error", FaultKind::Reported),
        ("huge-error", FaultKind::ResultTooLarge),
        ("too-many", FaultKind::WrongLength),
        ("too-few", FaultKind::WrongLength),
        ("empty", FaultKind::WrongLength),
        ("greatest-amounts", FaultKind::Overflow),
        ("least-amounts", FaultKind::Overflow),
        ("many-lines", FaultKind::ResultTooLarge),
        ("huge-failure", FaultKind::ResultTooLarge),
    ];
    for (act, expected) in cases {
        hostile.configure(HOSTILE, &format!("{{ act = \"{act}\", on = \"price\" }}"));
        let began = Instant::now();
        // On a worker of a runtime, in place: the gateway's own case, with the smallest stack.
        let set = hostile.host.pin();
        let outcome = runtime
            .block_on(runtime.spawn(async move { set.price(None, &usage("m", 1, 1)) }))
            .unwrap();
        let took = began.elapsed();
        let shown = format!("{act} after {took:?}: {outcome:?}");
        let kind = fault_of(&outcome);
        // Frames of a debug-free guest may end in its own memory or on the host's stack, whichever is smaller.
        let stack = act == "recursion" && kind == Some(FaultKind::Stack);
        // How far a large answer gets before it is cut off is up to its memory.
        let memory = expected == FaultKind::ResultTooLarge && kind == Some(FaultKind::Memory);
        assert!(kind == Some(expected) || stack || memory, "{shown}");
        assert!(took < Duration::from_secs(5), "{shown}");
        assert_eq!(healthy.amount("mistral-7b", 7, 3), "0.0000013", "after {act}");
    }
}

#[test]
fn what_is_odd_but_allowed_is_answered() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    let cases = [
        ("{ act = \"behave\" }", "0.01"),
        // There is nothing to wait for in the sandbox.
        ("{ act = \"sleep\" }", "0.01"),
        ("{ act = \"memory-grow\" }", "0.01"),
        ("{ act = \"print-flood\", n = 1000 }", "0.01"),
        ("{ act = \"negative\" }", "-1"),
    ];
    for (config, expected) in cases {
        hostile.configure(HOSTILE, config);
        assert_eq!(hostile.amount("m", 1, 1), expected, "{config}");
    }
}

#[test]
fn a_fault_costs_the_instance_and_the_next_call_works() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    hostile.configure(HOSTILE, "{ act = \"trap-at\", n = 3 }");
    let outcomes: Vec<_> =
        (0..9).map(|_| fault_of(&hostile.host.pin().price(None, &usage("m", 1, 1)))).collect();
    let round = [None, None, Some(FaultKind::Trap)];
    assert_eq!(outcomes, [round, round, round].concat());

    // What leaks is retired before it fails.
    hostile.configure(HOSTILE, "{ act = \"leak\", n = 1000000 }");
    for call in 0..300 {
        assert_eq!(hostile.amount("m", 1, 1), "0.01", "call {call}");
    }
}

#[test]
fn edits_that_break_the_rules_change_nothing() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    let cases = [
        ("span-out-of-range", Some(FaultKind::InvalidAnswer)),
        ("undeclared-index", Some(FaultKind::InvalidAnswer)),
        ("undeclared-name", None),
        ("control-key", Some(FaultKind::InvalidAnswer)),
        ("invalid-utf8", Some(FaultKind::InvalidAnswer)),
        ("text-out-of-range", Some(FaultKind::InvalidAnswer)),
        ("phantom-arena", Some(FaultKind::InvalidAnswer)),
        ("not-a-number", Some(FaultKind::InvalidAnswer)),
        ("infinite", Some(FaultKind::InvalidAnswer)),
        ("deep-json", Some(FaultKind::InvalidAnswer)),
        ("many-edits", Some(FaultKind::ResultTooLarge)),
        ("huge-text", Some(FaultKind::ResultTooLarge)),
        ("loop", Some(FaultKind::Deadline)),
    ];
    let resource = Resource::default();
    for (act, expected) in cases {
        hostile.configure(HOSTILE, &format!("{{ act = \"{act}\" }}"));
        let set = hostile.host.pin();
        let mut spans = vec![span(), span()];
        let faults = set.enrich(Some("acme"), &resource, &mut spans);
        let kinds: Vec<_> = faults.iter().map(|fault| fault.kind).collect();
        let memory = expected == Some(FaultKind::ResultTooLarge) && kinds == [FaultKind::Memory];
        assert!(kinds == expected.into_iter().collect::<Vec<_>>() || memory, "{act}: {faults:?}");
        assert_eq!(spans, [span(), span()], "{act}");

        // A filter that fails keeps everything in.
        let filtered = set.filter("console", Some("acme"), &resource, vec![span(), span()]);
        let left = if expected.is_some() { 0 } else { 2 };
        assert_eq!(
            (filtered.kept.len(), filtered.dropped),
            (left, 2 - left),
            "{act}: {filtered:?}"
        );
        assert_eq!(filtered.faults.is_empty(), expected.is_none(), "{act}");
    }
    hostile.configure(HOSTILE, "{ act = \"too-few\" }");
    let filtered = hostile.host.pin().filter("console", None, &resource, vec![span(), span()]);
    assert_eq!((filtered.kept.len(), filtered.dropped), (0, 2));
    assert_eq!(
        filtered.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(),
        [FaultKind::WrongLength]
    );
}

#[test]
fn the_gate_keeps_out_what_fails_at_once() {
    let fixture = Fixture::new(&[("hostile", HOSTILE)], Limits::default());
    assert_eq!(fixture.amount("m", 1, 1), "0.01");
    let cases = [
        ("{ act = \"loop\", on = \"configure\" }", "configure", "deadline"),
        ("{ act = \"trap\", on = \"configure\" }", "configure", "trap"),
        ("{ act = \"bad-currency\" }", "configure", "ISO 4217"),
        ("{ act = \"trap\", on = \"price\" }", "trial", "trap"),
        ("{ act = \"too-many\" }", "trial", "cost-model"),
        ("{ act = \"loop\", on = \"filter\" }", "trial", "export-filter"),
        ("{ nonsense = 1 }", "configure", "nonsense"),
    ];
    for (config, kind, named) in cases {
        let text = format!("[[plugin]]\nfile = \"{HOSTILE}\"\nconfig = {config}\n");
        fixture.place("plugins.toml", text.as_bytes());
        fixture.until(config, |host| {
            host.status().iter().any(|file| {
                file.error
                    .as_ref()
                    .is_some_and(|error| error.kind == kind && error.message.contains(named))
            })
        });
        // The last good one goes on serving.
        assert_eq!(fixture.amount("m", 1, 1), "0.01");
    }
}

#[test]
fn nothing_of_the_world_outside_gets_in() {
    let hostile = Fixture::new(&[("hostile", HOSTILE)], lenient());
    hostile.configure(HOSTILE, "{ act = \"probe\" }");
    let ask = || match hostile.host.pin().price(None, &usage("m", 1, 1)) {
        CostOutcome::PluginFailed(fault) => fault.message,
        other => amount(&other),
    };
    let report = ask();
    // The same in every call and on every instance.
    assert_eq!(report, ask());
    // Either it was told nothing, or it died of asking.
    let leaks = [
        "HOME",
        "PATH",
        "CARGO",
        "hostname: got",
        "connect: got",
        "listen: got",
        "list /: got",
        "file: got",
    ];
    for leak in leaks {
        assert!(!report.contains(leak), "{leak} in {report}");
    }
}
