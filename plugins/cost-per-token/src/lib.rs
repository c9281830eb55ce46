//! A cost model that prices tokens from a table.
//!
//! The table is the plugin's configuration; `config.schema.json` beside this file describes it, `table` says what each
//! key means and how an entry is chosen, `rates` what is charged. With an empty configuration the table is
//! `tutorial.json`, the price list that comes with the gateway.

mod dated;
mod instant;
mod rates;
mod table;
#[cfg(test)]
mod tests;

use table::Table;
use tollgate_plugin::{
    Config, ConfigError, Context, Cost, CostModel, Phase, Plugin, PluginInfo, Priced,
    UnpricedReason, Usage, money::Currency,
};

/// The plugin.
#[derive(Debug)]
struct CostPerToken(Table);

impl Plugin for CostPerToken {
    fn describe() -> PluginInfo {
        PluginInfo::new("tollgate/cost-per-token", env!("CARGO_PKG_VERSION"))
            .description(env!("CARGO_PKG_DESCRIPTION"))
            .config_schema(include_str!("config.schema.json"))
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        Table::read(&config).map(Self)
    }
}

impl CostModel for CostPerToken {
    fn currency(&self) -> Currency {
        self.0.currency
    }

    fn price(&self, ctx: &Context<'_>, usage: &Usage<'_>) -> Priced {
        let Some(entry) = self.0.entry(ctx.tenant(), usage) else {
            return UnpricedReason::UnknownModel.into();
        };
        if usage.tokens.input == 0 && usage.tokens.output == 0 {
            // A request that ended normally read at least one token, so nobody counted. One that was cut off before
            // it began, or is only now beginning, really cost nothing.
            return match usage.phase {
                Phase::Final => UnpricedReason::MissingUsage.into(),
                Phase::Interim | Phase::Interrupted => Cost::new().finish(),
            };
        }
        let mut cost = Cost::new();
        entry.charge(&mut cost, usage.tokens);
        cost.finish()
    }
}

tollgate_plugin::export_plugin!(CostPerToken: CostModel);
