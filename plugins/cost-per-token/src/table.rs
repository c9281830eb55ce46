//! The price table: what an operator writes, and which entry a request gets.
//!
//! Entries are tried in the order they stand in, those that name a tenant before those that do not, and the first one
//! whose every condition holds is used. So an exception for one tenant needs no regard for the order of the rest, and a
//! service tier, a date range or one dated snapshot of a model stands before the entry it is an exception to. When nothing
//! matches, `default` is used; without one the request is `unpriced`, which is told apart from free everywhere.

use crate::{
    dated::undated,
    instant::Instant,
    rates::{Rates, Tier},
};
use serde::Deserialize;
use tollgate_plugin::{
    Config, ConfigError, Cost, CostKind, Pattern, TokenUsage, Usage,
    money::{Currency, Percent, Price, Request},
};

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Of every price; a price that names another one is an error.
    #[serde(default = "dollars")]
    pub(crate) currency: Currency,
    #[serde(default)]
    pub(crate) price_by: PriceBy,
    models: Option<Vec<Entry>>,
    default: Option<Entry>,
}

fn dollars() -> Currency {
    Currency::USD
}

/// Whose name is looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PriceBy {
    /// The model that another server was asked for: what clients call it is an alias, whose price would be another model's.
    /// Of a model in the gateway's own process the name it was asked for by.
    #[default]
    Resolved,
    /// The model that the client asked for. An alias has its own price then, whatever stands behind it.
    Request,
    /// The model that served.
    Response,
}

/// One row, with its prices put together.
#[derive(Debug, Deserialize)]
#[serde(from = "Row")]
pub(crate) struct Entry {
    row: Row,
    rates: Rates,
    /// The rates once the input is longer than so many tokens.
    tiers: Vec<(u64, Rates)>,
}

/// As the operator writes it: conditions, prices, and what is taken off or put on top. A condition that is missing always
/// holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(rename = "match")]
    model: Option<Pattern>,
    provider: Option<Pattern>,
    operation: Option<Pattern>,
    /// A request that names no tier is of the tier `standard`.
    service_tier: Option<Pattern>,
    tenant: Option<Pattern>,
    /// Compared with the time the request began.
    effective_from: Option<Instant>,
    /// The first moment at which the entry no longer holds.
    effective_until: Option<Instant>,

    input: Price,
    output: Price,
    cache_read: Option<Price>,
    cache_write: Option<Price>,
    input_audio: Option<Price>,
    input_image: Option<Price>,
    reasoning: Option<Price>,
    output_audio: Option<Price>,
    output_image: Option<Price>,
    /// Other prices for the whole request once its input is longer than so many tokens.
    #[serde(default)]
    context_over: Vec<Tier>,

    /// A fee for each request that used any token.
    request: Option<Price<Request>>,
    /// Taken off the sum of the lines above.
    discount: Option<Percent>,
    /// Put on what is left.
    markup: Option<Percent>,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        let rates = Rates {
            input: row.input,
            output: row.output,
            cache_read: row.cache_read,
            cache_write: row.cache_write,
            input_audio: row.input_audio,
            input_image: row.input_image,
            reasoning: row.reasoning,
            output_audio: row.output_audio,
            output_image: row.output_image,
        };
        let tiers = row.context_over.iter().map(|tier| (tier.tokens, rates.over(tier))).collect();
        Self { row, rates, tiers }
    }
}

