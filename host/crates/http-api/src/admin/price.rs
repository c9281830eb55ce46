//! A dry run: a usage record in, what one plugin would bill for it out.
//!
//! The body is a usage record as the gateway stores it, with a `tenant` beside it if the price
//! depends on one:
//!
//! ```json
//! {"request_model": "gpt-4o-mini", "tokens": {"input": 1000, "output": 200}, "tenant": "acme"}
//! ```
//!
//! Only `request_model` must be there. What is left out is what most requests have: no tokens of
//! that kind, no compute and no units, `operation` `chat`, `provider` `tollgate`, `phase` `final`,
//! `source` `reported`, `response_model` the one asked for, and `start` (nanoseconds since the
//! epoch; which price list applies) now. A name that is not known is refused.
//!
//! The answer:
//!
//! ```json
//! {"status": "priced", "amount": "0.00027", "currency": "USD",
//!  "lines": [{"kind": "input", "quantity": 1000, "amount": "0.00015"}],
//!  "plugin": {"name": "...", "version": "...", "digest": "..."}}
//! ```
//!
//! `status` is `priced`, `estimated`, `unpriced` (with `reason`) or `plugin_failed` (with the kind
//! of fault as `reason`, and `message`).

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tollgate_domain::usage::{ComputeUsage, Phase, TokenUsage, UnitUsage, UsageSource};
use tollgate_domain::{CostKind, CostOutcome, ErrorKind, Money, PluginIdentity, UnixNanos, Usage};
use tollgate_gateway::Refusal;

/// The posted usage.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a usage record, an object")]
struct Posted {
    request_model: String,
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    response_model: Option<String>,
    #[serde(default)]
    provider: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    phase: Option<Phase>,
    #[serde(default)]
    source: Option<UsageSource>,
    #[serde(default)]
    start: Option<UnixNanos>,
    #[serde(default)]
    tokens: Tokens,
    #[serde(default)]
    compute: Option<ComputeUsage>,
    #[serde(default)]
    units: Vec<UnitUsage>,
}

/// Token counts, those left out zero.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object of token counts")]
struct Tokens {
    input: u64,
    input_cache_read: u64,
    input_cache_write: u64,
    input_audio: u64,
    input_image: u64,
    output: u64,
    output_reasoning: u64,
    output_audio: u64,
    output_image: u64,
}

/// Reads the body: the tenant and the usage.
pub(super) fn read(body: &[u8]) -> Result<(Option<String>, Usage), Refusal> {
    let posted: Posted = serde_json::from_slice(body).map_err(|error| {
        let message = format!("The body is not a usage record: {error}.");
        Refusal::new(ErrorKind::InvalidRequest, message)
    })?;
    let tokens = posted.tokens;
    let usage = Usage {
        response_model: posted.response_model.unwrap_or_else(|| posted.request_model.clone()),
        request_model: posted.request_model,
        provider: posted.provider.unwrap_or_else(|| "tollgate".to_owned()),
        operation: posted.operation.unwrap_or_else(|| "chat".to_owned()),
        service_tier: posted.service_tier,
        phase: posted.phase.unwrap_or(Phase::Final),
        source: posted.source.unwrap_or(UsageSource::Reported),
        start: posted.start.unwrap_or_else(|| SystemTime::now().into()),
        tokens: TokenUsage {
            input: tokens.input,
            input_cache_read: tokens.input_cache_read,
            input_cache_write: tokens.input_cache_write,
            input_audio: tokens.input_audio,
            input_image: tokens.input_image,
            output: tokens.output,
            output_reasoning: tokens.output_reasoning,
            output_audio: tokens.output_audio,
            output_image: tokens.output_image,
        },
        compute: posted.compute,
        units: posted.units,
    };
    Ok((posted.tenant, usage))
}

/// What the plugin said.
#[derive(Serialize)]
pub(super) struct Answer {
    status: &'static str,
    #[serde(flatten)]
    total: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Line>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<PluginIdentity>,
}

#[derive(Serialize)]
struct Line {
    kind: CostKind,
    quantity: u64,
    amount: String,
}

