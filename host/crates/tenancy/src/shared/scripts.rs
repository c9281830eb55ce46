//! The three scripts, what they are given and what they answer.
//!
//! All keys of a call begin with the tenant's hash tag, `tollgate:{acme}:...`, so that they lie in
//! one slot of a cluster, and all are declared. `EVALSHA` first, the whole script only to a server
//! that does not know it.

use std::time::Duration;

use redis::{Script, ScriptInvocation};
use tollgate_domain::UnixNanos;
use tollgate_domain::money::PICO_PER_UNIT;

use crate::admission::{Ask, Seen, SeenScope};
use crate::local::milliseconds;

/// How long the estimate of a request that is neither renewed nor settled can still be told from
/// its truth: longer than a gateway may be cut off from Redis.
const HOLD: Duration = Duration::from_secs(3600);
/// How long it is known that a request was settled, so that it is not settled twice.
const SETTLED: Duration = Duration::from_secs(120);
/// Most whole units of a currency: exact in a double, with room to add.
const MOST_UNITS: i128 = 4_000_000_000_000_000;

#[derive(Debug)]
pub(crate) struct Scripts {
    reserve: Script,
    settle: Script,
    renew: Script,
    prefix: String,
    lease: Duration,
    /// The clock is handed in, not the server's.
    given_clock: bool,
}

/// What is left to say to Redis of a request that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub id: String,
    pub ask: Ask,
    pub tokens: u64,
    /// Pico-units, in the order of the budgets asked for.
    pub spent: Vec<i128>,
    pub at: UnixNanos,
    /// Whether Redis said that it counts the estimate.
    pub counted: bool,
    /// How often Redis answered it with an error.
    pub refusals: u32,
}

/// What a budget stands at in Redis, or is known to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    /// Pico-units spent and reserved by all.
    pub spent: i128,
    /// The later of two answers has the higher one.
    pub version: i64,
}

/// A request in flight, to be renewed.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub id: String,
    pub mark: String,
    pub places: Vec<String>,
}

impl Scripts {
    pub fn new(prefix: &str, lease: Duration, given_clock: bool) -> Self {
        let script = |text| Script::new(&format!("{}{text}", include_str!("common.lua")));
        Self {
            reserve: script(include_str!("reserve.lua")),
            settle: script(include_str!("settle.lua")),
            renew: script(include_str!("renew.lua")),
            prefix: prefix.to_owned(),
            lease,
            given_clock,
        }
    }

