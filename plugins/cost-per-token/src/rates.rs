//! What is charged for which tokens.
//!
//! Cached, reasoning, audio and image tokens are parts of the totals. A part that has a price of its own is taken out of
//! its total and charged on its own line; a part that has none stays in and costs what the total costs. Either way each
//! token is charged once. The parts are taken to be apart from each other; counts that contradict this fail the item
//! rather than charge a token twice.

use serde::Deserialize;
use tollgate_plugin::{
    ConfigError, Cost, CostKind, TokenUsage,
    money::{Currency, Price},
};

/// Prices that apply to one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) input: Price,
    pub(crate) output: Price,
    pub(crate) cache_read: Option<Price>,
    pub(crate) cache_write: Option<Price>,
    pub(crate) input_audio: Option<Price>,
    pub(crate) input_image: Option<Price>,
    pub(crate) reasoning: Option<Price>,
    pub(crate) output_audio: Option<Price>,
    pub(crate) output_image: Option<Price>,
}

/// Prices for a long context; those that are missing stay what the entry says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tier {
    /// The tier holds for input longer than this.
    pub(crate) tokens: u64,
    input: Option<Price>,
    output: Option<Price>,
    cache_read: Option<Price>,
    cache_write: Option<Price>,
    reasoning: Option<Price>,
}

impl Rates {
    /// With the prices of a tier in place.
    pub(crate) fn over(self, tier: &Tier) -> Self {
        Self {
            input: tier.input.unwrap_or(self.input),
            output: tier.output.unwrap_or(self.output),
            cache_read: tier.cache_read.or(self.cache_read),
            cache_write: tier.cache_write.or(self.cache_write),
            reasoning: tier.reasoning.or(self.reasoning),
            ..self
        }
    }

    /// Adds one line for each count that is charged.
    pub(crate) fn charge(&self, cost: &mut Cost, tokens: &TokenUsage) {
        if tokens.uncached_input().is_none() {
            cost.fail("more cached input tokens than input tokens");
        }
        charge_total(
            cost,
            (CostKind::Input, tokens.input, &self.input),
            &[
                (CostKind::InputCacheRead, tokens.input_cache_read, &self.cache_read),
                (CostKind::InputCacheWrite, tokens.input_cache_write, &self.cache_write),
                (CostKind::InputAudio, tokens.input_audio, &self.input_audio),
                (CostKind::InputImage, tokens.input_image, &self.input_image),
            ],
        );
        charge_total(
            cost,
            (CostKind::Output, tokens.output, &self.output),
            &[
                (CostKind::OutputReasoning, tokens.output_reasoning, &self.reasoning),
                (CostKind::OutputAudio, tokens.output_audio, &self.output_audio),
                (CostKind::OutputImage, tokens.output_image, &self.output_image),
            ],
        );
    }

    pub(crate) fn check(self, pointer: &str, currency: Currency) -> Result<(), ConfigError> {
        let prices = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("input_audio", self.input_audio),
            ("input_image", self.input_image),
            ("reasoning", self.reasoning),
            ("output_audio", self.output_audio),
            ("output_image", self.output_image),
        ];
        prices.into_iter().try_for_each(|(key, price)| {
            let checked = price.map_or(Ok(()), |price| currency.check(price));
            checked.map_err(|message| ConfigError::invalid(format!("{pointer}/{key}"), message))
        })
    }
}

/// Charges the parts that have a price of their own, and the rest of the total at the total's.
fn charge_total(
    cost: &mut Cost,
    (kind, total, price): (CostKind, u64, &Price),
    parts: &[(CostKind, u64, &Option<Price>)],
) {
    let counted = || parts.iter().filter(|(_, quantity, _)| *quantity > 0);
    let mut rest = total;
    for &(part, quantity, own_price) in counted() {
        let apart = if own_price.is_some() { quantity } else { 0 };
        match rest.checked_sub(apart) {
            Some(left) if quantity <= total => rest = left,
            _ => return cost.fail(does_not_fit(part, quantity, kind, total)),
        }
    }
    if rest > 0 {
        cost.line(kind, rest, *price);
    }
    if rest < total {
        for &(part, quantity, own_price) in counted() {
            if let Some(own_price) = *own_price {
                cost.line(part, quantity, own_price);
            }
        }
    }
}

#[cold]
fn does_not_fit(part: CostKind, quantity: u64, kind: CostKind, total: u64) -> String {
    format!("{quantity} tokens of {part:?} do not fit into {total} of {kind:?}")
}
