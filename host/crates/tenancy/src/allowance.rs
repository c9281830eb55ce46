//! What a request is told about its limits: what is left, or why it was refused.

use std::fmt;
use std::time::Duration;

use tollgate_domain::Money;

use crate::limits::{Per, Scope};

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// For whom it is limited.
    pub scope: Scope,
    /// The limit, per minute.
    pub limit: u64,
    /// What could be taken now, in one go.
    pub remaining: u64,
    /// Until all of it could be taken, if nobody takes any meanwhile.
    pub reset_after: Duration,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStanding {
    /// Whose it is.
    pub scope: Scope,
    /// How long it has to last.
    pub per: Per,
    /// How much it is.
    pub amount: Money,
    /// What is spent of it, with what is reserved by requests in flight.
    pub spent: Money,
    /// Whether its soft threshold is reached.
    pub soft_reached: bool,
    /// Until the next period begins; none if none does.
    pub reset_after: Option<Duration>,
}

impl BudgetStanding {
    /// What is left of it; never below zero.
    #[must_use]
    pub fn remaining(&self) -> Money {
        let pico = self.amount.pico.saturating_sub(self.spent.pico).max(0);
        Money::new(pico, self.amount.currency)
    }
}

/// What is left to whoever asked: of several scopes the window with the least left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests: Option<Window>,
    /// Tokens in a minute.
    pub tokens: Option<Window>,
    /// All budgets of the key and of the tenant.
    pub budgets: Vec<BudgetStanding>,
}

impl Allowance {
    /// The budgets whose soft threshold is reached, for a header and an event of the span.
    pub fn soft(&self) -> impl Iterator<Item = &BudgetStanding> {
        self.budgets.iter().filter(|budget| budget.soft_reached)
    }
}

/// What there was not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Requests in a minute.
    Requests,
    /// Tokens in a minute.
    Tokens,
    /// Requests at the same time.
    Concurrent,
    /// Money.
    Budget,
}

impl What {
    /// Its name on spans, in metrics, and as OpenAI's `type` of the error.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Concurrent => "concurrent",
            Self::Budget => "budget",
        }
    }
}

/// A refusal. Of several reasons it gives the one that lasts longest, so that whoever waits as
/// long as it says does not wait in vain. Nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Whose limit it is.
    pub scope: Scope,
    /// Of what.
    pub what: What,
    /// The limit; 0 for a budget, see [`Limited::budget`].
    pub limit: u64,
    /// What is left of it; 0 for a budget.
    pub remaining: u64,
    /// What the request needs of it; 0 for a budget.
    pub needed: u64,
    /// Until nothing of it is used, if nobody uses any meanwhile. Of places: unknown, so zero.
    pub reset_after: Duration,
    /// After which the same request may be admitted; none: never, as things are configured.
    pub retry_after: Option<Duration>,
    /// The budget, where it is one.
    pub budget: Option<BudgetStanding>,
    /// How all limits stand, for headers.
    pub allowance: Allowance,
}

impl Limited {
    /// Status of the HTTP answer, always 429. 402 would fit a budget, but OpenAI answers 429 with
    /// the code `insufficient_quota`, so that is what clients know how to read, and many treat a
    /// 402 as a fault of the gateway.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        429
    }

    /// OpenAI's `code` of the error: `rate_limit_exceeded`, or `insufficient_quota` of a budget,
    /// which does not refill within its period.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.what {
            What::Budget => "insufficient_quota",
            What::Requests | What::Tokens | What::Concurrent => "rate_limit_exceeded",
        }
    }

    /// OpenAI's `type` of the error.
    #[must_use]
    pub fn error_type(&self) -> &'static str {
        match self.what {
            What::Budget => "insufficient_quota",
            What::Requests | What::Tokens | What::Concurrent => self.what.name(),
        }
    }

    /// Whether a client should try again by itself. Not where it would be for ever, and not where
    /// it takes until the next day or month.
    #[must_use]
    pub fn worth_retrying(&self) -> bool {
        self.what != What::Budget && self.retry_after.is_some()
    }
}

impl std::error::Error for Limited {}

impl fmt::Display for Limited {
    /// A sentence for the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, needed, remaining, .. } = self;
        let whose = match self.scope {
            Scope::Key => "this API key",
            Scope::Tenant => "this tenant",
            Scope::Model => "this model",
        };
        let what = match self.what {
            What::Requests => "requests per minute",
            What::Tokens => "tokens per minute",
            What::Concurrent => "requests at the same time",
            What::Budget => return self.budget_message(f, whose),
        };
        match (self.retry_after, self.what) {
            (None, What::Tokens) if *limit > 0 => write!(
                f,
                "the request needs {needed} tokens, and the limit of {whose} is {limit} {what}: it can never be admitted; \
                 make it shorter or lower max_tokens"
            ),
            (None, _) => write!(f, "{whose} is not admitted: its limit is {limit} {what}"),
            (Some(retry), What::Tokens) => write!(
                f,
                "rate limit of {whose} reached: {limit} {what}, {remaining} left, {needed} needed; try again in {}",
                seconds(retry)
            ),
            (Some(retry), _) => {
                write!(
                    f,
                    "rate limit of {whose} reached: {limit} {what}; try again in {}",
                    seconds(retry)
                )
            }
        }
    }
}

impl Limited {
    fn budget_message(&self, f: &mut fmt::Formatter<'_>, whose: &str) -> fmt::Result {
        let Some(budget) = &self.budget else { return write!(f, "the budget of {whose} is spent") };
        let per = match budget.per {
            Per::Day => " per day",
            Per::Month => " per month",
            Per::Total => "",
        };
        write!(f, "the budget of {whose} does not suffice: {}{per}, ", budget.amount)?;
        write!(f, "{} left", budget.remaining().decimal())?;
        match (self.retry_after, budget.reset_after) {
            (Some(_), Some(reset)) => write!(f, "; it begins anew in {}", seconds(reset)),
            (None, Some(_)) => write!(f, "; the request alone would exceed all of it"),
            _ => Ok(()),
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> String {
    format!("{} s", whole_seconds(time).max(1))
}

/// Seconds, rounded up, so that whoever waits as long does not come too early.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}
