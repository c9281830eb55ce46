//! Which whole traces leave: the rules an operator sets, the facts of a trace that they go by, and
//! the decision. Pure.
//!
//! The share of traces that is kept goes by the trace's id alone, as OpenTelemetry's consistent
//! sampling has it: every gateway and every restart decides the same.

use std::time::Duration;

use crate::id::TraceId;
use crate::money::Money;
use crate::span::{Span, SpanStatus};
use crate::time::Interval;

/// Bits of a trace's id that are random by the W3C's second level of trace context.
const RANDOM_BITS: u32 = 56;

/// Decisions on traces that each exporter remembers, so that spans that come late follow them.
pub const DECISIONS: usize = 65_536;

/// How long it remembers one at most.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(7 * 86_400);

/// How an exporter waits for whole traces, and which of them leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRules {
    /// How long after its first span a trace is decided.
    pub wait: Duration,
    /// Whether traces with an error leave, whatever the share.
    pub keep_errors: bool,
    /// From which time between the first start and the last end on a trace leaves.
    pub keep_slower: Option<Duration>,
    /// From which sum of the costs in its currency on a trace leaves.
    pub keep_cost: Option<Money>,
    /// Of all other traces.
    pub share: Share,
    /// Most bytes of spans that wait. Policy beyond: the oldest trace is *decided early*.
    pub most_bytes: usize,
}

/// A share of all traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// Every trace.
    pub const ALL: Self = Self(1 << RANDOM_BITS);

    /// From a number between 0 and 1.
    #[must_use]
    pub fn of(part: f64) -> Option<Self> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a power of two, times a number between 0 and 1"
        )]
        let of_all = |part: f64| (part * (1_u64 << RANDOM_BITS) as f64) as u64;
        (0.0..=1.0).contains(&part).then_some(part).map(of_all).map(Self)
    }

    /// Whether a trace is in it.
    #[must_use]
    pub fn takes(self, trace: TraceId) -> bool {
        let random = trace.0 & ((1 << RANDOM_BITS) - 1);
        // The highest numbers are kept, as in OpenTelemetry's rejection threshold.
        random >= u128::from((1_u64 << RANDOM_BITS).saturating_sub(self.0))
    }
}

/// What the rules go by, of some spans of one trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceFacts {
    /// Whether one of them failed.
    pub error: bool,
    /// From the first start to the last end.
    pub interval: Option<Interval>,
    /// What they cost, at most one sum of a currency.
    pub costs: Vec<Money>,
}

/// Why a trace leaves, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// A span of it failed.
    Error,
    /// It cost enough.
    Cost,
    /// It took long enough.
    Slow,
    /// Its id is in the share.
    Share,
    /// It does not leave.
    Dropped,
}

impl Decision {
    /// All of them.
    const ALL: [Self; 5] = [Self::Error, Self::Cost, Self::Slow, Self::Share, Self::Dropped];

    /// Whether it leaves.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self != Self::Dropped
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|decision| decision.name() == name)
    }

    /// Its name in metrics and in the ledger's folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Cost => "cost",
            Self::Slow => "slow",
            Self::Share => "share",
            Self::Dropped => "dropped",
        }
    }
}

impl TraceRules {
    /// What becomes of a trace.
    #[must_use]
    pub fn decide(&self, trace: TraceId, facts: &TraceFacts) -> Decision {
        let reaches = |least: &Money| {
            let of = facts.costs.iter().find(|sum| sum.currency == least.currency);
            of.is_some_and(|sum| sum.pico >= least.pico)
        };
        let took = facts.interval.map(Interval::length).unwrap_or_default();
        if self.keep_errors && facts.error {
            Decision::Error
        } else if self.keep_cost.as_ref().is_some_and(reaches) {
            Decision::Cost
        } else if self.keep_slower.is_some_and(|least| took >= least) {
            Decision::Slow
        } else if self.share.takes(trace) {
            Decision::Share
        } else {
            Decision::Dropped
        }
    }
}

