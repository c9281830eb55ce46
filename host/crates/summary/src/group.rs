//! Sums by group: pure, whatever the requests come from.

use std::collections::BTreeMap;

use tollgate_domain::{Money, UnixNanos};

use crate::amounts::Amounts;
use crate::error::SummaryError;
use crate::groups::{count, group};
use crate::latency::Latencies;
use crate::request::{Cost, Plugin, Request, Tokens};
use crate::time::Day;

/// Most names that one group counts apart: kinds and reasons are few, but a span file may say anything.
const MOST_NAMES: usize = 64;

/// What the rest is counted as.
const OTHER: &str = "other";

/// What to group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Who pays.
    Tenant,
    /// The model as the client named it.
    Model,
    /// The build of the cost plugin.
    Plugin,
    /// The day it began, UTC.
    Day,
    /// The stretch of so many nanoseconds since the epoch that it began in.
    Time(u64),
}

/// What a group has in common, in the order of the dimensions; `None`: there is none, as a tenant that nobody named.
pub type Key = Vec<Option<Part>>;

/// One of those things.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A tenant or a model.
    Text(String),
    /// A build of a plugin.
    Plugin {
        /// Its name for itself.
        name: String,
        /// Its version.
        version: String,
        /// SHA-256 of its file.
        digest: String,
    },
    /// A day.
    Day(Day),
    /// The first moment of a stretch of time.
    Time(UnixNanos),
}

/// How many, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<String, u64>);

/// Requests that have something in common.
#[derive(Debug, Default)]
pub struct Group {
    /// How many.
    pub requests: u64,
    /// How they ended.
    pub outcomes: Counts,
    /// Kinds of error of the requests that did not complete.
    pub errors: Counts,
    /// Sums of all amounts.
    pub amounts: Amounts,
    /// The part of them that comes from estimated counts.
    pub estimates: Amounts,
    /// Priced from counts that are none.
    pub priced: u64,
    /// Priced from estimated counts.
    pub estimated: u64,
    /// By reason.
    pub unpriced: Counts,
    /// By kind of fault.
    pub plugin_failed: Counts,
    /// What became of whose price nothing tells.
    pub cost_unknown: u64,
    /// What they used.
    pub tokens: Tokens,
    /// Requests that are not known to have used any.
    pub without_usage: u64,
    /// How long those took that completed.
    pub duration: Latencies,
    /// When those that had one had their first token.
    pub first_token: Latencies,
}

/// All groups and their total.
#[derive(Debug)]
pub struct Summary {
    /// What is grouped by.
    pub by: Vec<Dimension>,
    /// The groups.
    pub groups: BTreeMap<Key, Group>,
    /// All of them together.
    pub total: Group,
    most: usize,
}

impl Summary {
    /// Of nothing yet, with at most so many groups. A dimension that is named twice counts once.
    #[must_use]
    pub fn new(by: &[Dimension], most: usize) -> Self {
        let mut once = Vec::new();
        for dimension in by {
            if !once.contains(dimension) {
                once.push(*dimension);
            }
        }
        Self { by: once, groups: BTreeMap::new(), total: Group::default(), most }
    }

    /// Adds one request.
    ///
    /// # Errors
    /// A sum out of range, or one group too many.
    pub fn add(&mut self, request: &Request<'_>) -> Result<(), SummaryError> {
        let key = self.by.iter().map(|dimension| dimension.of(request)).collect();
        group(&mut self.groups, key, self.most)?.add(request)?;
        self.total.add(request)
    }
}

impl Dimension {
    fn of(self, request: &Request<'_>) -> Option<Part> {
        match self {
            Self::Tenant => request.tenant.map(|tenant| Part::Text(tenant.to_owned())),
            Self::Model => Some(Part::Text(request.model.to_owned())),
            Self::Day => Some(Part::Day(Day::of(request.began))),
            Self::Time(length) => {
                let into = request.began.0.checked_rem(length).unwrap_or(0);
                Some(Part::Time(UnixNanos(request.began.0.saturating_sub(into))))
            }
            Self::Plugin => match &request.cost {
                Cost::Amount { plugin, .. } | Cost::PluginFailed { plugin, .. } => {
                    let Plugin { name, version, digest } = *plugin;
                    let [name, version, digest] = [name, version, digest].map(str::to_owned);
                    Some(Part::Plugin { name, version, digest })
                }
                Cost::Unpriced { .. } | Cost::Unknown => None,
            },
        }
    }
}

impl Group {
    fn add(&mut self, request: &Request<'_>) -> Result<(), SummaryError> {
        count(&mut self.requests);
        self.outcomes.add(request.outcome);
        if let Some(kind) = request.error {
            self.errors.add(kind);
        }
        match &request.cost {
            Cost::Amount { money, estimated, .. } => self.add_money(*money, *estimated)?,
            Cost::Unpriced { reason } => self.unpriced.add(reason),
            Cost::PluginFailed { kind, .. } => self.plugin_failed.add(kind),
            Cost::Unknown => count(&mut self.cost_unknown),
        }
        match &request.tokens {
            Some(tokens) => self.tokens.add(tokens),
            None => count(&mut self.without_usage),
        }
        if request.outcome == "completed" {
            self.duration.add(request.duration);
        }
        if let Some(first) = request.first_token {
            self.first_token.add(first);
        }
        Ok(())
    }