impl Table {
    /// Reads and checks a configuration.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let mut table: Self = config.parse()?;
        if table.models.is_none() && table.default.is_none() {
            if table.currency != Currency::USD {
                let message =
                    "the built-in table is in USD; give `models` or `default` with prices of yours";
                return Err(ConfigError::invalid("/currency", message));
            }
            let built_in: Self = config.parse_text(include_str!("tutorial.json"))?;
            table = Self { price_by: table.price_by, ..built_in };
        }
        for (index, entry) in table.models.iter().flatten().enumerate() {
            entry.check(&format!("/models/{index}"), table.currency)?;
        }
        if let Some(default) = &table.default {
            if default.has_conditions() {
                let message = "the default applies to whatever nothing else matches; conditions belong in `models`";
                return Err(ConfigError::invalid("/default", message));
            }
            default.check("/default", table.currency)?;
        }
        // Stable, so that each half keeps its order.
        table
            .models
            .iter_mut()
            .for_each(|models| models.sort_by_key(|entry| entry.row.tenant.is_none()));
        Ok(table)
    }

    /// The entry for a request, if any applies.
    pub(crate) fn entry(&self, tenant: Option<&str>, usage: &Usage<'_>) -> Option<&Entry> {
        let model = match self.price_by {
            PriceBy::Resolved => usage.model(),
            PriceBy::Request => usage.request_model,
            PriceBy::Response => usage.response_model,
        };
        let names = (model, undated(model, usage.request_model));
        let mut entries = self.models.iter().flatten();
        entries.find(|entry| entry.applies(tenant, names, usage)).or(self.default.as_ref())
    }
}

impl Entry {
    /// Adds the lines of one request.
    pub(crate) fn charge(&self, cost: &mut Cost, tokens: &TokenUsage) {
        // Tiers ascend, so the last one that is exceeded counts.
        let tier = self.tiers.iter().rev().find(|(over, _)| tokens.input > *over);
        tier.map_or(&self.rates, |(_, rates)| rates).charge(cost, tokens);
        if let Some(fee) = self.row.request {
            cost.line(CostKind::Request, 1, fee);
        }
        if let Some(percent) = self.row.discount {
            cost.discount(percent);
        }
        if let Some(percent) = self.row.markup {
            cost.markup(percent);
        }
    }

    fn applies(
        &self,
        tenant: Option<&str>,
        (model, undated): (&str, Option<&str>),
        usage: &Usage<'_>,
    ) -> bool {
        let holds = |condition: &Option<Pattern>, value: &str| {
            condition.as_ref().is_none_or(|p| p.matches(value))
        };
        // One pass over both names, so that what stands first still is the exception to what stands after it.
        (holds(&self.row.model, model) || undated.is_some_and(|name| holds(&self.row.model, name)))
            // A request of nobody is not one of a tenant whose name happens to match `*`.
            && self.row.tenant.as_ref().is_none_or(|pattern| tenant.is_some_and(|tenant| pattern.matches(tenant)))
            && holds(&self.row.provider, usage.provider)
            && holds(&self.row.operation, usage.operation)
            && holds(&self.row.service_tier, usage.service_tier.unwrap_or("standard"))
            && self.row.effective_from.is_none_or(|from| from.nanos() <= usage.start)
            && self.row.effective_until.is_none_or(|until| usage.start < until.nanos())
    }

    fn has_conditions(&self) -> bool {
        let patterns = [
            &self.row.model,
            &self.row.provider,
            &self.row.operation,
            &self.row.service_tier,
            &self.row.tenant,
        ];
        let dates = [self.row.effective_from, self.row.effective_until];
        patterns.into_iter().any(Option::is_some) || dates.into_iter().any(|date| date.is_some())
    }

    /// What a type cannot say: one currency throughout, tiers that ascend, dates in order.
    fn check(&self, pointer: &str, currency: Currency) -> Result<(), ConfigError> {
        self.rates.check(pointer, currency)?;
        if let Some(fee) = self.row.request {
            currency
                .check(fee)
                .map_err(|message| ConfigError::invalid(format!("{pointer}/request"), message))?;
        }
        for (index, (_, rates)) in self.tiers.iter().enumerate() {
            rates.check(&format!("{pointer}/context_over/{index}"), currency)?;
        }
        if !self.tiers.is_sorted_by(|(a, _), (b, _)| a < b) {
            let message = "the tiers have to be in ascending order of `tokens`";
            return Err(ConfigError::invalid(format!("{pointer}/context_over"), message));
        }
        if let (Some(from), Some(until)) = (self.row.effective_from, self.row.effective_until)
            && from >= until
        {
            let message = "this is not after `effective_from`, so the entry would never hold";
            return Err(ConfigError::invalid(format!("{pointer}/effective_until"), message));
        }
        Ok(())
    }
}