impl From<CostOutcome> for Answer {
    fn from(outcome: CostOutcome) -> Self {
        let (status, reason) = (outcome.status(), outcome.reason());
        let nothing =
            Self { status, total: None, lines: None, reason, message: None, plugin: None };
        match outcome {
            CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => {
                let amount =
                    |pico: i64| Money::new(i128::from(pico), cost.total.currency).decimal();
                let lines = cost.lines.iter().map(|line| Line {
                    kind: line.kind,
                    quantity: line.quantity,
                    amount: amount(line.amount_pico),
                });
                let lines = Some(lines.collect());
                Self {
                    total: Some(cost.total),
                    lines,
                    plugin: Some(Arc::unwrap_or_clone(cost.plugin)),
                    ..nothing
                }
            }
            CostOutcome::Unpriced { .. } => nothing,
            CostOutcome::PluginFailed(fault) => {
                Self { message: Some(fault.message), plugin: Some(fault.plugin), ..nothing }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tollgate_domain::cost::CostLine;
    use tollgate_domain::{Cost, Currency, FaultKind, PluginFault, UnpricedReason};

    use super::*;

    #[test]
    fn a_stored_usage_is_read_as_it_is() {
        let stored = Usage {
            provider: "vllm".to_owned(),
            request_model: "m".to_owned(),
            response_model: "m-2".to_owned(),
            operation: "text_completion".to_owned(),
            service_tier: Some("batch".to_owned()),
            phase: Phase::Interrupted,
            source: UsageSource::Estimated,
            start: UnixNanos(1_750_000_000_000_000_000),
            tokens: TokenUsage { input: 9, input_cache_read: 4, output: 3, ..Default::default() },
            compute: Some(ComputeUsage {
                device: "cpu".to_owned(),
                device_time_nanos: 5,
                share_ppm: 1_000_000,
                energy_millijoules: None,
            }),
            units: vec![UnitUsage { unit: "image".to_owned(), quantity_micros: 7 }],
        };
        let mut body = serde_json::to_value(&stored).unwrap();
        assert_eq!(read(body.to_string().as_bytes()).unwrap(), (None, stored.clone()));
        body["tenant"] = json!("acme");
        let (tenant, usage) = read(body.to_string().as_bytes()).unwrap();
        assert_eq!((tenant.as_deref(), usage), (Some("acme"), stored));
    }

    #[test]
    fn what_is_left_out_is_what_most_requests_have() {
        let (tenant, usage) = read(br#"{"request_model": "m", "tokens": {"output": 2}}"#).unwrap();
        assert_eq!((tenant, usage.response_model.as_str()), (None, "m"));
        assert_eq!((usage.tokens.input, usage.tokens.output), (0, 2));
        assert!(usage.start.0 > 1_750_000_000_000_000_000);
        for (body, named) in [
            (r#"{}"#, "request_model"),
            (r#"{"request_model": "m", "tokns": {}}"#, "tokns"),
            (r#"{"request_model": "m", "tokens": {"inputs": 1}}"#, "inputs"),
            (r#"{"request_model": "m", "tokens": {"input": -1}}"#, "-1"),
            (r#"{"request_model": "m", "phase": "late"}"#, "late"),
            (r#"[]"#, "an object"),
            (r#"{"request_model""#, "line 1"),
        ] {
            let refusal = read(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::InvalidRequest);
            assert!(refusal.message.contains(named), "{body}: {}", refusal.message);
        }
    }

    #[test]
    fn the_answer_has_exact_digits() {
        let plugin = PluginIdentity {
            name: "acme/flat".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "ab".to_owned(),
        };
        let by = json!({"name": "acme/flat", "version": "1.0.0", "digest": "ab"});
        let line = CostLine { kind: CostKind::Input, quantity: 3, amount_pico: 1_500_000 };
        let total = Money::new(1_500_000, Currency::USD);
        let cost =
            Cost { total, lines: vec![line], plugin: plugin.clone().into(), config_digest: None };
        let fault =
            PluginFault { plugin, kind: FaultKind::Trap, message: "unreachable".to_owned() };
        let cases: [(CostOutcome, Value); 3] = [
            (
                CostOutcome::Priced(cost),
                json!({"status": "priced", "amount": "0.0000015", "currency": "USD",
                       "lines": [{"kind": "input", "quantity": 3, "amount": "0.0000015"}],
                       "plugin": by}),
            ),
            (
                CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel },
                json!({"status": "unpriced", "reason": "unknown_model"}),
            ),
            (
                CostOutcome::PluginFailed(fault),
                json!({"status": "plugin_failed", "reason": "trap", "message": "unreachable",
                       "plugin": by}),
            ),
        ];
        for (outcome, wanted) in cases {
            assert_eq!(serde_json::to_value(Answer::from(outcome)).unwrap(), wanted);
        }
    }
}
