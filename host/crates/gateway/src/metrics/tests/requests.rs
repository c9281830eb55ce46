//! What becomes of one request, and of a few, in every family that counts requests.

use std::time::Duration;

use tollgate_domain::record::Operation;
use tollgate_domain::{ErrorKind, UnpricedReason};

use super::*;
use crate::metrics::EngineLoad;

fn text(records: &[Record]) -> String {
    let meters = RequestMeters::default();
    records.iter().for_each(|record| meters.count(record, None));
    written(&nothing(&meters))
}

fn refused(kind: ErrorKind) -> Record {
    let outcome = Outcome::Refused { kind, message: "no".to_owned() };
    let cost = CostOutcome::Unpriced { reason: UnpricedReason::NotServed };
    Record { outcome, served_by: None, usage: None, cost, ..record() }
}

/// The record of `outcome`, which is all that differs.
fn ended(outcome: Outcome) -> Record {
    Record { outcome, ..record() }
}

#[test]
fn tokens_and_money_are_the_tutorials() {
    let by = r#"{llm_model="mistral-7b",llm_user="acme"}"#;
    let ours = r#"{model="mistral-7b",tenant="acme",currency="USD",cost_status="priced"}"#;
    assert_lines(
        &text(&[record(), record()]),
        &[
            &format!("llm_prompt_tokens_total{by} 20"),
            &format!("llm_completion_tokens_total{by} 10"),
            &format!("llm_total_tokens_total{by} 30"),
            &format!("llm_estimated_cost_usd_total{by} 7.2e-6"),
            &format!("tollgate_cost_total{ours} 7.2e-6"),
            r#"tollgate_requests_total{outcome="completed",cost_status="priced"} 2"#,
        ],
    );
}

#[test]
fn money_is_added_up_exactly_and_by_currency() {
    let euro = Currency::parse("EUR").unwrap();
    let paid = [
        priced(100_000_000_000, Currency::USD),
        priced(200_000_000_000, Currency::USD),
        priced(-50_000_000_000, Currency::USD),
        priced(1, euro),
        CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel },
    ];
    let records = paid.map(|cost| Record { cost, tenant: None, ..record() });
    let written = text(&records);
    let by = |currency: &str| {
        format!(r#"{{model="mistral-7b",tenant="",currency="{currency}",cost_status="priced"}}"#)
    };
    assert_lines(
        &written,
        &[
            // In doubles 0.1 + 0.2 is more than 0.3.
            r#"llm_estimated_cost_usd_total{llm_model="mistral-7b",llm_user=""} 0.3"#,
            &format!("tollgate_cost_total{} 0.3", by("USD")),
            &format!("tollgate_cost_total{} 1e-12", by("EUR")),
            &format!("tollgate_cost_credit_total{} 0.05", by("USD")),
            r#"tollgate_requests_unpriced_total{model="mistral-7b",cost_status="unpriced",reason="unknown_model"} 1"#,
        ],
    );
    assert!(!written.contains(&format!("tollgate_cost_credit_total{}", by("EUR"))));
}

#[test]
fn more_currencies_than_there_is_room_for_are_left_out() {
    let codes = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH", "III", "JJJ"];
    let records =
        codes.map(|code| Record { cost: priced(1, Currency::parse(code).unwrap()), ..record() });
    assert_eq!(values(&text(&records), "tollgate_cost_total{").len(), 8);
}

