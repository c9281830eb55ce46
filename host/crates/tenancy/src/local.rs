//! The counts of one process.
//!
//! Counts of one tenant are in one shard, whose lock makes all its scopes one step. What is idle
//! is the same as what is not there, so it is forgotten when room is needed. Bounded: once a
//! shard has no room and nothing idle, newcomers *share* one count per scope and limits until
//! there is room again; what is in flight is never forgotten.
//!
//! With Redis this holds what budgets are known to stand at, for when Redis is away or empty.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tollgate_domain::UnixNanos;

use crate::admission::{Ask, MINUTE, Seen, SeenScope, corrected, drained, judge};
use crate::allowance::Limited;
use crate::limits::{Limits, Period};

const SHARDS: usize = 64;
/// Most scopes of one shard: 65,536 in all, some 20 MB.
const SCOPES: usize = 1024;
/// Budgets are kept as long after their period, for requests that end late.
const LATE: u64 = 86_400_000;
/// Time between two searches for what is idle.
const SWEEP: u64 = 1_000;

/// The counts of one process.
#[derive(Debug)]
pub(crate) struct Local {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    most_scopes: usize,
}

#[derive(Debug, Default)]
struct Shard {
    scopes: HashMap<String, Counts>,
    budgets: HashMap<String, Spend>,
    swept_at: u64,
}

/// Counts of one scope.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    tokens: u64,
    in_flight: u64,
    /// Milliseconds since the epoch up to which it has flown out.
    at: u64,
    /// Under which it was counted last.
    limits: Limits,
}

/// What one budget stands at, in pico-units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spend {
    /// What all are known to have spent and reserved.
    pub shared: i128,
    /// What requests of this process have reserved of `shared` and not settled.
    pub reserved: i128,
    /// What was spent and reserved here and is not in `shared`.
    pub local: i128,
    /// Of `shared`: what is learned from an earlier answer is old.
    pub version: i64,
    /// Milliseconds since the epoch at which it can be forgotten; zero: never.
    until: u64,
}

/// What a request has of the counts, to be settled.
#[derive(Debug, Default)]
pub(crate) struct Places(Vec<String>);

impl Local {
    pub fn new() -> Self {
        Self::with_room_for(SCOPES)
    }

