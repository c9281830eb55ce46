//! One request's usage in, exact money out.
//!
//! A request crosses alone, and its `now` is its own start, so that computing a price again gives the same answer.

use std::sync::Arc;

use tollgate_domain::text::one_line;
use tollgate_domain::usage::{ComputeUsage, Phase, TokenUsage, UnitUsage, UsageSource};
use tollgate_domain::{
    Cost, CostKind, CostLine, CostOutcome, Currency, FaultKind, Money, UnixNanos, UnpricedReason,
    Usage,
};

use crate::bindings::{cost_model as wit, types};
use crate::calls::Price;
use crate::error::CallFault;
use crate::limits::Limits;
use crate::loaded::{Caller, Loaded};
use crate::lower::text;
use crate::role::Role;
use crate::wire::Whole;

/// Room for the text of most requests.
const ARENA: usize = 192;

/// What one cost model answered.
pub(crate) enum Answer {
    Cost(Vec<CostLine>, Money),
    Unpriced(UnpricedReason),
}

/// Asks cost models in order. The first that does not answer `unpriced` decides, and so does one that fails: falling
/// through to the next would bill by a price list that was not meant.
pub(crate) fn price<'a>(
    models: impl Iterator<Item = &'a Loaded>,
    tenant: Option<&str>,
    usage: &Usage,
) -> CostOutcome {
    let mut reason = UnpricedReason::NoCostPlugin;
    for model in models {
        match one(model, tenant, usage, false) {
            // The first answer is the most telling: it comes from the model that the operator put first.
            CostOutcome::Unpriced { reason: why } if reason == UnpricedReason::NoCostPlugin => {
                reason = why;
            }
            CostOutcome::Unpriced { .. } => {}
            decided => return decided,
        }
    }
    CostOutcome::Unpriced { reason }
}

/// What one cost model says. A trial is counted nowhere and asks no breaker.
pub(crate) fn one(model: &Loaded, tenant: Option<&str>, usage: &Usage, trial: bool) -> CostOutcome {
    match ask(model, tenant, usage, trial) {
        Ok(Answer::Cost(lines, total)) => {
            let (plugin, config_digest) =
                (Arc::clone(&model.identity), model.config_digest.clone());
            let cost = Cost { total, lines, plugin, config_digest };
            match usage.source {
                UsageSource::Estimated => CostOutcome::Estimated(cost),
                UsageSource::Reported | UsageSource::Counted => CostOutcome::Priced(cost),
            }
        }
        Ok(Answer::Unpriced(reason)) => CostOutcome::Unpriced { reason },
        Err(fault) => CostOutcome::PluginFailed(fault.of(&model.identity)),
    }
}

/// Whether a cost model can answer at all.
pub(crate) fn try_out(model: &Loaded) -> Result<(), CallFault> {
    let usage = Usage {
        provider: "tollgate".to_owned(),
        request_model: "tollgate-trial".to_owned(),
        response_model: "tollgate-trial".to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_750_000_000_000_000_000),
        tokens: TokenUsage { input: 12, output: 34, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    };
    ask(model, None, &usage, true).map(|_| ())
}

fn ask(
    model: &Loaded,
    tenant: Option<&str>,
    usage: &Usage,
    trial: bool,
) -> Result<Answer, CallFault> {
    // Text of its own would cost a call more than the price does: the host has to ask the guest for room for each piece.
    let mut arena = Vec::with_capacity(ARENA);
    let units: Vec<_> = usage.units.iter().map(|of| unit(of, &mut arena)).collect();
    let tenant_at = tenant.map(|tenant| text(&mut arena, tenant));
    let usage_at = lower(usage, &units, &mut arena);
    let context = wit::PriceContext { tenant: tenant_at, now: usage.start.0 };
    model.call(
        Caller { role: Role::CostModel, tenant, items: 1, trial },
        |instance| match &instance.functions.cost_model {
            Some(functions) => {
                let price: Price<'_> = functions.price;
                price.call(&mut instance.store, (Whole(context), Whole(usage_at), &arena))
            }
            None => Err(wasmtime::Error::msg("not a cost model")),
        },
        |(answer,)| lift(answer, model.currency, model.limits()),
    )
}

fn lower<'a>(usage: &Usage, units: &'a [wit::UnitUsage], arena: &mut Vec<u8>) -> wit::Usage<'a> {
    let tokens = &usage.tokens;
    let request_model = text(arena, &usage.request_model);
    wit::Usage {
        provider: text(arena, &usage.provider),
        request_model,
        response_model: match usage.response_model == usage.request_model {
            true => request_model,
            false => text(arena, &usage.response_model),
        },
        operation: text(arena, &usage.operation),
        service_tier: usage.service_tier.as_ref().map(|tier| text(arena, tier)),
        phase: match usage.phase {
            Phase::Interim => wit::Phase::Interim,
            Phase::Final => wit::Phase::Final,
            Phase::Interrupted => wit::Phase::Interrupted,
        },
        source: match usage.source {
            UsageSource::Reported => wit::UsageSource::Reported,
            UsageSource::Counted => wit::UsageSource::Counted,
            UsageSource::Estimated => wit::UsageSource::Estimated,
        },
        start: usage.start.0,
        tokens: wit::TokenUsage {
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
        compute: usage.compute.as_ref().map(|of| compute(of, arena)),
        units: (!units.is_empty()).then_some(units),
    }
}

