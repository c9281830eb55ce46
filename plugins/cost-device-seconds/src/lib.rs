//! A cost model for own hardware: device time and energy.
//!
//! The gateway says how long a request had a device and, where it can measure, how much energy that took; this plugin
//! multiplies by the operator's rates. `config.schema.json` beside this file describes the configuration, `devices`
//! says how a rate is chosen.
//!
//! Without a configuration nothing has a rate and every request is `unpriced: not-billable`; with one, that is the answer
//! for a device that nothing matches. A request that says nothing of a device, or nothing of the energy that is charged
//! for, is `unpriced: missing-usage`. Neither is ever a zero.

mod devices;
#[cfg(test)]
mod tests;

use devices::Devices;
use tollgate_plugin::{
    Config, ConfigError, Context, CostModel, Plugin, PluginInfo, Priced, UnpricedReason, Usage,
    money::Currency,
};

/// The plugin.
#[derive(Debug)]
struct CostDeviceSeconds(Devices);

impl Plugin for CostDeviceSeconds {
    fn describe() -> PluginInfo {
        PluginInfo::new("tollgate/cost-device-seconds", env!("CARGO_PKG_VERSION"))
            .description(env!("CARGO_PKG_DESCRIPTION"))
            .config_schema(include_str!("config.schema.json"))
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        Devices::read(&config).map(Self)
    }
}

impl CostModel for CostDeviceSeconds {
    fn currency(&self) -> Currency {
        self.0.currency
    }

    fn price(&self, ctx: &Context<'_>, usage: &Usage<'_>) -> Priced {
        if self.0.is_empty() {
            return UnpricedReason::NotBillable.into();
        }
        let Some(compute) = &usage.compute else {
            return UnpricedReason::MissingUsage.into();
        };
        match self.0.rate(ctx.tenant(), usage.response_model, compute.device) {
            Some(rate) => rate.charge(compute),
            None => UnpricedReason::NotBillable.into(),
        }
    }
}

tollgate_plugin::export_plugin!(CostDeviceSeconds: CostModel);
