//! The bundled price table through the whole path: exact to the last digit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    missing_docs,
    reason = "a test"
)]

#[allow(dead_code, reason = "each file of tests uses some of it")]
mod support;

use support::{Fixture, amount, usage};
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{CostOutcome, UnpricedReason};
use tollgate_plugin_host::Limits;

#[test]
fn the_tutorials_table_is_exact() {
    let fixture = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let cases = [
        ("gpt-3.5-turbo", 1, 0, "0.0000005"),
        ("gpt-3.5-turbo", 0, 1, "0.0000015"),
        ("gpt-3.5-turbo", 1234, 567, "0.0014675"),
        ("gpt-4o-mini", 1, 0, "0.00000015"),
        ("gpt-4o-mini", 120, 40, "0.000042"),
        ("gpt-4o-mini", 127_999, 16_383, "0.02902965"),
        ("mistral-7b", 1000, 1000, "0.0003"),
        ("mistral-7b", 7, 3, "0.0000013"),
        ("llama-3-8b", 1000, 1000, "0.0003"),
        ("llama-3-8b", 0, 1, "0.0000002"),
        ("of nobody's", 1000, 1000, "0.0006"),
        ("of nobody's", 1, 1, "0.0000006"),
    ];
    for (model, input, output, expected) in cases {
        assert_eq!(fixture.amount(model, input, output), expected, "{model} {input} {output}");
    }
    let set = fixture.host.pin();
    let plain = set.price(Some("acme"), &usage("gpt-4o-mini", 120, 40));
    let CostOutcome::Priced(cost) = &plain else { panic!("{plain:?}") };
    assert_eq!(
        cost.lines.iter().map(|line| i128::from(line.amount_pico)).sum::<i128>(),
        cost.total.pico
    );
    assert_eq!(Some(&*cost.plugin), set.plugins().next());

    let mut estimated = usage("gpt-4o-mini", 120, 40);
    estimated.source = UsageSource::Estimated;
    let estimated = set.price(Some("acme"), &estimated);
    assert!(matches!(&estimated, CostOutcome::Estimated(_)));
    assert_eq!(amount(&estimated), amount(&plain));
}

#[test]
fn a_set_without_cost_models_says_so() {
    let fixture = Fixture::new(&[("enrich_labels", "enrich.wasm")], Limits::default());
    let outcome = fixture.host.pin().price(None, &usage("x", 1, 1));
    assert_eq!(outcome, CostOutcome::Unpriced { reason: UnpricedReason::NoCostPlugin });
}

#[test]
fn calls_work_on_threads_of_a_runtime_and_at_the_same_time() {
    let fixture = Fixture::new(&[("cost_per_token", "cost.wasm")], Limits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let host = fixture.host.clone();
            runtime.spawn(async move {
                // More calls than one instance serves, so instances retire in between.
                for n in 1..3000 {
                    let outcome = host.pin().price(None, &usage("mistral-7b", n, 0));
                    assert!(outcome.cost().is_some(), "{outcome:?}");
                }
                amount(&host.pin().price(None, &usage("mistral-7b", 7, 3)))
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), "0.0000013");
    }
}
