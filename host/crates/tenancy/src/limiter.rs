//! What gateways use: reserve before a request, settle after it.
//!
//! # What is guaranteed
//!
//! - *Rates.* Over any stretch of time no more requests, and no more tokens as estimated, are
//!   admitted than one minute's worth and what flows out meanwhile. Tokens as used can exceed
//!   that by what requests in flight at the beginning of the stretch had estimated too much.
//! - *Places.* Never more requests at the same time than the limit. In Redis a place that is not
//!   renewed for a lease is free: one of a gateway that was killed.
//! - *Budgets.* What is spent exceeds a hard budget by no more than what the requests in flight
//!   cost beyond their estimates, all together. A request counts to the period that it came in.
//! - *All or nothing.* A request that one scope refuses takes nothing of any other.
//!
//! While Redis is away and the policy is `local` all of that holds for each gateway by itself; what
//! was admitted then does not take places of what is admitted afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_domain::{Money, UnixNanos};

use crate::admission::{Ask, allowance};
use crate::allowance::{Allowance, Limited};
use crate::ask::{ask, estimates, key_budgets, tenant_budgets};
use crate::error::TenancyError;
use crate::keys::Keys;
use crate::limits::LARGEST_LIMIT;
use crate::local::{Local, Places};
use crate::principal::Principal;
use crate::shared::{Answer, Owed, RedisPolicy, RedisSettings, RedisTrouble, SharedStore};
use crate::standing::{Standings, standings};

/// Counts what is used and says who may go on. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Limiter {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    local: Arc<Local>,
    shared: Option<SharedStore>,
}

/// What a request takes: an estimate before it, the truth after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// Input and output tokens together.
    pub tokens: u64,
    /// What it costs. None before it: nothing is reserved, only that the budgets are not spent is
    /// made sure. None after it, as of a request that has no price: the estimate stays.
    pub cost: Option<Money>,
}

/// What was spent once, as the ledger tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Who pays.
    pub tenant: Option<String>,
    /// With which key.
    pub key_id: Option<String>,
    /// When the request came in, or any moment of the same day if many are added up.
    pub at: UnixNanos,
    /// How much.
    pub cost: Money,
}

/// Why a request does not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A limit is reached: 429.
    #[error("{0}")]
    Limited(Box<Limited>),
    /// Redis is needed and does not help: 503.
    #[error("limits cannot be checked at the moment; try again")]
    Unavailable(RedisTrouble),
}

/// Redis did not help with a request, and what came of that, for the span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Degraded {
    /// What was wrong.
    pub trouble: RedisTrouble,
    /// What was done.
    pub policy: RedisPolicy,
}

/// How the limiter stands, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimiterStatus {
    /// Scopes that are counted in this process.
    pub local_scopes: usize,
    /// Whether Redis is used and away.
    pub redis_away: bool,
    /// Requests that have ended and that Redis has not been told of.
    pub waiting: usize,
}

impl Limiter {
    /// One that counts alone.
    #[must_use]
    pub fn local() -> Self {
        Self { core: Arc::new(Core { local: Arc::new(Local::new()), shared: None }) }
    }

    /// One that shares its counts with all others that use the same Redis. Does not wait for it.
    ///
    /// # Errors
    /// The address is none, or it is called outside of a tokio runtime.
    pub fn shared(settings: &RedisSettings) -> Result<Self, TenancyError> {
        let local = Arc::new(Local::new());
        let shared = SharedStore::new(settings, Arc::clone(&local))?;
        Ok(Self { core: Arc::new(Core { local, shared: Some(shared) }) })
    }

    /// Takes what a request is estimated to need from the limits of its key, its tenant and its
    /// model, and from all their budgets; or nothing. `now` is the wall clock; with Redis rates
    /// and places go by the server's.
    ///
    /// # Errors
    /// A limit is reached, or Redis is away and the policy is `closed`.
    pub async fn reserve(
        &self,
        principal: &Principal,
        model: &str,
        estimate: Draw,
        now: UnixNanos,
    ) -> Result<Reservation, Refusal> {
        let ask = ask(principal, model, estimate, now);
        if ask.scopes.is_empty() && ask.budgets.is_empty() {
            return Ok(Reservation::free(&self.core));
        }
        match &self.core.shared {
            None => self.reserve_here(ask, None),
            Some(shared) => self.reserve_shared(shared, ask).await,
        }
    }

