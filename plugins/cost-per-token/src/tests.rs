//! Whole requests through the plugin, as the gateway would send them.

use crate::CostPerToken;
use proptest::prelude::*;
use tollgate_plugin::{
    Phase,
    testing::{Case, Configured},
};

fn plugin(json: &str) -> Configured<CostPerToken> {
    Configured::configure(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refused(json: &str) -> String {
    Configured::<CostPerToken>::configure(json).expect_err(json).to_string()
}

/// Every row of the built-in table, the cost written out by hand.
#[test]
fn built_in_table_to_the_last_digit() {
    let table = plugin("{}");
    for (model, input, output, cost) in [
        ("gpt-3.5-turbo", 1, 0, "0.0000005"),
        ("gpt-3.5-turbo", 0, 1, "0.0000015"),
        ("gpt-3.5-turbo", 120, 40, "0.00012"),
        ("gpt-3.5-turbo", 1000, 1000, "0.002"),
        ("gpt-3.5-turbo", 16_385, 4_096, "0.0143365"),
        ("gpt-4o-mini", 1, 0, "0.00000015"),
        ("gpt-4o-mini", 0, 1, "0.0000006"),
        ("gpt-4o-mini", 120, 40, "0.000042"),
        ("gpt-4o-mini", 1000, 1000, "0.00075"),
        ("gpt-4o-mini", 127_999, 16_383, "0.02902965"),
        ("mistral-7b", 1, 0, "0.0000001"),
        ("mistral-7b", 0, 1, "0.0000002"),
        ("mistral-7b", 120, 40, "0.00002"),
        ("mistral-7b", 1000, 1000, "0.0003"),
        ("mistral-7b", 32_767, 1, "0.0032769"),
        ("llama-3-8b", 1, 0, "0.0000001"),
        ("llama-3-8b", 7, 3, "0.0000013"),
        ("llama-3-8b", 120, 40, "0.00002"),
        ("llama-3-8b", 8_192, 2_048, "0.0012288"),
        ("something-else", 1, 0, "0.0000002"),
        ("something-else", 0, 1, "0.0000004"),
        ("something-else", 120, 40, "0.00004"),
        ("something-else", 1000, 1000, "0.0006"),
        ("", 1, 1, "0.0000006"),
        ("gpt-4o-mini", 1_000_000_000_000, 0, "150000"),
    ] {
        assert_eq!(
            table.price(Case::usage(model).tokens(input, output)),
            Ok(cost.into()),
            "{model} {input} {output}"
        );
    }
}

#[test]
fn parts_are_never_charged_twice() {
    let prices = r#"{"models":[
        {"match":"all","input":"$3/M","output":"$15/M","cache_read":"$0.30/M","cache_write":"$3.75/M","reasoning":"$10/M",
         "input_audio":"$5/M","output_image":"$40/M"},
        {"match":"plain","input":"$3/M","output":"$15/M"}]}"#;
    let case = |model: &str| {
        Case::usage(model).tokens(1000, 500).with(|usage| {
            usage.tokens.input_cache_read = 600;
            usage.tokens.input_cache_write = 100;
            usage.tokens.input_audio = 50;
            usage.tokens.output_reasoning = 200;
            usage.tokens.output_image = 10;
        })
    };
    // 250 * 3 + 600 * 0.3 + 100 * 3.75 + 50 * 5, and 290 * 15 + 200 * 10 + 10 * 40, all per million.
    assert_eq!(plugin(prices).price(case("all")), Ok("0.008305".into()));
    assert_eq!(plugin(prices).lines(case("all")).map(|lines| lines.len()), Ok(7));
    // Without own prices the parts cost what the totals cost.
    assert_eq!(plugin(prices).price(case("plain")), Ok("0.0105".into()));
    assert_eq!(plugin(prices).lines(case("plain")).map(|lines| lines.len()), Ok(2));
}

