//! Comparisons as data, and the bounds and sums for any traffic.

use proptest::prelude::*;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    Cost, Currency, FaultKind, PluginFault, TokenUsage, UnixNanos, UnpricedReason,
};

use super::*;

fn plugin(name: &str) -> PluginIdentity {
    PluginIdentity { name: name.to_owned(), version: "1.0.0".to_owned(), digest: "ab".repeat(32) }
}

fn amount(pico: i128, currency: &str) -> CostOutcome {
    let total = Money::new(pico, Currency::parse(currency).unwrap());
    CostOutcome::Priced(Cost {
        total,
        lines: Vec::new(),
        plugin: plugin("billed").into(),
        config_digest: None,
    })
}

fn usd(pico: i128) -> CostOutcome {
    amount(pico, "USD")
}

fn unpriced() -> CostOutcome {
    CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel }
}

fn failed() -> CostOutcome {
    let kind = FaultKind::Trap;
    CostOutcome::PluginFailed(PluginFault { plugin: plugin("x"), kind, message: String::new() })
}

fn usage(model: &str) -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: model.to_owned(),
        response_model: "demo".to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Reported,
        start: UnixNanos(1),
        tokens: TokenUsage::default(),
        compute: None,
        units: Vec::new(),
    }
}

fn price(name: &str, outcome: CostOutcome) -> Vec<ShadowPrice> {
    vec![ShadowPrice { file: format!("{name}.wasm").into(), plugin: plugin(name).into(), outcome }]
}

#[test]
fn every_pair_of_outcomes_has_a_result() {
    let cases = [
        (usd(5), usd(5), ShadowResult::Same, Some(0)),
        (usd(5), usd(3), ShadowResult::Cheaper, Some(-2)),
        (usd(5), usd(9), ShadowResult::Dearer, Some(4)),
        (usd(-5), usd(0), ShadowResult::Dearer, Some(5)),
        (usd(5), amount(5, "EUR"), ShadowResult::Incomparable, None),
        (unpriced(), usd(5), ShadowResult::Incomparable, None),
        (failed(), usd(5), ShadowResult::Incomparable, None),
        (usd(5), unpriced(), ShadowResult::Unpriced, None),
        (unpriced(), unpriced(), ShadowResult::Unpriced, None),
        (usd(5), failed(), ShadowResult::Failed, None),
    ];
    for (billed, shadow, result, difference) in cases {
        let (got, amounts) = compared(&billed, &shadow);
        let got_difference = amounts.map(|amounts| amounts.difference().pico);
        assert_eq!((got, got_difference), (result, difference), "{billed:?} {shadow:?}");
    }
}

#[test]
fn series_are_apart_by_plugin_model_tenant_and_currency() {
    let shadow = Shadow::default();
    for (name, model, tenant, billed, would) in [
        ("a", "m", Some("t"), usd(10), usd(7)),
        ("a", "m", Some("t"), usd(10), usd(12)),
        ("a", "m", Some("t"), amount(1, "EUR"), amount(2, "EUR")),
        ("a", "m", None, usd(1), usd(1)),
        ("a", "n", Some("t"), usd(1), unpriced()),
        ("b", "m", Some("t"), usd(1), failed()),
    ] {
        shadow.compare(tenant, &usage(model), &billed, price(name, would));
    }
    let series = shadow.series();
    let names: Vec<(&str, &ShadowGroup)> =
        series.iter().map(|series| (series.plugin.name.as_str(), &series.group)).collect();
    let of = |model: &str, tenant: Option<&str>| group(model, tenant);
    assert_eq!(
        names,
        [
            ("a", &of("m", None)),
            ("a", &of("m", Some("t"))),
            ("a", &of("n", Some("t"))),
            ("b", &of("m", Some("t")))
        ]
    );
    let sums: Vec<String> = series[1]
        .amounts
        .iter()
        .map(|a| format!("{} {} {}", a.billed, a.shadow, a.difference()))
        .collect();
    assert_eq!(
        sums,
        [
            "0.00000000002 USD 0.000000000019 USD -0.000000000001 USD",
            "0.000000000001 EUR 0.000000000002 EUR 0.000000000001 EUR"
        ]
    );
    assert_eq!(series[1].requests.get(&ShadowResult::Cheaper), Some(&1));
    assert_eq!(series[1].requests.get(&ShadowResult::Dearer), Some(&2));
}

#[test]
fn tenants_cannot_make_series_without_end() {
    let shadow = Shadow::default();
    let count = |tenant: &str, name: &str| {
        shadow.compare(Some(tenant), &usage("m"), &usd(1), price(name, usd(2)));
    };
    for number in 0..MOST_SERIES + 50 {
        count(&number.to_string(), "a");
    }
    count(&"x".repeat(LONGEST_NAME + 1), "a");
    count("0", "a");
    let series = shadow.series();
    assert_eq!(series.len(), MOST_SERIES + 1);
    let other = series.iter().find(|series| series.group == ShadowGroup::Other).unwrap();
    assert_eq!(other.requests.get(&ShadowResult::Dearer), Some(&51));
    // Another plugin shadows from now on: what the first one had makes room.
    count("new", "b");
    let names: Vec<String> = shadow.series().iter().map(|s| s.plugin.name.clone()).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn currencies_of_one_series_are_bounded() {
    let shadow = Shadow::default();
    for letter in 'A'..='H' {
        let code = format!("XX{letter}");
        shadow.compare(None, &usage("m"), &amount(1, &code), price("a", amount(2, &code)));
    }
    let series = shadow.series();
    assert_eq!(series[0].amounts.len(), MOST_CURRENCIES);
    assert_eq!(series[0].requests.get(&ShadowResult::Dearer), Some(&4));
    assert_eq!(series[0].requests.get(&ShadowResult::Incomparable), Some(&4));
}

proptest! {
    #[test]
    fn sums_are_exact(bills in prop::collection::vec((any::<i64>(), any::<i64>()), 1..50)) {
        let shadow = Shadow::default();
        for (billed, would) in &bills {
            let (billed, would) = (i128::from(*billed), i128::from(*would));
            shadow.compare(None, &usage("m"), &usd(billed), price("a", usd(would)));
        }
        let series = shadow.series();
        let difference: i128 = bills.iter().map(|(b, s)| i128::from(*s) - i128::from(*b)).sum();
        prop_assert_eq!(series[0].amounts[0].difference().pico, difference);
        let requests: u64 = series[0].requests.values().sum();
        prop_assert_eq!(requests, bills.len() as u64);
    }
}
