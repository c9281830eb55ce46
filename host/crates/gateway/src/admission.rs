//! Who asks, and whether limits and budgets let them: keys before the body is read, limits once it
//! is known what the request needs.
//!
//! What is not let in for want of a key leaves no record: a stranger must not be able to fill the
//! ledger. It is counted.

use std::time::{Duration, SystemTime};

use tollgate_domain::admission::{Admission, LimitApplied};
use tollgate_domain::{CostOutcome, ErrorKind, Money, UnixNanos};
use tollgate_tenancy::headers::{allowance_headers, limited_headers};
use tollgate_tenancy::{BudgetStanding, Draw, Keys, Limited, Limiter, Per, Reservation, What};

use crate::call::{Caller, LimitReached, Refusal};
use crate::metrics::RequestMeters;
use crate::request::Request;

/// When a client may try again whose limits could not be checked.
const LIMITS_RETRY: Duration = Duration::from_secs(1);

/// Keys and what they may use.
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// Who may ask.
    pub keys: Keys,
    /// What they have used.
    pub limiter: Limiter,
}

/// What a request was let in on.
pub(crate) struct Terms {
    reservation: Reservation,
    /// What it was estimated to cost, where there is a budget.
    cost: Option<Money>,
    /// For the record.
    pub(crate) admission: Admission,
    /// For the client.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Tenancy {
    /// Who shows this key, if there are keys.
    pub(crate) fn authenticate(
        &self,
        key: Option<&str>,
        meters: &RequestMeters,
    ) -> Result<Caller, Refusal> {
        self.keys.authenticate(key, None, now()).map(Caller).map_err(|error| {
            meters.unauthorized(error.name());
            tracing::debug!(reason = error.name(), "a request without a key that holds");
            Refusal::new(ErrorKind::Unauthorized, sentence(&error.to_string()))
        })
    }

    /// Takes what a request is estimated to need. `cost` is asked only if there is a budget.
    pub(crate) async fn reserve(
        &self,
        request: &Request,
        tokens: u64,
        cost: impl FnOnce() -> Option<Money>,
    ) -> Result<Terms, Refusal> {
        let principal = &request.caller.0;
        let cost = principal.has_budgets().then(cost).flatten();
        let model = request.asked.model.as_str();
        let reserved = self.limiter.reserve(principal, model, Draw { tokens, cost }, now()).await;
        let reservation = reserved.map_err(|refused| match refused {
            tollgate_tenancy::Refusal::Limited(limited) => limit_reached(&limited),
            tollgate_tenancy::Refusal::Unavailable(trouble) => {
                tracing::warn!(
                    trouble = trouble.name(),
                    "request refused, since limits are closed"
                );
                let message = "Limits cannot be checked at the moment. Try again shortly.";
                Refusal::new(ErrorKind::LimitsUnavailable, message).retry_after(LIMITS_RETRY)
            }
        })?;
        let allowance = reservation.allowance();
        let admission = Admission {
            key: principal.key_id.clone(),
            limit: None,
            degraded: reservation.degraded().map(|degraded| degraded.policy.name().to_owned()),
            soft_budgets: allowance.soft().map(standing).collect(),
        };
        let headers = allowance_headers(allowance);
        Ok(Terms { reservation, cost, admission, headers })
    }
}

impl Terms {
    /// Puts what was used in the place of what was reserved. Of a price that is not known the
    /// estimate stays.
    pub(crate) fn settle(self, tokens: u64, cost: &CostOutcome) {
        let cost = cost.cost().map(|cost| cost.total);
        self.reservation.settle(Draw { tokens, cost }, now());
    }

    /// Keeps them if what they were reserved for was done, and gives all back if not.
    pub(crate) fn kept_for<T>(self, done: Result<T, Refusal>) -> Result<(Self, T), Refusal> {
        match done {
            Ok(done) => Ok((self, done)),
            Err(refusal) => {
                self.release();
                Err(refusal)
            }
        }
    }

    /// Gives all of it back: nothing was used.
    pub(crate) fn release(self) {
        let nothing = self.cost.map(|cost| Money::new(0, cost.currency));
        self.reservation.settle(Draw { tokens: 0, cost: nothing }, now());
    }
}

fn limit_reached(limited: &Limited) -> Refusal {
    let kind = match limited.what {
        What::Budget => ErrorKind::BudgetExhausted,
        What::Requests | What::Tokens | What::Concurrent => ErrorKind::RateLimited,
    };
    let applied = LimitApplied {
        scope: limited.scope.name().to_owned(),
        what: limited.what.name().to_owned(),
        limit: match (&limited.budget, limited.what) {
            (Some(budget), _) => amount(budget),
            (None, What::Concurrent) => format!("{} at a time", limited.limit),
            (None, _) => format!("{} a minute", limited.limit),
        },
    };
    let mut refusal = Refusal::new(kind, sentence(&limited.to_string()));
    refusal.limit = Some(Box::new(LimitReached { headers: limited_headers(limited), applied }));
    refusal
}

/// `tenant: 10.1 of 12.5 USD a day`.
fn standing(budget: &BudgetStanding) -> String {
    format!("{}: {} of {}", budget.scope.name(), budget.spent.decimal(), amount(budget))
}

fn amount(budget: &BudgetStanding) -> String {
    match budget.per {
        Per::Total => format!("{} in all", budget.amount),
        per => format!("{} a {}", budget.amount, per.name()),
    }
}

/// With a capital and a full stop, as our other messages are.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", rest.as_str().trim_end_matches('.'))
}

fn now() -> UnixNanos {
    SystemTime::now().into()
}