    fn with_room_for(most_scopes: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), most_scopes }
    }

    /// Takes all that is asked for, or nothing.
    pub fn reserve(&self, ask: &Ask) -> Result<(Places, Seen), Box<Limited>> {
        let mut shard = self.shard(&ask.tag);
        let now = milliseconds(ask.at);
        let names: Vec<String> = ask
            .scopes
            .iter()
            .map(|s| shard.place(&s.name, &s.limits, now, self.most_scopes))
            .collect();
        let counts = names.iter().zip(&ask.scopes);
        let mut counts: Vec<Counts> =
            counts.map(|(name, asked)| shard.counts(name, &asked.limits, now)).collect();
        let mut seen = Seen {
            scopes: counts.iter().map(Counts::seen).collect(),
            budgets: ask.budgets.iter().map(|b| shard.spend(&b.name).total()).collect(),
        };
        if let Err(limited) = judge(ask, &seen) {
            names.iter().for_each(|name| shard.set_back(name, now));
            return Err(limited);
        }
        let tokens = i64::try_from(ask.tokens).unwrap_or(i64::MAX);
        for (counts, name) in counts.iter_mut().zip(&names) {
            counts.requests = corrected(counts.requests, counts.limits.requests_per_minute, 1);
            counts.tokens = corrected(counts.tokens, counts.limits.tokens_per_minute, tokens);
            counts.in_flight = counts.in_flight.saturating_add(1);
            shard.scopes.insert(name.clone(), *counts);
        }
        for (asked, spent) in ask.budgets.iter().zip(&mut seen.budgets) {
            let spend = shard.budget(&asked.name, &asked.period, now);
            spend.local = spend.local.saturating_add(asked.estimate);
            *spent = spend.total();
        }
        seen.scopes = counts.iter().map(Counts::seen).collect();
        Ok((Places(names), seen))
    }

    /// Puts the truth in the place of the estimate, and frees the request's places.
    pub fn settle(&self, ask: &Ask, places: &Places, tokens: u64, spent: &[i128], at: UnixNanos) {
        let mut shard = self.shard(&ask.tag);
        let now = milliseconds(at);
        let more = i64::try_from(i128::from(tokens) - i128::from(ask.tokens)).unwrap_or(i64::MAX);
        for (name, asked) in places.0.iter().zip(&ask.scopes) {
            let mut counts = shard.scopes.get(name).copied().unwrap_or_default();
            if more != 0 && asked.limits.tokens_per_minute.is_some() {
                counts = shard.counts(name, &asked.limits, now);
                counts.tokens = corrected(counts.tokens, asked.limits.tokens_per_minute, more);
            }
            counts.in_flight = counts.in_flight.saturating_sub(1);
            shard.scopes.insert(name.clone(), counts);
        }
        for (asked, spent) in ask.budgets.iter().zip(spent) {
            let spend = shard.budget(&asked.name, &asked.period, now);
            spend.local = spend.local.saturating_add(spent.saturating_sub(asked.estimate));
        }
    }

    /// Changes what is known of a budget.
    pub fn note(
        &self,
        tag: &str,
        name: &str,
        period: &Period,
        now: UnixNanos,
        change: impl FnOnce(&mut Spend),
    ) {
        let mut shard = self.shard(tag);
        change(shard.budget(name, period, milliseconds(now)));
    }

    /// What is known of a budget.
    pub fn spend(&self, tag: &str, name: &str) -> Spend {
        self.shard(tag).spend(name)
    }

    /// What is used of a scope's limits at `now`; changes nothing.
    pub fn used(&self, tag: &str, name: &str, limits: &Limits, now: UnixNanos) -> SeenScope {
        self.shard(tag).counts(name, limits, milliseconds(now)).seen()
    }

    /// How many scopes are counted.
    pub fn scopes(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).scopes.len()).sum()
    }

    fn shard(&self, tag: &str) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(tag);
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let place = hash as usize % self.shards.len();
        #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
        lock(&self.shards[place])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // Counts are whole whenever a lock is let go, however that happens.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// The name under which a scope is counted: its own, or one that it shares for lack of room.
    fn place(&mut self, name: &str, limits: &Limits, now: u64, most: usize) -> String {
        if self.scopes.len() < most || self.scopes.contains_key(name) {
            return name.to_owned();
        }
        if now.abs_diff(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.scopes.retain(|_, counts| !counts.idle(now));
            if self.scopes.len() < most {
                return name.to_owned();
            }
        }
        format!("shared:{limits:?}")
    }

    fn counts(&self, name: &str, limits: &Limits, now: u64) -> Counts {
        let mut counts = self.scopes.get(name).copied().unwrap_or_default();
        counts.limits = *limits;
        counts.flow(now);
        counts
    }

    /// Keeps that the clock was set back also if nothing is taken, else a minute never passes.
    fn set_back(&mut self, name: &str, now: u64) {
        if let Some(counts) = self.scopes.get_mut(name)
            && counts.at.saturating_sub(now) > MINUTE
        {
            counts.at = now;
        }
    }

    fn spend(&self, name: &str) -> Spend {
        self.budgets.get(name).copied().unwrap_or_default()
    }

    fn budget(&mut self, name: &str, period: &Period, now: u64) -> &mut Spend {
        if !self.budgets.contains_key(name) {
            self.budgets.retain(|_, spend| spend.until == 0 || spend.until > now);
        }
        let until = period.end.map_or(0, |end| milliseconds(end).saturating_add(LATE));
        let fresh = Spend { until, ..Spend::default() };
        self.budgets.entry(name.to_owned()).or_insert(fresh)
    }
}