    /// Tells what was spent before this process began, so that budgets go on from there: all of
    /// the current day and month, and all there ever was for budgets `per = "total"`. Budgets that
    /// Redis knows stay as they are. May be called again, as when `keys.toml` has new budgets.
    pub fn restore(&self, keys: &Keys, spent: impl IntoIterator<Item = Spent>, now: UnixNanos) {
        let rules = keys.rules();
        let mut sums = HashMap::new();
        for spent in spent {
            let budgets = tenant_budgets(&rules, spent.tenant.as_deref(), now).chain(key_budgets(
                &rules,
                spent.tenant.as_deref(),
                spent.key_id.as_deref(),
                now,
            ));
            for (tag, asked) in budgets {
                let counts = asked.budget.amount.currency == spent.cost.currency;
                if counts && asked.period.contains(spent.at) {
                    let sum = sums.entry(asked.name).or_insert((tag, asked.period, 0i128));
                    sum.2 = sum.2.saturating_add(spent.cost.pico);
                }
            }
        }
        for (name, (tag, period, sum)) in sums {
            self.core.local.note(&tag, &name, &period, now, |spend| {
                spend.shared = spend.shared.max(sum.saturating_sub(spend.local));
            });
        }
    }

    /// Takes what was used without having been asked for, as of a request that another program
    /// served: budgets count it, whether they are spent or not, and rates do not. Never waits.
    pub fn spend(&self, principal: &Principal, model: &str, used: Draw, now: UnixNanos) {
        let mut ask = ask(principal, model, Draw::default(), now);
        ask.scopes.clear();
        if !ask.budgets.is_empty() {
            let id = self.core.shared.as_ref().map(SharedStore::id);
            self.core.settle(Held { ask, id, taken: Taken::Nothing }, Some(used), now);
        }
    }

