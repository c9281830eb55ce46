//! Whether a request is admitted: the rule, pure, the same whoever keeps the counts.
//!
//! *Buckets.* A classic token bucket, counted from its other end: `used` is what was taken and has
//! not yet flowed out. It flows out at the limit's rate, and a request is admitted if `used` with
//! what it needs is at most one minute's worth. So over any stretch of time no more is admitted
//! than one minute's worth and what flows out meanwhile. Not GCRA, which keeps a time instead of
//! an amount: giving back tokens and going into debt are additions here, a limit that is changed
//! keeps what was used, and nothing is rounded, since `used` is counted in sixty-thousandths (one
//! flows out per millisecond and unit of the limit). What nobody used lately is zero, so an idle
//! bucket is the same as none and can be forgotten.
//!
//! *All or nothing.* Every scope must admit. The judge reads what is [`Seen`] and says why not;
//! whoever keeps the counts takes only if it says nothing.

use std::time::Duration;

use tollgate_domain::{Money, UnixNanos};

use crate::allowance::{Allowance, BudgetStanding, Limited, What, Window};
use crate::limits::{Budget, Limits, Period, Scope};

/// Parts of a unit, and milliseconds of a minute.
pub(crate) const MINUTE: u64 = 60_000;
/// After which to try again where the limit is of requests at the same time: nobody knows.
const PLACE_RETRY: Duration = Duration::from_secs(1);

/// What a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Whose counts: all names below begin with it.
    pub tag: String,
    pub scopes: Vec<AskedScope>,
    pub budgets: Vec<AskedBudget>,
    /// Estimated.
    pub tokens: u64,
    pub at: UnixNanos,
}

#[derive(Clone, Debug)]
pub(crate) struct AskedScope {
    pub scope: Scope,
    pub name: String,
    pub limits: Limits,
}

#[derive(Clone, Debug)]
pub(crate) struct AskedBudget {
    pub scope: Scope,
    pub name: String,
    pub budget: Budget,
    pub period: Period,
    /// Estimated, in pico-units; zero in another currency.
    pub estimate: i128,
}

/// The counts, flown out up to now: before a refusal, or after something was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub scopes: Vec<SeenScope>,
    /// Pico-units spent, in the order of the budgets asked for.
    pub budgets: Vec<i128>,
}

/// Counts of one scope; zero where nothing is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenScope {
    /// Requests used, in sixty-thousandths.
    pub requests: u64,
    /// Tokens used, in sixty-thousandths.
    pub tokens: u64,
    pub in_flight: u64,
}

/// `used` after `milliseconds` more. It is never more than two minutes' worth: the one that may
/// be used and one of debt.
pub(crate) fn drained(used: u64, limit: Option<u64>, milliseconds: u64) -> u64 {
    let Some(limit) = limit else { return 0 };
    let flown = milliseconds.min(2 * MINUTE).saturating_mul(limit);
    used.min(most(limit)).saturating_sub(flown)
}

/// `used` with `taken` more, or less, units.
pub(crate) fn corrected(used: u64, limit: Option<u64>, taken: i64) -> u64 {
    let Some(limit) = limit else { return 0 };
    let parts = taken.unsigned_abs().saturating_mul(MINUTE);
    if taken < 0 { used.saturating_sub(parts) } else { used.saturating_add(parts).min(most(limit)) }
}

fn whole(limit: u64) -> u64 {
    limit.saturating_mul(MINUTE)
}

fn most(limit: u64) -> u64 {
    whole(limit).saturating_mul(2)
}

/// Says why the request is refused, if it is.
pub(crate) fn judge(ask: &Ask, seen: &Seen) -> Result<(), Box<Limited>> {
    let rates = ask.scopes.iter().zip(&seen.scopes).flat_map(|(asked, seen)| {
        let limits = &asked.limits;
        let requests = rate(limits.requests_per_minute, seen.requests, 1);
        let tokens = rate(limits.tokens_per_minute, seen.tokens, ask.tokens);
        [
            requests.map(|refused| refused.of(asked.scope, What::Requests)),
            tokens.map(|refused| refused.of(asked.scope, What::Tokens)),
            place(limits.concurrent, seen.in_flight)
                .map(|refused| refused.of(asked.scope, What::Concurrent)),
        ]
    });
    let budgets = ask.budgets.iter().zip(&seen.budgets);
    let budgets = budgets.map(|(asked, spent)| budget(asked, *spent, ask.at));
    // What lasts longest; of equal ones the first.
    let lasts = |limited: &Limited| limited.retry_after.unwrap_or(Duration::MAX);
    let worst = rates
        .chain(budgets)
        .flatten()
        .reduce(|worst, other| if lasts(&other) > lasts(&worst) { other } else { worst });
    match worst {
        None => Ok(()),
        Some(limited) => Err(Box::new(Limited { allowance: allowance(ask, seen), ..limited })),
    }
}

/// A refusal of one limit, before it is known whose.
struct Refused {
    limit: u64,
    remaining: u64,
    needed: u64,
    reset_after: Duration,
    retry_after: Option<Duration>,
}

impl Refused {
    fn of(self, scope: Scope, what: What) -> Limited {
        let Self { limit, remaining, needed, reset_after, retry_after } = self;
        let (budget, allowance) = (None, Allowance::default());
        Limited {
            scope,
            what,
            limit,
            remaining,
            needed,
            reset_after,
            retry_after,
            budget,
            allowance,
        }
    }
}

