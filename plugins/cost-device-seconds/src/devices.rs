//! Rates by device, and what they charge.
//!
//! Entries are tried in their order, those that name a tenant before those that do not; the first one whose every
//! condition holds is used.

use serde::Deserialize;
use tollgate_plugin::{
    ComputeUsage, Config, ConfigError, Cost, CostKind, Pattern, Priced, UnpricedReason,
    money::{Currency, DeviceTime, Energy, Pico, Price, Request},
};

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Devices {
    #[serde(default = "dollars")]
    pub(crate) currency: Currency,
    #[serde(default)]
    devices: Vec<Rate>,
}

fn dollars() -> Currency {
    Currency::USD
}

/// What a device costs. A condition that is missing always holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    /// Of the operator's label, such as `h200-sxm`.
    #[serde(rename = "match")]
    device: Option<Pattern>,
    /// Of the model that ran.
    model: Option<Pattern>,
    tenant: Option<Pattern>,

    rate: Option<Price<DeviceTime>>,
    energy: Option<Price<Energy>>,
    /// What the device draws, for energy where the gateway cannot measure it.
    watts: Option<u32>,
    #[serde(default)]
    bill: Bill,
    /// The least that a request costs; the difference is a line of its own.
    minimum: Option<Price<Request>>,
}

/// Which part of the device's time a request pays for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bill {
    /// Its own: the requests of a batch pay for the batch together.
    #[default]
    Share,
    /// All of it, as if it had run alone: for a device that is reserved for one tenant anyway.
    Whole,
}

impl Devices {
    /// Reads and checks a configuration.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let mut devices: Self = config.parse()?;
        for (index, rate) in devices.devices.iter().enumerate() {
            rate.check(&format!("/devices/{index}"), devices.currency)?;
        }
        // Stable, so that each half keeps its order.
        devices.devices.sort_by_key(|rate| rate.tenant.is_none());
        Ok(devices)
    }

    /// Whether nothing has a rate.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The entry for a request.
    pub(crate) fn rate(&self, tenant: Option<&str>, model: &str, device: &str) -> Option<&Rate> {
        self.devices.iter().find(|rate| {
            rate.device.as_ref().is_none_or(|pattern| pattern.matches(device))
                && rate.model.as_ref().is_none_or(|pattern| pattern.matches(model))
                && rate
                    .tenant
                    .as_ref()
                    .is_none_or(|pattern| tenant.is_some_and(|t| pattern.matches(t)))
        })
    }
}

impl Rate {
    /// The cost of one request.
    pub(crate) fn charge(&self, compute: &ComputeUsage<'_>) -> Priced {
        let mut cost = Cost::new();
        let Some(time) = self.bill.scale(compute.device_time, compute.share_ppm) else {
            cost.fail(format!("a share of {} ppm says nothing of the whole", compute.share_ppm));
            return cost.finish();
        };
        if let Some(rate) = self.rate {
            cost.line(CostKind::Compute, time, rate);
        }
        if let Some(price) = self.energy {
            let measured = match compute.energy_millijoules {
                Some(energy) => self.bill.scale(energy, compute.share_ppm),
                None => self.watts.and_then(|watts| energy_drawn(watts, time)),
            };
            let Some(energy) = measured else {
                return UnpricedReason::MissingUsage.into();
            };
            cost.line(CostKind::Energy, energy, price);
        }
        if let Some(minimum) = self.minimum
            && let (Ok(least), Ok(total)) = (minimum.times(1), cost.total())
            && total < least
        {
            // Neither is negative, so the difference fits.
            cost.amount(CostKind::Request, 1, Pico::new(least.get().saturating_sub(total.get())));
        }
        cost.finish()
    }

    fn check(&self, pointer: &str, currency: Currency) -> Result<(), ConfigError> {
        let fault =
            |key: &str, message: String| ConfigError::invalid(format!("{pointer}/{key}"), message);
        if self.rate.is_none() && self.energy.is_none() {
            return Err(ConfigError::invalid(
                pointer,
                "neither `rate` nor `energy` is given, so nothing is charged",
            ));
        }
        if self.watts.is_some() && self.energy.is_none() {
            return Err(fault(
                "watts",
                "the draw matters only where `energy` has a price".to_owned(),
            ));
        }
        self.rate
            .map_or(Ok(()), |price| currency.check(price))
            .map_err(|message| fault("rate", message))?;
        self.energy
            .map_or(Ok(()), |price| currency.check(price))
            .map_err(|message| fault("energy", message))?;
        self.minimum
            .map_or(Ok(()), |price| currency.check(price))
            .map_err(|message| fault("minimum", message))
    }
}

impl Bill {
    /// The share itself, or the whole it is a share of, rounded to the nearest unit.
    fn scale(self, share: u64, ppm: u32) -> Option<u64> {
        match self {
            Self::Share => Some(share),
            Self::Whole => {
                let doubled = u128::from(share) * 2_000_000 + u128::from(ppm);
                u64::try_from(doubled.checked_div(u128::from(ppm) * 2)?).ok()
            }
        }
    }
}

/// Millijoules that a draw in watts takes in so many nanoseconds, rounded to the nearest.
fn energy_drawn(watts: u32, nanoseconds: u64) -> Option<u64> {
    u64::try_from((u128::from(watts) * u128::from(nanoseconds) + 500_000) / 1_000_000).ok()
}