    fn add_money(&mut self, money: Money, estimated: bool) -> Result<(), SummaryError> {
        self.amounts.add(money)?;
        if estimated {
            count(&mut self.estimated);
            self.estimates.add(money)
        } else {
            count(&mut self.priced);
            Ok(())
        }
    }
}

impl Counts {
    fn add(&mut self, name: &str) {
        let full = self.0.len() >= MOST_NAMES;
        match self.0.get_mut(name) {
            Some(known) => count(known),
            None => count(self.0.entry(if full { OTHER } else { name }.to_owned()).or_default()),
        }
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, more| sum.saturating_add(*more))
    }

    /// Of one name.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::{CostOutcome, Currency, FaultKind, Record, UnpricedReason};

    use super::*;
    use crate::testing::*;

    fn summary(by: &[Dimension], records: &[Record]) -> Summary {
        let mut summary = Summary::new(by, 1000);
        for record in records {
            summary.add(&Request::from(record)).unwrap();
        }
        summary
    }

    fn some_records() -> impl Strategy<Value = Vec<Record>> {
        let cost = prop_oneof![
            any::<i64>().prop_map(priced),
            any::<i64>().prop_map(estimated),
            any::<i64>().prop_map(|pico| CostOutcome::Priced(amount(pico, "EUR"))),
            Just(unpriced(UnpricedReason::UnknownModel)),
            Just(plugin_failed(FaultKind::Trap)),
        ];
        let record =
            ("[ab]?", "[mn]", 0..3 * 24 * HOUR, cost).prop_map(|(tenant, model, after, cost)| {
                record(&tenant, &model, NEW_YEAR + after, cost)
            });
        prop::collection::vec(record, 0..60)
    }

    proptest! {
        /// Whatever is grouped by, nothing is lost and nothing counts twice.
        #[test]
        fn groups_add_up(records in some_records(), which in 0_usize..16) {
            let all = [Dimension::Day, Dimension::Tenant, Dimension::Plugin, Dimension::Model];
            let by: Vec<_> = (0..4).filter(|bit| which & (1 << bit) != 0).map(|bit| all[bit]).collect();
            let summary = summary(&by, &records);
            let sum = |of: fn(&Group) -> u64| summary.groups.values().map(of).sum::<u64>();
            prop_assert_eq!(sum(|group| group.requests), records.len() as u64);
            prop_assert_eq!(
                sum(|g| g.priced + g.estimated + g.unpriced.total() + g.plugin_failed.total() + g.cost_unknown),
                records.len() as u64
            );
            for code in ["USD", "EUR"] {
                let currency = Currency::parse(code).unwrap();
                let expected = records.iter().filter_map(|record| record.cost.cost())
                    .filter(|cost| cost.total.currency == currency);
                let expected = expected.map(|cost| cost.total.pico).reduce(|a, b| a + b);
                let grouped = summary.groups.values().filter_map(|group| group.amounts.get(currency))
                    .map(|money| money.pico).reduce(|a, b| a + b);
                prop_assert_eq!(grouped, expected);
                prop_assert_eq!(summary.total.amounts.get(currency).map(|money| money.pico), expected);
            }
            let tokens = summary.groups.values().map(|group| group.tokens.output).sum::<u64>();
            prop_assert_eq!(tokens, 20 * records.len() as u64);
        }
    }

    #[test]
    fn what_has_no_amount_has_no_sum() {
        let records = [
            record("a", "m", NEW_YEAR, unpriced(UnpricedReason::UnknownModel)),
            record("a", "m", NEW_YEAR, plugin_failed(FaultKind::Deadline)),
            refused("a", "m", NEW_YEAR),
        ];
        let total = summary(&[], &records).total;
        assert_eq!(total.amounts.iter().count(), 0);
        assert_eq!((total.unpriced.of("unknown_model"), total.unpriced.of("not_served")), (1, 1));
        assert_eq!((total.plugin_failed.of("deadline"), total.without_usage), (1, 1));
        assert_eq!(total.errors.of("overloaded"), 1);
    }

    #[test]
    fn only_what_completed_has_a_duration() {
        let mut left = record("a", "m", NEW_YEAR, priced(1));
        left.outcome = tollgate_domain::Outcome::ClientGone;
        let total = summary(&[], &[left]).total;
        assert!(total.duration.percentiles().is_none());
        assert_eq!(total.first_token.percentiles().unwrap().p99, 1000.0);
    }

    #[test]
    fn names_are_bounded() {
        let mut counts = Counts::default();
        (0..1000).for_each(|n| counts.add(&n.to_string()));
        assert_eq!((counts.0.len(), counts.total()), (MOST_NAMES + 1, 1000));
        assert_eq!(counts.of(OTHER), 1000 - MOST_NAMES as u64);
    }
}
