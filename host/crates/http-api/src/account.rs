//! What a request used and cost, as the last words of an answer say it.
//!
//! Amounts are written digit by digit from exact money: no double is on the way, also where JSON
//! shows a number.

use serde::Serialize;
use serde_json::value::RawValue;
use tollgate_domain::{CostOutcome, Currency, Money, PluginIdentity, TokenUsage, TraceId};

/// OpenAI's `usage`.
#[derive(Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl From<&TokenUsage> for Usage {
    fn from(tokens: &TokenUsage) -> Self {
        Self {
            prompt_tokens: tokens.input,
            completion_tokens: tokens.output,
            total_tokens: tokens.total(),
            prompt_tokens_details: PromptDetails { cached_tokens: tokens.input_cache_read },
            completion_tokens_details: CompletionDetails {
                reasoning_tokens: tokens.output_reasoning,
            },
        }
    }
}

/// The fields that stand at the top of an answer, beside OpenAI's own.
#[derive(Serialize)]
pub(crate) struct Account<'a> {
    prompt_tokens: u64,
    completion_tokens: u64,
    /// A number with the exact digits; null if there is no amount in dollars.
    estimated_cost_usd: Option<Box<RawValue>>,
    cost: Cost<'a>,
    trace_id: String,
}

impl<'a> Account<'a> {
    pub(crate) fn new(tokens: &TokenUsage, cost: &'a CostOutcome, trace_id: TraceId) -> Self {
        Self {
            prompt_tokens: tokens.input,
            completion_tokens: tokens.output,
            estimated_cost_usd: cost.cost().and_then(|cost| dollars(&cost.total)),
            cost: Cost::from(cost),
            trace_id: trace_id.to_string(),
        }
    }
}

fn dollars(money: &Money) -> Option<Box<RawValue>> {
    (money.currency == Currency::USD).then(|| RawValue::from_string(money.decimal()).ok())?
}

/// The cost with its status; the amount a string, since JSON's numbers are doubles to most
/// readers. What a plugin said about its own failure is the operator's to know, not the client's.
#[derive(Serialize)]
struct Cost<'a> {
    status: &'static str,
    #[serde(flatten)]
    total: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a PluginIdentity>,
}

impl<'a> From<&'a CostOutcome> for Cost<'a> {
    fn from(outcome: &'a CostOutcome) -> Self {
        let plugin = match outcome {
            CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => Some(&*cost.plugin),
            CostOutcome::PluginFailed(fault) => Some(&fault.plugin),
            CostOutcome::Unpriced { .. } => None,
        };
        Self {
            status: outcome.status(),
            total: outcome.cost().map(|cost| cost.total),
            reason: outcome.reason(),
            plugin,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tollgate_domain::{
        Cost as DomainCost, FaultKind, PluginFault, UnpricedReason, cost::CostLine,
    };

    use super::*;

    pub(crate) fn plugin() -> PluginIdentity {
        PluginIdentity {
            name: "tollgate/cost-per-token".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "ab12".to_owned(),
        }
    }

    pub(crate) fn priced(pico: i128, currency: &str) -> CostOutcome {
        let total = Money::new(pico, Currency::parse(currency).unwrap());
        CostOutcome::Priced(DomainCost {
            total,
            lines: Vec::<CostLine>::new(),
            plugin: plugin().into(),
            config_digest: None,
        })
    }

    pub(crate) fn tokens() -> TokenUsage {
        TokenUsage { input: 12, input_cache_read: 4, output: 3, ..TokenUsage::default() }
    }

    fn written(cost: &CostOutcome) -> (String, String) {
        let account = Account::new(&tokens(), cost, TraceId(1));
        let cost = serde_json::to_string(&account.cost).unwrap();
        (serde_json::to_string(&account.estimated_cost_usd).unwrap(), cost)
    }

    #[test]
    fn every_cost_has_a_status_and_exact_digits() {
        let fault = PluginFault {
            plugin: plugin(),
            kind: FaultKind::Deadline,
            message: "for the operator only".to_owned(),
        };
        let by = r#""plugin":{"name":"tollgate/cost-per-token","version":"0.1.0","digest":"ab12"}"#;
        let cases = [
            (
                priced(3_600_000, "USD"),
                "0.0000036",
                format!(r#"{{"status":"priced","amount":"0.0000036","currency":"USD",{by}}}"#),
            ),
            (
                // More digits than a double has.
                priced(123_456_789_012_345_678_901_234, "USD"),
                "123456789012.345678901234",
                format!(
                    r#"{{"status":"priced","amount":"123456789012.345678901234","currency":"USD",{by}}}"#
                ),
            ),
            (
                priced(-1_500_000_000_000, "EUR"),
                "null",
                format!(r#"{{"status":"priced","amount":"-1.5","currency":"EUR",{by}}}"#),
            ),
            (
                CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel },
                "null",
                r#"{"status":"unpriced","reason":"unknown_model"}"#.to_owned(),
            ),
            (
                CostOutcome::PluginFailed(fault),
                "null",
                format!(r#"{{"status":"plugin_failed","reason":"deadline",{by}}}"#),
            ),
        ];
        for (outcome, dollars, cost) in cases {
            assert_eq!(written(&outcome), (dollars.to_owned(), cost));
        }
    }
}
