//! What a second price makes of the first, by tenant and model: pure.

use std::collections::BTreeMap;

use tollgate_domain::{CostOutcome, Money, Record};

use super::super::error::AuditError;
use tollgate_summary::Amounts;
use tollgate_summary::{MOST_GROUPS, SummaryError, count, group};

/// Who and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) tenant: Option<String>,
    /// As the client named it.
    pub(super) model: String,
}

/// How requests of one group were and are priced.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) requests: u64,
    /// Requests of which amount, lines and status are the same.
    pub(super) same: u64,
    /// Requests with an amount before and after, and another one.
    pub(super) changed: u64,
    /// Requests of which the status changed: what it was and what it is.
    pub(super) statuses: BTreeMap<(String, String), u64>,
    pub(super) old: Amounts,
    pub(super) new: Amounts,
}

/// All groups and their total.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) groups: BTreeMap<Key, Difference>,
    pub(super) total: Difference,
}

/// The sums of one currency; none where nothing was priced in it, which is not the same as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) old: Option<Money>,
    pub(super) new: Option<Money>,
    /// New less old.
    pub(super) difference: Money,
}

impl Differences {
    /// Adds one request, and what it costs now.
    pub(super) fn add(&mut self, record: &Record, new: &CostOutcome) -> Result<(), AuditError> {
        let key = Key { tenant: record.tenant.clone(), model: record.asked.model.clone() };
        group(&mut self.groups, key, MOST_GROUPS)?.add(&record.cost, new)?;
        self.total.add(&record.cost, new)
    }
}

impl Difference {
    fn add(&mut self, old: &CostOutcome, new: &CostOutcome) -> Result<(), AuditError> {
        count(&mut self.requests);
        let (before, after) = (status(old), status(new));
        if before != after {
            count(self.statuses.entry((before, after)).or_default());
        }
        match (old.cost(), new.cost()) {
            (Some(a), Some(b)) if a.total != b.total => count(&mut self.changed),
            (Some(a), Some(b)) if a.lines == b.lines && old.status() == new.status() => {
                count(&mut self.same);
            }
            (None, None) if status(old) == status(new) => count(&mut self.same),
            _ => {}
        }
        for (cost, sums) in [(old, &mut self.old), (new, &mut self.new)] {
            if let Some(cost) = cost.cost() {
                sums.add(cost.total)?;
            }
        }
        Ok(())
    }

    /// Of each currency.
    pub(super) fn sums(&self) -> Result<Vec<Sums>, AuditError> {
        let mut currencies: Vec<_> =
            self.old.iter().chain(self.new.iter()).map(|money| money.currency).collect();
        currencies.sort_by(|a, b| a.code().cmp(b.code()));
        currencies.dedup();
        let of = |currency| {
            let (old, new) = (self.old.get(currency), self.new.get(currency));
            let pico = |sum: Option<Money>| sum.map_or(0, |money| money.pico);
            let overflow = || SummaryError::Overflow { currency: currency.code().to_owned() };
            let difference = pico(new).checked_sub(pico(old)).ok_or_else(overflow)?;
            Ok(Sums { old, new, difference: Money::new(difference, currency) })
        };
        currencies.into_iter().map(of).collect()
    }
}

/// Status and reason.
pub(super) fn status(outcome: &CostOutcome) -> String {
    match outcome.reason() {
        Some(reason) => format!("{} ({reason})", outcome.status()),
        None => outcome.status().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::{FaultKind, UnpricedReason};

    use super::super::super::testing::*;
    use super::*;

    fn differences(pairs: &[(CostOutcome, CostOutcome)]) -> Difference {
        let mut differences = Differences::default();
        for (old, new) in pairs {
            differences.add(&record("a", "m", NEW_YEAR, old.clone()), new).unwrap();
        }
        assert_eq!(differences.groups.len(), usize::from(!pairs.is_empty()));
        differences.total
    }

    #[test]
    fn each_way_a_price_can_change_is_told_apart() {
        let unknown = unpriced(UnpricedReason::UnknownModel);
        let failed = plugin_failed(FaultKind::Trap);
        let euros = CostOutcome::Priced(amount(7, "EUR"));
        let found = differences(&[
            (priced(5), priced(5)),
            (priced(5), priced(9)),
            (priced(5), unknown.clone()),
            (unknown.clone(), priced(2)),
            (unknown.clone(), unknown),
            (failed, estimated(3)),
            (priced(5), euros),
        ]);
        assert_eq!((found.requests, found.same, found.changed), (7, 2, 2));
        let statuses: Vec<String> = found
            .statuses
            .iter()
            .map(|((old, new), count)| format!("{old} -> {new}: {count}"))
            .collect();
        assert_eq!(
            statuses,
            [
                "plugin_failed (trap) -> estimated: 1",
                "priced -> unpriced (unknown_model): 1",
                "unpriced (unknown_model) -> priced: 1",
            ]
        );
        let sums = found.sums().unwrap();
        let text = |money: Option<Money>| money.map(|money| money.to_string());
        assert_eq!(text(sums[0].old), None);
        assert_eq!(text(sums[0].new).as_deref(), Some("0.000000000007 EUR"));
        assert_eq!(sums[1].difference.decimal(), "-0.000000000001");
    }

    proptest! {
        /// The difference of the sums is the sum of the differences.
        #[test]
        fn differences_add_up(pairs in prop::collection::vec(any::<(i64, i64)>(), 0..50)) {
            let outcomes: Vec<_> = pairs.iter().map(|(old, new)| (priced(*old), priced(*new))).collect();
            let sums = differences(&outcomes).sums().unwrap();
            let expected: i128 = pairs.iter().map(|(old, new)| i128::from(*new) - i128::from(*old)).sum();
            prop_assert_eq!(sums.first().map_or(0, |sums| sums.difference.pico), expected);
        }

        #[test]
        fn the_same_prices_make_no_difference(picos in prop::collection::vec(any::<i64>(), 1..50)) {
            let outcomes: Vec<_> = picos.iter().map(|pico| (priced(*pico), priced(*pico))).collect();
            let found = differences(&outcomes);
            prop_assert_eq!((found.same, found.changed), (picos.len() as u64, 0));
            prop_assert!(found.sums().unwrap().iter().all(|sums| sums.difference.pico == 0));
        }
    }
}
