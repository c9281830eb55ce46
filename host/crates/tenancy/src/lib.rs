//! Who asks and what they may use: API keys, rate limits, budgets in money.
//!
//! Three steps of a request's life, and nothing else of it:
//!
//! 1. [`Keys::authenticate`] tells who asks ([`Principal`]), from `keys.toml`, which is watched.
//! 2. [`Limiter::reserve`] takes what the request is estimated to need, from the limits and budgets
//!    of its key, its tenant and its model: all or nothing. A refusal ([`Limited`]) says which
//!    limit it was and when to come again.
//! 3. [`Reservation::settle`] puts the truth in the place of the estimate.
//!
//! One process counts by itself; many share their counts through Redis, by the same rule. What
//! holds in which case is stated in [`Limiter`]'s module. How all of that looks in headers is in
//! [`headers`].

mod admission;
mod allowance;
mod ask;
mod edit;
mod error;
pub mod headers;
mod keys;
mod limiter;
mod limits;
mod local;
mod principal;
mod rules;
mod secret;
mod shared;
mod standing;
mod written;

pub use allowance::{Allowance, BudgetStanding, Limited, What, Window};
pub use edit::{KeyInfo, KeyOrder, NewKey, create, list, revoke};
pub use error::{TenancyError, TenancyErrorKind};
pub use keys::{KEYS_VARIABLE, Keys};
pub use limiter::{Degraded, Draw, Limiter, LimiterStatus, Refusal, Reservation, Spent};
pub use limits::{Budget, LARGEST_LIMIT, Limits, Per, Period, Scope};
pub use principal::{AuthError, Principal};
pub use secret::{Digest, SECRET_PREFIX};
pub use shared::{RedisPolicy, RedisPong, RedisSettings, RedisTrouble, ping};
pub use standing::{KeyStanding, Standing, Standings, Used};