#[test]
fn counts_that_contradict_each_other_fail_the_item() {
    let table = plugin(r#"{"default":{"input":"$3/M","output":"$15/M","cache_read":"$1/M"}}"#);
    let price = |change: fn(&mut tollgate_plugin::TokenUsage)| {
        table.price(Case::usage("m").tokens(100, 100).with(|usage| change(&mut usage.tokens)))
    };
    assert!(price(|t| t.input_cache_read = 101).unwrap_err().contains("more cached input"));
    assert!(
        price(|t| (t.input_cache_read, t.input_cache_write) = (60, 60))
            .unwrap_err()
            .contains("more cached")
    );
    assert!(price(|t| t.output_reasoning = 101).unwrap_err().contains("do not fit"));
    assert!(price(|t| t.input_audio = u64::MAX).unwrap_err().contains("do not fit"));
    assert!(price(|t| t.input = u64::MAX).unwrap_err().contains("out of range"));
}

#[test]
fn first_match_wins_and_tenants_come_first() {
    let table = plugin(
        r#"{"models":[
        {"match":"gpt-4o*","service_tier":"batch","input":"$1/M","output":"$1/M"},
        {"match":"gpt-4o*","input":"$2/M","output":"$2/M"},
        {"match":"*","provider":"azure*","input":"$3/M","output":"$3/M"},
        {"match":"embed*","operation":"embeddings","input":"$4/M","output":"$0/M"},
        {"match":"gpt-4o*","tenant":"acme-*","input":"$5/M","output":"$5/M"}]}"#,
    );
    let price = |case: Case| table.price(case.tokens(1_000_000, 0));
    assert_eq!(price(Case::usage("gpt-4o-mini")), Ok("2".into()));
    assert_eq!(
        price(Case::usage("gpt-4o").with(|u| u.service_tier = Some("batch".into()))),
        Ok("1".into())
    );
    assert_eq!(
        price(Case::usage("gpt-4o").with(|u| u.service_tier = Some("flex".into()))),
        Ok("2".into())
    );
    assert_eq!(price(Case::usage("gpt-4o").tenant("acme-eu")), Ok("5".into()));
    assert_eq!(price(Case::usage("gpt-4o").tenant("other")), Ok("2".into()));
    assert_eq!(price(Case::usage("x").with(|u| u.provider = "azure.ai".into())), Ok("3".into()));
    assert_eq!(
        price(Case::usage("embed-1").with(|u| u.operation = "embeddings".into())),
        Ok("4".into())
    );
    assert_eq!(price(Case::usage("embed-1")), Err("UnknownModel".into()));
}