fn rate(limit: Option<u64>, used: u64, needed: u64) -> Option<Refused> {
    let limit = limit?;
    let wanted = used.saturating_add(needed.saturating_mul(MINUTE));
    let over = wanted.checked_sub(whole(limit)).filter(|over| *over > 0)?;
    // What is more than all of it will never fit, however long anybody waits.
    let fits = needed <= limit && limit > 0;
    Some(Refused {
        limit,
        remaining: remaining(limit, used),
        needed,
        reset_after: reset(limit, used),
        retry_after: fits.then(|| Duration::from_millis(over.div_ceil(limit.max(1)))),
    })
}

fn place(limit: Option<u64>, in_flight: u64) -> Option<Refused> {
    let limit = limit.filter(|limit| in_flight >= *limit)?;
    let retry_after = (limit > 0).then_some(PLACE_RETRY);
    Some(Refused { limit, remaining: 0, needed: 1, reset_after: Duration::ZERO, retry_after })
}

fn budget(asked: &AskedBudget, spent: i128, now: UnixNanos) -> Option<Limited> {
    let amount = asked.budget.amount.pico;
    if !asked.budget.hard || (spent < amount && spent.saturating_add(asked.estimate) <= amount) {
        return None;
    }
    let fits = asked.estimate <= amount && amount > 0;
    Some(Limited {
        scope: asked.scope,
        what: What::Budget,
        limit: 0,
        remaining: 0,
        needed: 0,
        reset_after: asked.period.remaining(now).unwrap_or_default(),
        retry_after: asked.period.remaining(now).filter(|_| fits),
        budget: Some(standing(asked, spent, now)),
        allowance: Allowance::default(),
    })
}

fn standing(asked: &AskedBudget, spent: i128, now: UnixNanos) -> BudgetStanding {
    let Budget { amount, per, soft, .. } = asked.budget;
    BudgetStanding {
        scope: asked.scope,
        per,
        amount,
        spent: Money::new(spent, amount.currency),
        soft_reached: spent >= soft.pico,
        reset_after: asked.period.remaining(now),
    }
}

/// What is left.
pub(crate) fn allowance(ask: &Ask, seen: &Seen) -> Allowance {
    let mut allowance = Allowance::default();
    for (asked, seen) in ask.scopes.iter().zip(&seen.scopes) {
        let limits = &asked.limits;
        tighten(&mut allowance.requests, asked.scope, limits.requests_per_minute, seen.requests);
        tighten(&mut allowance.tokens, asked.scope, limits.tokens_per_minute, seen.tokens);
    }
    let budgets = ask.budgets.iter().zip(&seen.budgets);
    allowance.budgets = budgets.map(|(asked, spent)| standing(asked, *spent, ask.at)).collect();
    allowance
}

fn tighten(tightest: &mut Option<Window>, scope: Scope, limit: Option<u64>, used: u64) {
    let Some(limit) = limit else { return };
    let window =
        Window { scope, limit, remaining: remaining(limit, used), reset_after: reset(limit, used) };
    if tightest.is_none_or(|tightest| window.remaining < tightest.remaining) {
        *tightest = Some(window);
    }
}

fn remaining(limit: u64, used: u64) -> u64 {
    whole(limit).saturating_sub(used) / MINUTE
}

fn reset(limit: u64, used: u64) -> Duration {
    Duration::from_millis(used.checked_div(limit).map_or(0, |_| used.div_ceil(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(limits: Limits, tokens: u64) -> Ask {
        let scope = AskedScope { scope: Scope::Tenant, name: "{a}:t".to_owned(), limits };
        let (tag, at) = ("{a}".to_owned(), UnixNanos(0));
        Ask { tag, scopes: vec![scope], budgets: Vec::new(), tokens, at }
    }

    #[test]
    fn who_waits_as_long_as_told_is_admitted_and_not_a_moment_earlier() {
        for limit in [1, 7, 59, 60, 61, 1_000, 999_983] {
            let limits = Limits { tokens_per_minute: Some(limit), ..Limits::default() };
            for needed in [1, limit / 2 + 1, limit] {
                let ask = ask(limits, needed);
                let used = corrected(0, Some(limit), i64::try_from(limit).unwrap());
                let seen = |used| {
                    let scope = SeenScope { tokens: used, ..SeenScope::default() };
                    Seen { scopes: vec![scope], budgets: Vec::new() }
                };
                let limited = judge(&ask, &seen(used)).unwrap_err();
                let wait = u64::try_from(limited.retry_after.unwrap().as_millis()).unwrap();
                let after = |wait| judge(&ask, &seen(drained(used, Some(limit), wait)));
                assert!(after(wait).is_ok(), "{limit} {needed} {wait}");
                assert!(after(wait - 1).is_err(), "{limit} {needed} {wait}");
            }
        }
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_refused_for_ever() {
        let seen = Seen { scopes: vec![SeenScope::default()], budgets: Vec::new() };
        let tokens = |limit| Limits { tokens_per_minute: Some(limit), ..Limits::default() };
        let requests = Limits { requests_per_minute: Some(0), ..Limits::default() };
        let places = Limits { concurrent: Some(0), ..Limits::default() };
        let cases = [(tokens(100), 101), (tokens(0), 1), (requests, 0), (places, 0)];
        for (limits, needed) in cases {
            let limited = judge(&ask(limits, needed), &seen).unwrap_err();
            assert_eq!(limited.retry_after, None, "{limited}");
        }
        judge(&ask(tokens(100), 100), &seen).unwrap();
        judge(&ask(tokens(100), 100), &Seen::default()).unwrap();
    }

    #[test]
    fn debt_is_bounded() {
        let limit = Some(10);
        let used = corrected(0, limit, i64::MAX);
        assert_eq!(used, 20 * MINUTE);
        assert_eq!(drained(used, limit, 2 * MINUTE), 0);
        assert_eq!(drained(used, Some(1), 0), 2 * MINUTE, "a lower limit lowers the debt");
        assert_eq!(corrected(5, limit, i64::MIN), 0);
    }
}
