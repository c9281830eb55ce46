//! What cost plugins marked shadow would have billed, beside what was billed.
//!
//! A shadow price is counted here and goes nowhere else: not on a bill, not on a span, not into
//! an answer. Sums are whole pico-units in 128 bits, of one currency each. What is summed is what
//! can be compared: requests that both have a price for, in the same currency.
//!
//! Invariant: no more than [`MOST_SERIES`] series, whatever clients call themselves. Policy
//! beyond it: series of plugins that no longer shadow make room; then what is new is counted
//! together, as [`ShadowGroup::Other`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_domain::{CostOutcome, Money, PluginIdentity, Usage};
use tollgate_plugin_host::ShadowPrice;

/// Most series, those of `Other` aside, of which each plugin that shadows has one.
const MOST_SERIES: usize = 2000;
/// Most bytes of a tenant's or a model's name; one with a longer name is among the others.
const LONGEST_NAME: usize = 256;
/// Most currencies of one series; a price in a further one is not compared.
const MOST_CURRENCIES: usize = 4;

/// Requests of one model and one tenant, or of all that have no series of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShadowGroup {
    /// Of these two.
    Of {
        /// The model as the client named it.
        model: String,
        /// Who pays, where that is known.
        tenant: Option<String>,
    },
    /// Of all others.
    Other,
}

/// What a shadow price came to beside the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShadowResult {
    /// The same amount.
    Same,
    /// Less.
    Cheaper,
    /// More.
    Dearer,
    /// The shadow has no price for it.
    Unpriced,
    /// The shadow failed.
    Failed,
    /// The shadow has a price; the bill has none, or one in another currency.
    Incomparable,
}

impl ShadowResult {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Same, Self::Cheaper, Self::Dearer, Self::Unpriced, Self::Failed, Self::Incomparable];

    /// Its name in metrics and in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Cheaper => "cheaper",
            Self::Dearer => "dearer",
            Self::Unpriced => "unpriced",
            Self::Failed => "failed",
            Self::Incomparable => "incomparable",
        }
    }
}

/// Amounts of one currency, over the requests that could be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowAmounts {
    /// What was billed.
    pub billed: Money,
    /// What the shadow would have billed.
    pub shadow: Money,
}

impl ShadowAmounts {
    /// How much more the shadow would have billed; negative if less.
    #[must_use]
    pub fn difference(&self) -> Money {
        Money::new(self.shadow.pico.saturating_sub(self.billed.pico), self.shadow.currency)
    }
}

/// What one shadow plugin came to for one group of requests, since the gateway began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowSeries {
    /// Its file: two in the shadow may be of one plugin.
    pub file: Arc<str>,
    /// The plugin, by its exact build.
    pub plugin: Arc<PluginIdentity>,
    /// Which requests.
    pub group: ShadowGroup,
    /// How many of them, by result.
    pub requests: BTreeMap<ShadowResult, u64>,
    /// Amounts by currency, in the order in which the currencies came.
    pub amounts: Vec<ShadowAmounts>,
}

/// All comparisons so far.
#[derive(Debug, Default)]
pub(crate) struct Shadow(Mutex<HashMap<Key, Counted>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    file: Arc<str>,
    plugin: Arc<PluginIdentity>,
    group: ShadowGroup,
}

#[derive(Debug, Default)]
struct Counted {
    requests: BTreeMap<ShadowResult, u64>,
    amounts: Vec<ShadowAmounts>,
}

impl Shadow {
    /// Counts what every shadow plugin said of one request beside what was billed for it.
    pub(crate) fn compare(
        &self,
        tenant: Option<&str>,
        usage: &Usage,
        billed: &CostOutcome,
        prices: Vec<ShadowPrice>,
    ) {
        if prices.is_empty() {
            return;
        }
        let shadowing: Vec<(Arc<str>, Arc<PluginIdentity>)> = prices
            .iter()
            .map(|price| (Arc::clone(&price.file), Arc::clone(&price.plugin)))
            .collect();
        let goes_on = |key: &Key| {
            shadowing.iter().any(|(file, plugin)| *file == key.file && *plugin == key.plugin)
        };
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for price in prices {
            let group = group(&usage.request_model, tenant);
            let mut key = Key { file: price.file, plugin: price.plugin, group };
            if !counted.contains_key(&key) && counted.len() >= MOST_SERIES {
                counted.retain(|key, _| goes_on(key));
                if counted.len() >= MOST_SERIES {
                    key.group = ShadowGroup::Other;
                }
            }
            counted.entry(key).or_default().add(billed, &price.outcome);
        }
    }

    /// Every series, ordered by file, plugin and group.
    pub(crate) fn series(&self) -> Vec<ShadowSeries> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut series: Vec<ShadowSeries> = counted
            .iter()
            .map(|(key, counted)| ShadowSeries {
                file: Arc::clone(&key.file),
                plugin: Arc::clone(&key.plugin),
                group: key.group.clone(),
                requests: counted.requests.clone(),
                amounts: counted.amounts.clone(),
            })
            .collect();
        drop(counted);
        series.sort_by(|a, b| {
            let (plugin_a, plugin_b) = (&a.plugin, &b.plugin);
            (&a.file, &plugin_a.name, &plugin_a.digest, &a.group).cmp(&(
                &b.file,
                &plugin_b.name,
                &plugin_b.digest,
                &b.group,
            ))
        });
        series
    }
}

impl Counted {
    fn add(&mut self, billed: &CostOutcome, shadow: &CostOutcome) {
        let (mut result, amounts) = compared(billed, shadow);
        if let Some(new) = amounts {
            let (currency, full) = (new.billed.currency, self.amounts.len() >= MOST_CURRENCIES);
            match self.amounts.iter_mut().find(|sum| sum.billed.currency == currency) {
                Some(sum) => {
                    sum.billed.pico = sum.billed.pico.saturating_add(new.billed.pico);
                    sum.shadow.pico = sum.shadow.pico.saturating_add(new.shadow.pico);
                }
                None if full => result = ShadowResult::Incomparable,
                None => self.amounts.push(new),
            }
        }
        let count = self.requests.entry(result).or_default();
        *count = count.saturating_add(1);
    }
}

/// How a shadow price stands to the bill, and both amounts where they can be compared.
fn compared(billed: &CostOutcome, shadow: &CostOutcome) -> (ShadowResult, Option<ShadowAmounts>) {
    let shadow = match shadow {
        CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => cost.total,
        CostOutcome::Unpriced { .. } => return (ShadowResult::Unpriced, None),
        CostOutcome::PluginFailed(_) => return (ShadowResult::Failed, None),
    };
    let Some(billed) =
        billed.cost().map(|cost| cost.total).filter(|bill| bill.currency == shadow.currency)
    else {
        return (ShadowResult::Incomparable, None);
    };
    let result = match shadow.pico.cmp(&billed.pico) {
        std::cmp::Ordering::Equal => ShadowResult::Same,
        std::cmp::Ordering::Less => ShadowResult::Cheaper,
        std::cmp::Ordering::Greater => ShadowResult::Dearer,
    };
    (result, Some(ShadowAmounts { billed, shadow }))
}

fn group(model: &str, tenant: Option<&str>) -> ShadowGroup {
    if model.len() > LONGEST_NAME || tenant.is_some_and(|tenant| tenant.len() > LONGEST_NAME) {
        return ShadowGroup::Other;
    }
    ShadowGroup::Of { model: model.to_owned(), tenant: tenant.map(str::to_owned) }
}

#[cfg(test)]
mod tests;