fn compute(compute: &ComputeUsage, arena: &mut Vec<u8>) -> wit::ComputeUsage {
    wit::ComputeUsage {
        device: text(arena, &compute.device),
        device_time: compute.device_time_nanos,
        share_ppm: compute.share_ppm,
        energy_millijoules: compute.energy_millijoules,
    }
}

fn unit(unit: &UnitUsage, arena: &mut Vec<u8>) -> wit::UnitUsage {
    wit::UnitUsage { unit: text(arena, &unit.unit), quantity_micros: unit.quantity_micros }
}

/// Checks what came back.
pub(crate) fn lift(
    answer: Result<wit::Priced, types::PluginError>,
    currency: Currency,
    limits: &Limits,
) -> Result<Answer, CallFault> {
    match answer.map_err(|error| reported(&error))? {
        wit::Priced::Cost(lines) => {
            let most = limits.cost_lines;
            if lines.len() > most {
                let why = format!("{} lines of cost; at most {most} are taken", lines.len());
                return Err(CallFault::invalid(why));
            }
            let total = sum(&lines)?;
            let lines = lines.into_iter().map(line).collect();
            Ok(Answer::Cost(lines, Money::new(total, currency)))
        }
        wit::Priced::Unpriced(reason) => Ok(Answer::Unpriced(match reason {
            wit::UnpricedReason::UnknownModel => UnpricedReason::UnknownModel,
            wit::UnpricedReason::MissingUsage => UnpricedReason::MissingUsage,
            wit::UnpricedReason::NotBillable => UnpricedReason::NotBillable,
        })),
        wit::Priced::Failed(why) => {
            Err(CallFault::new(FaultKind::Reported, one_line(&why, 512)).blameless())
        }
    }
}

/// In 128 bits, which a few lines of 64 cannot overflow; a total beyond what one line could say is nobody's bill.
fn sum(lines: &[wit::CostLine]) -> Result<i128, CallFault> {
    let total: i128 = lines.iter().map(|line| i128::from(line.amount)).sum();
    if total.unsigned_abs() > u128::from(i64::MAX.unsigned_abs()) {
        return Err(CallFault::new(
            FaultKind::Overflow,
            format!("its lines add up to {total} pico-units"),
        ));
    }
    Ok(total)
}

fn line(line: wit::CostLine) -> CostLine {
    CostLine { kind: kind(line.kind), quantity: line.quantity, amount_pico: line.amount }
}

fn kind(kind: wit::CostKind) -> CostKind {
    match kind {
        wit::CostKind::Input => CostKind::Input,
        wit::CostKind::InputCacheRead => CostKind::InputCacheRead,
        wit::CostKind::InputCacheWrite => CostKind::InputCacheWrite,
        wit::CostKind::InputAudio => CostKind::InputAudio,
        wit::CostKind::InputImage => CostKind::InputImage,
        wit::CostKind::Output => CostKind::Output,
        wit::CostKind::OutputReasoning => CostKind::OutputReasoning,
        wit::CostKind::OutputAudio => CostKind::OutputAudio,
        wit::CostKind::OutputImage => CostKind::OutputImage,
        wit::CostKind::Compute => CostKind::Compute,
        wit::CostKind::Energy => CostKind::Energy,
        wit::CostKind::Unit => CostKind::Unit,
        wit::CostKind::Request => CostKind::Request,
        wit::CostKind::Discount => CostKind::Discount,
        wit::CostKind::Markup => CostKind::Markup,
        wit::CostKind::Other => CostKind::Other,
    }
}

/// A failure that the plugin itself reported.
pub(crate) fn reported(error: &types::PluginError) -> CallFault {
    let (what, why) = match error {
        types::PluginError::Unsupported(why) => ("unsupported", why),
        types::PluginError::InvalidInput(why) => ("invalid input", why),
        types::PluginError::Unavailable(why) => ("unavailable", why),
        types::PluginError::Internal(why) => ("internal", why),
    };
    CallFault::new(FaultKind::Reported, format!("{what}: {}", one_line(why, 512)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(amounts: &[i64]) -> Vec<wit::CostLine> {
        amounts
            .iter()
            .map(|&amount| wit::CostLine { kind: wit::CostKind::Input, quantity: 1, amount })
            .collect()
    }

    #[test]
    fn sums_are_exact_or_refused() {
        assert_eq!(sum(&lines(&[i64::MAX, 1, -1])).unwrap(), i128::from(i64::MAX));
        assert_eq!(sum(&lines(&[])).unwrap(), 0);
        for absurd in [&[i64::MAX, i64::MAX][..], &[i64::MIN], &[i64::MIN, i64::MIN]] {
            assert_eq!(sum(&lines(absurd)).unwrap_err().kind, FaultKind::Overflow);
        }
    }
}