/// What stands behind an alias sets the price, and never the alias.
#[test]
fn another_server_is_priced_by_the_model_it_was_asked_for() {
    let case = |provider: &str, asked: &str, resolved: &str| {
        Case::usage(asked).tokens(1000, 1000).with(|usage| {
            (usage.provider, usage.response_model) = (provider.into(), resolved.into());
        })
    };
    let table = plugin("{}");
    let alias = || case("vllm", "gpt-4o-mini", "mistral-7b");
    assert_eq!(table.price(alias()), Ok("0.0003".into()));
    assert_eq!(plugin(r#"{"price_by":"response"}"#).price(alias()), Ok("0.0003".into()));
    assert_eq!(plugin(r#"{"price_by":"request"}"#).price(alias()), Ok("0.00075".into()));
    // The model in the gateway's own process is priced as the tutorial does it.
    assert_eq!(table.price(case("tollgate", "gpt-4o-mini", "tollgate-demo")), Ok("0.00075".into()));
    let known = plugin(r#"{"models":[{"match":"gpt-4o-mini","input":"$1/M","output":"$1/M"}]}"#);
    assert_eq!(known.price(alias()), Err("UnknownModel".into()));
}

#[test]
fn a_dated_snapshot_is_its_model_unless_a_row_before_is_its_own() {
    let rows = r#"{"models":[
        {"match":"gpt-4o-2024-05-13","input":"$5/M","output":"$1/M"},
        {"match":"gpt-4o","input":"$2/M","output":"$1/M"},
        {"match":"gpt-3.5-turbo","input":"$3/M","output":"$1/M"},
        {"match":"claude-sonnet","input":"$4/M","output":"$1/M"}]}"#;
    let price = |asked: &str, resolved: &str| {
        let case = Case::usage(asked).tokens(1_000_000, 0);
        plugin(rows).price(case.with(|usage| {
            (usage.provider, usage.response_model) = ("openai".into(), resolved.into());
        }))
    };
    assert_eq!(price("x", "gpt-4o-2024-08-06"), Ok("2".into()));
    assert_eq!(price("x", "gpt-4o-2024-05-13"), Ok("5".into()));
    assert_eq!(price("x", "claude-sonnet-20241022"), Ok("4".into()));
    assert_eq!(price("x", "claude-sonnet@20241022"), Ok("4".into()));
    // A month and a day alone are a date only of what was asked for.
    assert_eq!(price("gpt-3.5-turbo", "gpt-3.5-turbo-0125"), Ok("3".into()));
    for (asked, other) in [
        ("x", "gpt-3.5-turbo-0125"),
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o", "gpt-4o-mini-2024-07-18"),
        ("x", "gpt-4o-2024-13-01"),
        ("x", "gpt-4o-12345678"),
        ("gpt-4o", "gpt-4o-1024x"),
        ("x", "-2024-08-06"),
    ] {
        assert_eq!(price(asked, other), Err("UnknownModel".into()), "{asked} {other}");
    }
    let dated = Case::usage("gpt-4o-mini-2024-07-18").tokens(1000, 0);
    assert_eq!(plugin("{}").price(dated), Ok("0.00015".into()));
}

#[test]
fn names_dates_and_long_contexts() {
    let by_response = plugin(r#"{"price_by":"response"}"#);
    let alias =
        Case::usage("alias").tokens(1000, 0).with(|u| u.response_model = "gpt-4o-mini".into());
    assert_eq!(by_response.price(alias.clone()), Ok("0.00015".into()));
    assert_eq!(plugin(r#"{"price_by":"request"}"#).price(alias), Ok("0.0002".into()));

    let dated = plugin(
        r#"{"models":[
        {"effective_until":"2026-01-01","input":"$1/M","output":"$1/M"},
        {"effective_from":"2026-01-01T00:00:00Z","input":"$2/M","output":"$2/M"}]}"#,
    );
    let at =
        |start: u64| dated.price(Case::usage("m").tokens(1_000_000, 0).with(|u| u.start = start));
    assert_eq!(at(1_767_225_599_999_999_999), Ok("1".into()));
    assert_eq!(at(1_767_225_600_000_000_000), Ok("2".into()));

    let tiers = plugin(
        r#"{"default":{"input":"$1/M","output":"$10/M","cache_read":"$0.1/M","context_over":[
        {"tokens":200000,"input":"$2/M","output":"$15/M"},{"tokens":500000,"input":"$4/M"}]}}"#,
    );
    let long = |input| tiers.price(Case::usage("m").tokens(input, 1_000_000));
    assert_eq!(long(200_000), Ok("10.2".into()));
    assert_eq!(long(200_001), Ok("15.400002".into()));
    // Only what the tier names changes; output is back at the entry's price.
    assert_eq!(long(500_001), Ok("12.000004".into()));
}

#[test]
fn fees_discounts_and_nothing_used() {
    let table = plugin(
        r#"{"currency":"EUR","default":{"input":"€1/M","output":"1 EUR/M","request":"€0.01/request","discount":"10%","markup":"50%"}}"#,
    );
    assert_eq!(table.price(Case::usage("m").tokens(1_000_000, 0)), Ok("1.3635".into()));
    assert_eq!(table.price(Case::usage("m")), Err("MissingUsage".into()));
    assert_eq!(
        table.price(Case::usage("m").with(|u| u.phase = Phase::Interrupted)),
        Ok("0".into())
    );
}

#[test]
fn refusals_point_at_the_fault() {
    let entry = |rest: &str| {
        refused(&format!(r#"{{"models":[{{"input":"$1/M","output":"$1/M"{rest}}}]}}"#))
    };
    assert!(
        entry(r#","cached":"$1/M""#)
            .starts_with("/models/0/cached: unknown field `cached`, expected one of `match`")
    );
    assert!(
        entry(r#","reasoning":"$1/h""#)
            .starts_with("/models/0/reasoning: `$1/h` is not a price per token")
    );
    assert!(
        entry(r#","reasoning":"€1/M""#).starts_with("/models/0/reasoning: the price is in EUR")
    );
    assert!(
        entry(r#","context_over":[{"tokens":5,"input":"€1/M"}]"#)
            .starts_with("/models/0/context_over/0/input: ")
    );
    assert!(entry(r#","context_over":[{"tokens":5},{"tokens":5}]"#).contains("ascending"));
    assert!(entry(r#","effective_from":"soon""#).starts_with("/models/0/effective_from: `soon`"));
    assert!(
        entry(r#","effective_from":"2026-01-02","effective_until":"2026-01-02""#)
            .contains("never hold")
    );
    assert!(entry(r#","discount":"0.1""#).starts_with("/models/0/discount"));
    assert!(refused(r#"{"models":[{"input":"$1/M"}]}"#).contains("missing field `output`"));
    assert!(
        refused(r#"{"models":[{"input":0.15,"output":"$1/M"}]}"#).starts_with("/models/0/input: ")
    );
    assert!(
        refused(r#"{"default":{"match":"x","input":"$1/M","output":"$1/M"}}"#)
            .starts_with("/default: ")
    );
    assert!(refused(r#"{"currency":"EUR"}"#).starts_with("/currency: "));
    assert!(refused(r#"{"price_by":"model"}"#).starts_with("/price_by: "));
    assert!(refused(r#"{"model":[]}"#).starts_with("/model: unknown field `model`"));
}

proptest! {
    /// The built-in table against integers: its prices are whole picos per token.
    #[test]
    fn built_in_table_is_integer_arithmetic(input in 0_u64..10_000_000, output in 1_u64..10_000_000) {
        let picos = u128::from(input) * 150_000 + u128::from(output) * 600_000;
        let cost = plugin("{}").price(Case::usage("gpt-4o-mini").tokens(input, output)).unwrap();
        let parsed: tollgate_plugin::money::Pico = cost.parse().unwrap();
        prop_assert_eq!(u128::try_from(parsed.get()).unwrap(), picos);
    }
}
