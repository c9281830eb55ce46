//! What becomes of models in the shape of LiteLLM's file; the models are made up.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn of(fields: &Value) -> Read {
    of_with(fields, &Wanted::default())
}

fn of_with(fields: &Value, wanted: &Wanted) -> Read {
    read(&json!({"acme/one": fields}).to_string(), wanted).unwrap()
}

fn rows(read: &Read) -> Value {
    serde_json::to_value(&read.entries).unwrap()
}

fn left(read: &Read) -> Vec<(&str, &str)> {
    read.left_out.iter().map(|left| (left.field.as_str(), left.reason)).collect()
}

#[test]
fn prices_parts_and_tiers() {
    let read = of(&json!({
        "litellm_provider": "acme", "mode": "chat", "max_tokens": 8192,
        "input_cost_per_token": 1.25e-6, "output_cost_per_token": 1e-5,
        "cache_read_input_token_cost": 3.1e-7, "cache_creation_input_token_cost": "1.6e-06",
        "input_cost_per_token_above_200k_tokens": 2.5e-6,
        "output_cost_per_token_above_200k_tokens": 1.5e-5,
        "cache_read_input_token_cost_above_128k_tokens": 6e-7,
        "output_cost_per_reasoning_token": 2e-5, "input_cost_per_audio_token": 1e-6,
        "input_cost_per_token_priority": 2.5e-6, "output_cost_per_token_priority": 2e-5,
        "input_cost_per_token_above_200k_tokens_priority": 5e-6,
        "output_cost_per_token_batches": 5e-6,
        "supports_vision": true, "source": "https://acme.example",
    }));
    let common = json!({
        "cache_read": "$0.31/M", "cache_write": "$1.6/M", "reasoning": "$20/M",
        "input_audio": "$1/M",
        "context_over": [
            {"tokens": 128_000, "cache_read": "$0.6/M"},
            {"tokens": 200_000, "input": "$2.5/M", "output": "$15/M"},
        ],
    });
    let with = |more: Value| {
        let mut all = common.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let mut priority = with(json!({
        "match": "acme/one", "service_tier": "priority", "input": "$2.5/M", "output": "$20/M",
    }));
    priority["context_over"][1]["input"] = "$5/M".into();
    let batch = with(json!({
        "match": "acme/one", "service_tier": "batch", "input": "$1.25/M", "output": "$5/M",
    }));
    let standard = with(json!({"match": "acme/one", "input": "$1.25/M", "output": "$10/M"}));
    assert_eq!(rows(&read), json!([batch, priority, standard]));
    assert_eq!((left(&read), read.models), (vec![], 1));
}

#[test]
fn what_is_left_out_is_told() {
    let whole = |fields: &Value, words: &str| {
        let read = of(fields);
        let found = read.left_out.iter().find(|left| left.field == "*").unwrap();
        assert!(read.entries.is_empty() && found.reason.contains(words), "{read:?}");
    };
    whole(&json!(7), "no object");
    whole(&json!({"mode": "chat"}), "no input_cost_per_token");
    whole(&json!({"input_cost_per_second": 1e-3}), "no input_cost_per_token");
    whole(&json!({"input_cost_per_token": 1e-6}), "no output_cost_per_token");
    whole(&json!({"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}), "--keep-free");
    whole(
        &json!({"input_cost_per_token": 1e-6, "output_cost_per_token": 0, "mode": "chat"}),
        "--keep-free",
    );
    whole(
        &json!({"input_cost_per_token": "free", "output_cost_per_token": 1}),
        "no input_cost_per_token",
    );
    let read = of(&json!({
        "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6,
        "input_cost_per_image": 0.01, "input_cost_per_video_per_second": 0.0,
        "search_context_cost_per_query": {"search_context_size_low": 0.03},
        "cache_creation_input_token_cost": 0.0, "cache_creation_input_token_cost_above_1hr": 1e-6,
        "output_cost_per_audio_token": -1e-6, "input_cost_per_token_cache_hit": 1e-7,
        "tiered_pricing": [{"range": [0, 1000]}], "output_cost_per_reasoning_token": null,
    }));
    assert_eq!(read.models, 1);
    let told: Vec<&str> = left(&read).iter().map(|(field, _)| *field).collect();
    assert_eq!(
        told,
        [
            "cache_creation_input_token_cost",
            "cache_creation_input_token_cost_above_1hr",
            "input_cost_per_image",
            "input_cost_per_token_cache_hit",
            "output_cost_per_audio_token",
            "search_context_cost_per_query",
            "tiered_pricing",
        ]
    );
}

#[test]
fn ranges_are_prices_of_long_contexts() {
    let ranged = |ranges: Value| json!({"mode": "chat", "tiered_pricing": ranges});
    let read = of(&ranged(json!([
        {"range": [0, 32000.0], "input_cost_per_token": 1e-6, "output_cost_per_token": 5e-6,
         "cache_read_input_token_cost": 1e-7, "output_cost_per_reasoning_token": 6e-6},
        {"range": [32000, 128000], "input_cost_per_token": 2e-6, "output_cost_per_token": 7e-6,
         "input_cost_per_audio_token": 1e-6},
        {"range": [128000, 256000], "input_cost_per_token": 3e-6, "output_cost_per_token": 9e-6,
         "cache_read_input_token_cost": 3e-7, "output_cost_per_reasoning_token": 1e-5},
    ])));
    assert_eq!(
        rows(&read),
        json!([{
            "match": "acme/one", "input": "$1/M", "output": "$5/M", "cache_read": "$0.1/M", "reasoning": "$6/M",
            "context_over": [
                {"tokens": 32_000, "input": "$2/M", "output": "$7/M", "cache_read": "$2/M", "reasoning": "$7/M"},
                {"tokens": 128_000, "input": "$3/M", "output": "$9/M", "cache_read": "$0.3/M", "reasoning": "$10/M"},
            ],
        }])
    );
    let told: Vec<&str> = left(&read).iter().map(|(field, _)| *field).collect();
    assert_eq!(told, ["tiered_pricing[1].input_cost_per_audio_token"]);

    let one = |range: Value| json!({"range": range, "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6});
    for (ranges, words) in [
        (json!({}), "no list"),
        (json!([]), "no range"),
        (json!([{"input_cost_per_token": 1e-6}]), "no pair"),
        (json!([one(json!([0, 1.5]))]), "no pair"),
        (json!([one(json!([0, -1]))]), "no pair"),
        (json!([one(json!([0, 1, 2]))]), "no pair"),
        (json!([one(json!([5, 10]))]), "follow each other"),
        (json!([one(json!([0, 10])), one(json!([11, 20]))]), "follow each other"),
        (json!([one(json!([0, 10])), one(json!([0, 10]))]), "follow each other"),
        (json!([one(json!([0, 0]))]), "follow each other"),
        (json!([{"range": [0, 9], "input_cost_per_token": 1e-6}]), "no price for input or output"),
        (
            json!([{"range": [0, 9], "input_cost_per_token": 0, "output_cost_per_token": 1}]),
            "--keep-free",
        ),
        (
            json!([{"range": [0, 9], "input_cost_per_token": -1, "output_cost_per_token": 1}]),
            "below zero",
        ),
    ] {
        let read = of(&ranged(ranges.clone()));
        let told: Vec<_> =
            left(&read).into_iter().filter(|(field, _)| *field == "tiered_pricing").collect();
        assert!(
            read.models == 0 && told.len() == 1 && told[0].1.contains(words),
            "{ranges}: {read:?}"
        );
    }
}

#[test]
fn free_is_free_only_where_it_was_asked_for() {
    let wanted = Wanted { keep_free: true, ..Wanted::default() };
    let free = json!({"input_cost_per_token": 0.0, "output_cost_per_token": 0.0});
    let read = of_with(&free, &wanted);
    assert_eq!(rows(&read), json!([{"match": "acme/one", "input": "$0/M", "output": "$0/M"}]));
    let embedding = json!({"mode": "embedding", "input_cost_per_token": 2e-8});
    let read = of(&embedding);
    assert_eq!(rows(&read), json!([{"match": "acme/one", "input": "$0.02/M", "output": "$0/M"}]));
}

#[test]
fn names_and_providers() {
    let fields = |provider: &str| json!({"litellm_provider": provider, "input_cost_per_token": 1, "output_cost_per_token": 1});
    let file = json!({
        "sample_spec": {"input_cost_per_token": 0}, "acme/a": fields("acme"), "b": fields("other"),
        "zeta/a": fields("acme"), "acme/*": fields("acme"),
    });
    let wanted =
        Wanted { providers: vec!["acme".to_owned()], strip_prefix: true, ..Wanted::default() };
    let read = read(&file.to_string(), &wanted).unwrap();
    let names: Vec<&str> = read.entries.iter().map(|entry| entry.model.as_str()).collect();
    assert_eq!((names, read.models), (vec!["a"], 1));
    let told: Vec<&str> = read.left_out.iter().map(|left| left.model.as_str()).collect();
    assert_eq!(told, ["acme/*", "zeta/a"]);
    assert!(super::read("[]", &wanted).is_err());
}

proptest! {
    /// Whatever stands in the file, a price that is not zero never turns into nothing without a word.
    #[test]
    fn nothing_is_lost_in_silence(
        fields in proptest::collection::btree_map("(input|output|cache)_cost(_per_(token|image|second))?(_above_[0-9]{1,4}k_tokens)?(_flex)?", 1_u32..1000, 0..8)
    ) {
        let object: serde_json::Map<String, Value> = fields.iter().map(|(key, price)| (key.clone(), (*price).into())).collect();
        let read = of(&Value::Object(object));
        let whole = read.left_out.iter().any(|left| left.field == "*");
        for field in fields.keys() {
            let told = read.left_out.iter().any(|left| left.field == *field);
            let known = meaning(field).is_some();
            prop_assert!(told || whole || (known && read.models == 1), "{field}: {read:?}");
        }
        prop_assert!(!rows(&read).to_string().contains("$0/M"));
    }
}