impl Counts {
    /// Lets flow out what does until now. Clocks of two callers may differ by a little, which
    /// counts as no time; one that was set back by more than a minute starts anew.
    fn flow(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at);
        if now >= self.at || self.at - now > MINUTE {
            self.at = now;
        }
        self.requests = drained(self.requests, self.limits.requests_per_minute, passed);
        self.tokens = drained(self.tokens, self.limits.tokens_per_minute, passed);
    }

    fn idle(mut self, now: u64) -> bool {
        self.flow(now);
        self.requests == 0 && self.tokens == 0 && self.in_flight == 0
    }

    fn seen(&self) -> SeenScope {
        let Self { requests, tokens, in_flight, limits, .. } = *self;
        SeenScope { requests, tokens, in_flight: limits.concurrent.map_or(0, |_| in_flight) }
    }
}

impl Spend {
    /// All that is spent and reserved, as far as is known.
    pub fn total(&self) -> i128 {
        self.shared.saturating_add(self.local)
    }

    /// Takes note of what Redis says.
    pub fn learn(&mut self, spent: i128, version: i64) {
        if version > self.version {
            (self.shared, self.version) = (spent, version);
        }
    }

    /// What Redis should begin with, were it empty: what requests in flight here have reserved
    /// comes back when they are settled.
    pub fn floor(&self) -> i128 {
        self.shared.saturating_sub(self.reserved)
    }
}

/// Whole milliseconds since the epoch.
pub(crate) fn milliseconds(at: UnixNanos) -> u64 {
    at.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::AskedScope;
    use crate::limits::Scope;

    fn ask(tenant: &str, limits: Limits, seconds: u64) -> Ask {
        let tag = format!("{{{tenant}}}");
        let scope = AskedScope { scope: Scope::Tenant, name: format!("{tag}:t"), limits };
        let at = UnixNanos(seconds * 1_000_000_000);
        Ask { tag, scopes: vec![scope], budgets: Vec::new(), tokens: 0, at }
    }

    #[test]
    fn strangers_share_once_there_is_no_room_and_have_their_own_once_there_is() {
        let local = Local::with_room_for(2);
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        let mut refused = 0;
        for n in 0..1_000 {
            let ask = ask(&format!("t{n}"), limits, 1_000);
            match local.reserve(&ask) {
                Ok((places, _)) => local.settle(&ask, &places, 0, &[], ask.at),
                Err(_) => refused += 1,
            }
        }
        assert!(local.scopes() <= 3 * SHARDS, "{}", local.scopes());
        assert!(refused > 700, "{refused} shared a count of one");
        for n in 1_000..1_050 {
            local.reserve(&ask(&format!("t{n}"), limits, 61 * n)).unwrap();
        }
    }

    #[test]
    fn what_is_in_flight_is_not_forgotten() {
        let local = Local::with_room_for(1);
        let limits = Limits { concurrent: Some(1), ..Limits::default() };
        let first = ask("a", limits, 0);
        let (places, _) = local.reserve(&first).unwrap();
        for n in 0..500 {
            let _ = local.reserve(&ask(&format!("t{n}"), limits, 10 + n));
        }
        local.reserve(&ask("a", limits, 9_999)).unwrap_err();
        local.settle(&first, &places, 0, &[], UnixNanos(0));
        local.reserve(&ask("a", limits, 9_999)).unwrap();
    }

    #[test]
    fn a_clock_that_jumps_back_neither_refills_nor_locks_out() {
        let local = Local::new();
        let limits = Limits { requests_per_minute: Some(1), ..Limits::default() };
        local.reserve(&ask("a", limits, 1_000)).unwrap();
        local.reserve(&ask("a", limits, 990)).unwrap_err();
        local.reserve(&ask("a", limits, 1_059)).unwrap_err();
        local.reserve(&ask("a", limits, 1_060)).unwrap();
        // An hour back: a minute later it admits again.
        local.reserve(&ask("a", limits, 60)).unwrap_err();
        local.reserve(&ask("a", limits, 119)).unwrap_err();
        local.reserve(&ask("a", limits, 120)).unwrap();
    }
}