    /// Whether budgets are kept where others keep them too, whatever becomes of this gateway.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.core.shared.is_some()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> LimiterStatus {
        let shared = self.core.shared.as_ref();
        LimiterStatus {
            local_scopes: self.core.local.scopes(),
            redis_away: shared.is_some_and(SharedStore::is_away),
            waiting: shared.map_or(0, SharedStore::waiting),
        }
    }

    /// What everybody may use and has used, as far as this process knows.
    #[must_use]
    pub fn standings(&self, keys: &Keys, most: usize, now: UnixNanos) -> Standings {
        let redis = self.core.shared.is_some();
        standings(&self.core.local, &keys.rules(), redis, most, now)
    }

    /// Waits until Redis has been told of all requests that have ended, at most for `within`.
    /// False: it has not.
    pub async fn drain(&self, within: Duration) -> bool {
        let begun = Instant::now();
        while self.status().waiting > 0 {
            if begun.elapsed() >= within {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    async fn reserve_shared(&self, shared: &SharedStore, ask: Ask) -> Result<Reservation, Refusal> {
        let id = shared.id();
        let (trouble, asked) = match shared.reserve(&ask, &id).await {
            Answer::Admitted(seen) => {
                let allowance = allowance(&ask, &seen);
                let held = Held { ask, id: Some(id), taken: Taken::Shared };
                return Ok(Reservation::new(&self.core, held, allowance, None));
            }
            Answer::Refused(limited) => return Err(Refusal::Limited(limited)),
            Answer::Trouble { trouble, asked } => (trouble, asked),
        };
        let degraded = Degraded { trouble, policy: shared.policy };
        let admitted = match shared.policy {
            RedisPolicy::Closed => Err(Refusal::Unavailable(trouble)),
            RedisPolicy::Local => self.reserve_here(ask.clone(), Some((id.clone(), degraded))),
            RedisPolicy::Open => {
                let held = Held { ask: ask.clone(), id: Some(id.clone()), taken: Taken::Nothing };
                Ok(Reservation::new(&self.core, held, Allowance::default(), Some(degraded)))
            }
        };
        // Redis may have taken something before it was given up.
        if admitted.is_err() && asked {
            shared.cancel(&ask, &id);
        }
        admitted
    }

    fn reserve_here(
        &self,
        ask: Ask,
        instead: Option<(String, Degraded)>,
    ) -> Result<Reservation, Refusal> {
        let (places, seen) = self.core.local.reserve(&ask).map_err(Refusal::Limited)?;
        let allowance = allowance(&ask, &seen);
        let (id, degraded) = instead.unzip();
        let held = Held { ask, id, taken: Taken::Local(places) };
        Ok(Reservation::new(&self.core, held, allowance, degraded))
    }
}

/// What a request holds of its limits. Dropped without [`Reservation::settle`], it counts as
/// having used what was estimated.
#[must_use = "a reservation that is dropped counts as the estimate"]
pub struct Reservation {
    core: Arc<Core>,
    held: Option<Held>,
    allowance: Allowance,
    degraded: Option<Degraded>,
}

#[derive(Debug)]
struct Held {
    ask: Ask,
    /// Its name in Redis, if that is used.
    id: Option<String>,
    taken: Taken,
}

/// From where the estimate was taken.
#[derive(Debug)]
enum Taken {
    Local(Places),
    Shared,
    Nothing,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("held", &self.held)
            .field("degraded", &self.degraded)
            .finish_non_exhaustive()
    }
}

impl Reservation {
    fn new(core: &Arc<Core>, held: Held, allowance: Allowance, degraded: Option<Degraded>) -> Self {
        Self { core: Arc::clone(core), held: Some(held), allowance, degraded }
    }

    /// Of whom nothing is limited.
    fn free(core: &Arc<Core>) -> Self {
        let allowance = Allowance::default();
        Self { core: Arc::clone(core), held: None, allowance, degraded: None }
    }

    /// What was left when it was made, with this request taken off.
    #[must_use]
    pub fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Whether it was made without Redis, though Redis is used.
    #[must_use]
    pub fn degraded(&self) -> Option<Degraded> {
        self.degraded
    }

    /// Puts the truth in the place of the estimate and frees the request's places. Never waits:
    /// Redis is told in the background.
    pub fn settle(mut self, used: Draw, now: UnixNanos) {
        if let Some(held) = self.held.take() {
            self.core.settle(held, Some(used), now);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let at = held.ask.at;
            self.core.settle(held, None, at);
        }
    }
}

impl Core {
    fn settle(&self, held: Held, used: Option<Draw>, now: UnixNanos) {
        let Held { ask, id, taken } = held;
        let tokens = used.map_or(ask.tokens, |used| used.tokens.min(2 * LARGEST_LIMIT));
        let spent = match used.and_then(|used| used.cost) {
            None => ask.budgets.iter().map(|asked| asked.estimate).collect(),
            Some(cost) => estimates(&ask.budgets, cost),
        };
        let counted = matches!(taken, Taken::Shared);
        match taken {
            Taken::Local(places) => self.local.settle(&ask, &places, tokens, &spent, now),
            Taken::Shared | Taken::Nothing => {
                for (asked, spent) in ask.budgets.iter().zip(&spent) {
                    self.local.note(&ask.tag, &asked.name, &asked.period, now, |spend| {
                        // What Redis counts stays so until it has taken note of the truth.
                        let counted = if counted { asked.estimate } else { 0 };
                        spend.local = spend.local.saturating_add(spent.saturating_sub(counted));
                    });
                }
            }
        }
        if let (Some(id), Some(shared)) = (id, &self.shared) {
            shared.settle(Owed { id, ask, tokens, spent, at: now, counted, refusals: 0 });
        }
    }
}