impl TraceFacts {
    /// Of spans that have no price.
    #[must_use]
    pub fn of_spans<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Self {
        let mut facts = Self::default();
        for span in spans {
            facts.error |= matches!(span.status, SpanStatus::Error(_));
            facts.cover(span.interval);
        }
        facts
    }

    /// Takes a cost into account.
    pub fn cost(&mut self, cost: Money) {
        match self.costs.iter_mut().find(|sum| sum.currency == cost.currency) {
            Some(sum) => sum.pico = sum.pico.saturating_add(cost.pico),
            None => self.costs.push(cost),
        }
    }

    /// Takes more of the same trace into account.
    pub fn add(&mut self, more: &Self) {
        self.error |= more.error;
        more.interval.into_iter().for_each(|interval| self.cover(interval));
        more.costs.iter().for_each(|cost| self.cost(*cost));
    }

    fn cover(&mut self, more: Interval) {
        self.interval = Some(match self.interval {
            None => more,
            Some(so_far) => Interval::new(so_far.start.min(more.start), so_far.end.max(more.end)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;
    use crate::time::UnixNanos;

    fn rules(share: f64) -> TraceRules {
        TraceRules {
            wait: Duration::from_secs(1),
            keep_errors: true,
            keep_slower: Some(Duration::from_nanos(100)),
            keep_cost: Money::parse_decimal("0.05", Currency::USD),
            share: Share::of(share).unwrap(),
            most_bytes: 1,
        }
    }

    fn facts(error: bool, length: u64, cost: &str, currency: &str) -> TraceFacts {
        let currency = Currency::parse(currency).unwrap();
        let interval = Interval::new(UnixNanos(1000), UnixNanos(1000 + length));
        let costs = vec![Money::parse_decimal(cost, currency).unwrap()];
        TraceFacts { error, interval: Some(interval), costs }
    }

    #[test]
    fn what_matters_leaves_and_of_the_rest_a_share() {
        let (none, all) = (rules(0.0), rules(1.0));
        for (facts, decision) in [
            (facts(true, 0, "0", "USD"), Decision::Error),
            (facts(false, 0, "0.05", "USD"), Decision::Cost),
            (facts(false, 0, "0.0499", "USD"), Decision::Dropped),
            (facts(false, 0, "1", "EUR"), Decision::Dropped),
            (facts(false, 100, "0", "USD"), Decision::Slow),
            (facts(false, 99, "0", "USD"), Decision::Dropped),
        ] {
            assert_eq!(none.decide(TraceId(7), &facts), decision, "{facts:?}");
            assert!(all.decide(TraceId(7), &facts).is_kept());
        }
    }

    #[test]
    fn facts_of_parts_are_facts_of_the_whole() {
        let mut sum = facts(false, 10, "0.02", "USD");
        let late = Interval::new(UnixNanos(1050), UnixNanos(1100));
        sum.add(&TraceFacts { interval: Some(late), ..facts(true, 0, "0.03", "USD") });
        assert_eq!(sum, facts(true, 100, "0.05", "USD"));
    }

    #[test]
    fn shares_lie_within_each_other_and_are_as_large_as_they_say() {
        let (tenth, half) = (Share::of(0.1).unwrap(), Share::of(0.5).unwrap());
        let ids = (0..10_000_u128).map(|n| TraceId((n << 100) | ((n * (1 << 56)) / 10_000)));
        let (mut tenths, mut halves) = (0, 0);
        for id in ids {
            assert!(!tenth.takes(id) || half.takes(id));
            assert!(Share::ALL.takes(id) && !Share::of(0.0).unwrap().takes(id));
            tenths += u32::from(tenth.takes(id));
            halves += u32::from(half.takes(id));
        }
        assert!((999..=1001).contains(&tenths) && (4999..=5001).contains(&halves));
        assert_eq!(
            (Share::of(1.0), Share::of(1.1), Share::of(f64::NAN)),
            (Some(Share::ALL), None, None)
        );
    }
}
