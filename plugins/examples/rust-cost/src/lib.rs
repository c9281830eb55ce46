//! rust-cost: what a request cost, from a price list in its configuration.

use serde::Deserialize;
use tollgate_plugin::money::{Currency, Price};
use tollgate_plugin::{
    Config, ConfigError, Context, Cost, CostKind, CostModel, Phase, Plugin, PluginInfo, Priced,
    TokenUsage, UnpricedReason, Usage,
};

/// The configuration; `config.schema.json` says the same to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceList {
    #[serde(default = "dollars")]
    currency: Currency,
    #[serde(default)]
    models: Vec<Row>,
    /// For every other model; without it such requests are unpriced.
    default: Option<Row>,
}

/// What one model costs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default, rename = "match")]
    model: String,
    input: Price,
    output: Price,
    cache_read: Option<Price>,
}

fn dollars() -> Currency {
    Currency::USD
}

impl Plugin for PriceList {
    fn describe() -> PluginInfo {
        PluginInfo::new("acme/rust-cost", env!("CARGO_PKG_VERSION"))
            .description("A price list")
            .config_schema(include_str!("../config.schema.json"))
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        let list: Self = config.parse()?;
        for (index, row) in list.models.iter().enumerate() {
            row.check(&format!("/models/{index}"), list.currency)?;
        }
        list.default.iter().try_for_each(|row| row.check("/default", list.currency))?;
        Ok(list)
    }
}

impl CostModel for PriceList {
    fn currency(&self) -> Currency {
        self.currency
    }

    fn price(&self, _: &Context<'_>, usage: &Usage<'_>) -> Priced {
        let row = self.models.iter().find(|row| row.model == usage.model());
        let Some(row) = row.or(self.default.as_ref()) else {
            return UnpricedReason::UnknownModel.into();
        };
        if usage.tokens.input == 0 && usage.tokens.output == 0 && usage.phase == Phase::Final {
            // A request that ended normally read at least one token, so nobody counted.
            return UnpricedReason::MissingUsage.into();
        }
        row.charge(usage.tokens).finish()
    }
}

impl Row {
    /// One line for each count. Cached tokens are part of the input, so they are charged once, on their own line.
    fn charge(&self, tokens: &TokenUsage) -> Cost {
        let mut cost = Cost::new();
        if tokens.uncached_input().is_none() {
            cost.fail("more cached input tokens than input tokens");
        }
        let cached = if self.cache_read.is_some() { tokens.input_cache_read } else { 0 };
        let lines = [
            (CostKind::Input, tokens.input.saturating_sub(cached), Some(self.input)),
            (CostKind::InputCacheRead, cached, self.cache_read),
            (CostKind::Output, tokens.output, Some(self.output)),
        ];
        for (kind, count, price) in lines {
            if let Some(price) = price
                && count > 0
            {
                cost.line(kind, count, price);
            }
        }
        cost
    }

    fn check(&self, pointer: &str, currency: Currency) -> Result<(), ConfigError> {
        let prices = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cache_read", self.cache_read),
        ];
        prices.into_iter().try_for_each(|(key, price)| {
            let checked = price.map_or(Ok(()), |price| currency.check(price));
            checked.map_err(|message| ConfigError::invalid(format!("{pointer}/{key}"), message))
        })
    }
}

tollgate_plugin::export_plugin!(PriceList: CostModel);

#[cfg(test)]
mod tests {
    use super::PriceList;
    use tollgate_plugin::testing::{Case, Configured};

    #[test]
    fn tokens_are_charged_once() {
        let list = r#"{ "default": { "input": "$2/M", "output": "$8/M", "cache_read": "$1/M" } }"#;
        let plugin = Configured::<PriceList>::configure(list).unwrap();
        let cached = Case::usage("m").tokens(1000, 0).with(|u| u.tokens.input_cache_read = 400);
        assert_eq!(plugin.price(cached), Ok("0.0016".into()));
        assert_eq!(plugin.price(Case::usage("m").tokens(0, 0)), Err("MissingUsage".into()));
    }
}
