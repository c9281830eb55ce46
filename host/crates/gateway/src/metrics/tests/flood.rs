//! However many names clients think up, there is a bounded number of series, and sums stay right.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::metrics::requests::{MODELS, TENANTS};

fn asked_by(model: String, tenant: String) -> Record {
    let mut record = record();
    record.served_by.as_mut().unwrap().model.clone_from(&model);
    record.asked.model = model;
    record.tenant = Some(tenant);
    record
}

#[test]
fn a_flood_of_names_is_counted_under_other() {
    let meters = RequestMeters::default();
    let number = 20_000;
    let mut flood: Vec<Record> = (0..number)
        .map(|n| asked_by(format!("model-{}", n % 777), format!("tenant-{n}-{}", "x".repeat(500))))
        .collect();
    flood.push(asked_by("model-0".to_owned(), "late".to_owned()));
    let began = Instant::now();
    flood.iter().for_each(|record| meters.count(record, None));
    let each = began.elapsed() / number;
    let text = written(&nothing(&meters));

    let total = values(&text, "llm_total_tokens_total{");
    assert!(total.len() <= 4001, "{} series", total.len());
    assert_eq!(total.iter().sum::<f64>(), f64::from(15 * (number + 1)));
    let success = values(&text, "vllm:request_success_total{");
    assert_eq!(success.len(), 4 * (MODELS + 1));
    assert_eq!(success.iter().sum::<f64>(), f64::from(number + 1));
    let durations = values(&text, "gen_ai_server_request_duration_seconds_count{");
    assert_eq!(durations.iter().sum::<f64>(), f64::from(number + 1));
    assert!(text.contains(r#"llm_total_tokens_total{llm_model="model-0",llm_user="other"}"#));
    let left_out = values(&text, r#"tollgate_metrics_names_left_out_total{of="tenant"}"#);
    assert_eq!(left_out, [f64::from(number + 1) - TENANTS as f64]);
    assert!(text.contains("\ntollgate_metrics_series_left_out 0.0\n"));
    assert!(text.len() < 8 << 20, "{} bytes", text.len());
    println!("{each:?} for each request of the flood, {} bytes of text", text.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_names_at_all_make_text_that_is_bounded(
        names in prop::collection::vec((".{0,40}", ".{0,40}"), 1..300),
    ) {
        let meters = RequestMeters::default();
        for (model, tenant) in &names {
            meters.count(&asked_by(model.clone(), tenant.clone()), None);
        }
        let text = written(&nothing(&meters));
        let served: f64 = text
            .lines()
            .filter(|line| line.starts_with("vllm:request_success_total{"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum();
        prop_assert_eq!(served, names.len() as f64);
        let models = text.lines().filter(|l| l.starts_with("vllm:prompt_tokens_total{")).count();
        prop_assert!(models <= MODELS + 1);
    }
}