#[test]
fn times_and_tokens_are_the_conventions() {
    let written = text(&[record()]);
    let by = r#"gen_ai_operation_name="chat",gen_ai_provider_name="tollgate",gen_ai_request_model="mistral-7b",gen_ai_response_model="demo""#;
    let duration = format!("gen_ai_server_request_duration_seconds_bucket{{{by},error_type=\"\"");
    let first = format!("gen_ai_server_time_to_first_token_seconds_bucket{{{by}");
    let each = format!("gen_ai_server_time_per_output_token_seconds_bucket{{{by}");
    let usage = format!("gen_ai_client_token_usage_bucket{{{by},gen_ai_token_type");
    let exemplar = r#"# {trace_id="00000000000000000000000000000abc",span_id="0000000000000def"}"#;
    let then = "1700000000.502";
    assert_lines(
        &written,
        &[
            &format!(r#"{duration},le="0.32"}} 0"#),
            &format!(r#"{duration},le="0.64"}} 1 {exemplar} 0.502 {then}"#),
            &format!(r#"{duration},le="+Inf"}} 1"#),
            &format!(r#"{first},le="0.1"}} 0"#),
            &format!(r#"{first},le="0.25"}} 1 {exemplar} 0.102 {then}"#),
            // 398 ms for the four tokens after the first.
            &format!(r#"{each},le="0.075"}} 0"#),
            &format!(r#"{each},le="0.1"}} 1 {exemplar} 0.0995 {then}"#),
            &format!(r#"{usage}="input",le="16.0"}} 1 {exemplar} 10.0 {then}"#),
            &format!(r#"{usage}="output",le="16.0"}} 1 {exemplar} 5.0 {then}"#),
        ],
    );
    for (family, buckets) in [(duration, 15), (first, 17), (each, 14)] {
        let lines = written.lines().filter(|line| line.starts_with(&family)).count();
        assert_eq!(lines, buckets, "{family}");
    }
    assert_eq!(written.lines().filter(|line| line.starts_with(&usage)).count(), 2 * 15);
}

#[test]
fn what_was_not_answered_whole_has_an_error_and_no_times() {
    let failed = Outcome::Failed { kind: ErrorKind::Internal, message: String::new() };
    for (outcome, error) in [
        (failed, "internal_error"),
        (Outcome::ClientGone, "client_gone"),
        (Outcome::Aborted, "aborted"),
    ] {
        let written = text(&[ended(outcome)]);
        let counted = format!(
            r#"gen_ai_server_request_duration_seconds_count{{gen_ai_operation_name="chat",gen_ai_provider_name="tollgate",gen_ai_request_model="mistral-7b",gen_ai_response_model="demo",error_type="{error}"}} 1"#
        );
        assert_lines(&written, &[&counted]);
        assert!(!written.contains("gen_ai_server_time"), "{error}");
        assert!(written.contains("gen_ai_client_token_usage_sum"), "{error}");
    }
}

#[test]
fn estimated_tokens_are_not_reported_as_usage() {
    let mut record = record();
    record.usage.as_mut().unwrap().source = UsageSource::Estimated;
    let written = text(&[record]);
    assert!(!written.contains("gen_ai_client_token_usage"));
    assert!(written.contains("llm_total_tokens_total"));
}

#[test]
fn a_refused_request_takes_no_place() {
    let written = text(&[refused(ErrorKind::ModelNotFound), record()]);
    assert_lines(
        &written,
        &[
            r#"tollgate_requests_total{outcome="refused",cost_status="unpriced"} 1"#,
            r#"gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="tollgate",gen_ai_request_model="other",gen_ai_response_model="",error_type="model_not_found"} 1"#,
            r#"llm_total_tokens_total{llm_model="mistral-7b",llm_user="acme"} 15"#,
            r#"vllm:request_success_total{model_name="demo",finished_reason="stop"} 1"#,
            r#"tollgate_metrics_names_left_out_total{of="model"} 0"#,
        ],
    );
    assert!(!written.contains("tollgate_requests_unpriced"), "it was never served");
    let after = text(&[record(), refused(ErrorKind::Overloaded)]);
    assert!(after.contains(
        r#"gen_ai_request_model="mistral-7b",gen_ai_response_model="",error_type="overloaded""#
    ));
}

#[test]
fn the_engine_is_told_of_in_vllms_words() {
    let length = Outcome::Completed { reason: Some(FinishReason::Length) };
    let failed = Outcome::Failed { kind: ErrorKind::Internal, message: String::new() };
    let written = text(&[
        record(),
        ended(length),
        ended(Outcome::ClientGone),
        ended(failed),
        ended(Outcome::Aborted),
    ]);
    let by = r#"{model_name="demo""#;
    assert_lines(
        &written,
        &[
            &format!("vllm:prompt_tokens_total{by}}} 40"),
            &format!("vllm:prompt_tokens_cached_total{by}}} 16"),
            &format!("vllm:generation_tokens_total{by}}} 20"),
            &format!(r#"vllm:request_success_total{by},finished_reason="stop"}} 1"#),
            &format!(r#"vllm:request_success_total{by},finished_reason="length"}} 1"#),
            &format!(r#"vllm:request_success_total{by},finished_reason="abort"}} 1"#),
            &format!(r#"vllm:request_success_total{by},finished_reason="error"}} 1"#),
        ],
    );
    // Each value of the four, by the family that has it.
    for (family, value) in [
        ("request_prompt_tokens", 10.0),
        ("request_generation_tokens", 5.0),
        ("time_to_first_token_seconds", 0.102),
        ("request_time_per_output_token_seconds", 0.1),
        ("e2e_request_latency_seconds", 0.5),
        ("request_queue_time_seconds", 0.04),
        ("request_inference_time_seconds", 0.46),
        ("request_prefill_time_seconds", 0.06),
        ("request_decode_time_seconds", 0.4),
    ] {
        let sum = values(&written, &format!("vllm:{family}_sum"));
        assert!((sum[0] - 4.0 * value).abs() < 1e-9, "{family}: {sum:?}");
        assert_eq!(values(&written, &format!("vllm:{family}_count")), [4.0], "{family}");
    }
}

#[test]
fn a_phase_that_was_not_reached_is_not_counted() {
    let mut gone = ended(Outcome::ClientGone);
    gone.phases = Phases { prefill: None, decode: None, first_token: None, ..gone.phases };
    gone.usage.as_mut().unwrap().tokens = TokenUsage::default();
    let written = text(&[gone]);
    for family in ["prefill_time", "decode_time", "inference_time", "time_per_output_token"] {
        let count = values(&written, &format!("vllm:request_{family}_seconds_count"));
        assert_eq!(count, [0.0], "{family}");
    }
    assert_eq!(values(&written, "vllm:e2e_request_latency_seconds_sum"), [0.04]);
}

#[test]
fn the_gateways_own_time_and_load_are_there() {
    let meters = RequestMeters::default();
    let mut streamed = record();
    streamed.asked.stream = true;
    streamed.operation = Operation::TextCompletion;
    meters.count(&record(), Some(Duration::from_micros(700)));
    meters.count(&streamed, Some(Duration::from_millis(3)));
    meters.count(&refused(ErrorKind::Overloaded), None);
    let load = EngineLoad { model: "demo", running: 3, waiting: 7 };
    let sources = Sources { engines: &[load], in_flight: 11, ..nothing(&meters) };
    let plain = r#"tollgate_gateway_overhead_seconds_bucket{operation="chat",stream="false""#;
    assert_lines(
        &written(&sources),
        &[
            &format!(r#"{plain},le="0.0005"}} 0"#),
            &format!(
                r#"{plain},le="0.001"}} 1 # {{trace_id="00000000000000000000000000000abc",span_id="0000000000000def"}} 0.0007 1700000000.502"#
            ),
            r#"tollgate_gateway_overhead_seconds_sum{operation="text_completion",stream="true"} 0.003"#,
            r#"vllm:num_requests_running{model_name="demo"} 3.0"#,
            r#"vllm:num_requests_waiting{model_name="demo"} 7.0"#,
            "tollgate_requests_in_flight 11.0",
            concat!("tollgate_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1.0"),
        ],
    );
}