    /// `known`: for each budget what it begins with if Redis knows nothing of it.
    pub fn reserve(&self, ask: &Ask, id: &str, known: &[Stand]) -> ScriptInvocation<'_> {
        let mut call = self.reserve.prepare_invoke();
        self.keys(&mut call, ask, id);
        call.arg(self.clock(ask.at)).arg(whole_milliseconds(self.lease));
        call.arg(whole_milliseconds(HOLD)).arg(id).arg(ask.tokens);
        call.arg(ask.scopes.len()).arg(ask.budgets.len());
        for asked in &ask.scopes {
            let limits = &asked.limits;
            call.arg(limit(limits.requests_per_minute)).arg(limit(limits.tokens_per_minute));
            call.arg(limit(limits.concurrent));
        }
        for (asked, known) in ask.budgets.iter().zip(known) {
            call.arg(u8::from(asked.budget.hard));
            money(&mut call, asked.budget.amount.pico);
            money(&mut call, asked.estimate);
            money(&mut call, known.spent);
            call.arg(known.version).arg(ends(asked.period.end));
        }
        call
    }

    /// Whether it was admitted and what was seen, with the budgets' versions; none if that is no
    /// answer of the script.
    pub fn reserved(ask: &Ask, answer: &[i64]) -> Option<(bool, Seen, Vec<Stand>)> {
        let (admitted, values) = answer.split_first()?;
        let (scopes, budgets) = values.split_at_checked(ask.scopes.len().checked_mul(3)?)?;
        if budgets.len() != ask.budgets.len() * 3 {
            return None;
        }
        let count = |value: &i64| u64::try_from(*value).unwrap_or(0);
        let (scopes, _) = scopes.as_chunks::<3>();
        let scope = |[requests, tokens, in_flight]: &[i64; 3]| SeenScope {
            requests: count(requests),
            tokens: count(tokens),
            in_flight: count(in_flight),
        };
        let scopes = scopes.iter().map(scope).collect();
        let stands = stands(budgets);
        let budgets = stands.iter().map(|stand| stand.spent).collect();
        Some((*admitted == 1, Seen { scopes, budgets }, stands))
    }

    pub fn settle(&self, owed: &Owed, known: &[Stand]) -> ScriptInvocation<'_> {
        let Owed { id, ask, tokens, spent, at, .. } = owed;
        let mut call = self.settle.prepare_invoke();
        self.keys(&mut call, ask, id);
        call.arg(self.clock(*at)).arg(whole_milliseconds(SETTLED));
        call.arg(id).arg(*tokens).arg(ask.tokens);
        call.arg(ask.scopes.len()).arg(ask.budgets.len());
        for asked in &ask.scopes {
            let limits = &asked.limits;
            call.arg(limit(limits.requests_per_minute)).arg(limit(limits.tokens_per_minute));
        }
        for ((asked, spent), known) in ask.budgets.iter().zip(spent).zip(known) {
            money(&mut call, *spent);
            money(&mut call, spent.saturating_sub(asked.estimate));
            money(&mut call, known.spent);
            call.arg(known.version).arg(ends(asked.period.end));
        }
        call
    }

    /// What each budget stands at after it.
    pub fn settled(answer: &[i64]) -> Vec<Stand> {
        stands(answer.get(1..).unwrap_or_default())
    }

    pub fn renew(&self, place: &Place) -> ScriptInvocation<'_> {
        let mut call = self.renew.prepare_invoke();
        call.key(&place.mark);
        for key in &place.places {
            call.key(key);
        }
        call.arg("").arg(whole_milliseconds(self.lease)).arg(whole_milliseconds(HOLD));
        call.arg(&place.id);
        call
    }

    /// What of a request is to be renewed; none while the clock is handed in.
    pub fn place(&self, ask: &Ask, id: &str) -> Option<Place> {
        if self.given_clock {
            return None;
        }
        let limited = ask.scopes.iter().filter(|asked| asked.limits.concurrent.is_some());
        let places = limited.map(|asked| self.places_key(&asked.name)).collect();
        Some(Place { id: id.to_owned(), mark: self.mark(&ask.tag, id), places })
    }

    /// How often places are renewed.
    pub fn renew_every(&self) -> Duration {
        self.lease / 3
    }

    fn keys(&self, call: &mut ScriptInvocation<'_>, ask: &Ask, id: &str) {
        call.key(self.mark(&ask.tag, id));
        for asked in &ask.scopes {
            call.key(format!("{}{}", self.prefix, asked.name)).key(self.places_key(&asked.name));
        }
        for asked in &ask.budgets {
            call.key(format!("{}{}", self.prefix, asked.name));
        }
    }

    fn mark(&self, tag: &str, id: &str) -> String {
        format!("{}{tag}:r:{id}", self.prefix)
    }

    fn places_key(&self, name: &str) -> String {
        format!("{}{name}:places", self.prefix)
    }

    fn clock(&self, at: UnixNanos) -> String {
        if self.given_clock { milliseconds(at).to_string() } else { String::new() }
    }
}

fn limit(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

/// Milliseconds of the end of a period and a day for requests that end late; 0: it has none.
fn ends(end: Option<UnixNanos>) -> u64 {
    end.map_or(0, |end| milliseconds(end).saturating_add(86_400_000))
}

fn whole_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whole units, rounded down, and the rest.
fn money(call: &mut ScriptInvocation<'_>, pico: i128) {
    let (units, rest) = limbs(pico);
    call.arg(units).arg(rest);
}

fn limbs(pico: i128) -> (i64, i64) {
    let units = pico.div_euclid(PICO_PER_UNIT).clamp(-MOST_UNITS, MOST_UNITS);
    let rest = pico.rem_euclid(PICO_PER_UNIT);
    (i64::try_from(units).unwrap_or(0), i64::try_from(rest).unwrap_or(0))
}

fn stands(values: &[i64]) -> Vec<Stand> {
    let (stands, _) = values.as_chunks::<3>();
    let stand = |[units, rest, version]: &[i64; 3]| Stand {
        spent: i128::from(*units) * PICO_PER_UNIT + i128::from(*rest),
        version: *version,
    };
    stands.iter().map(stand).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_numbers_say_the_same_as_one(pico in -(1i128 << 90)..(1i128 << 90)) {
            let (units, rest) = limbs(pico);
            prop_assert!((0..1_000_000_000_000).contains(&rest));
            prop_assert_eq!(stands(&[units, rest, 7]), vec![Stand { spent: pico, version: 7 }]);
        }
    }
}
