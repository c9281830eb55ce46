//! Sums of what is known of requests: how many, what they used and cost, how long they took and
//! what went wrong, by tenant, model, plugin and time.
//!
//! Pure, so that the commands that read a ledger and the gateway that writes it say the same of
//! the same records. Money is summed in whole pico-units for each currency. What has no amount is
//! counted under its reason, never as zero.

mod amounts;
mod error;
mod group;
mod groups;
mod latency;
mod request;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;
mod written;

pub use amounts::{Amounts, added};
pub use error::SummaryError;
pub use group::{Counts, Dimension, Group, Key, Part, Summary};
pub use groups::{MOST_GROUPS, count, group};
pub use latency::{Latencies, Percentiles};
pub use request::{Cost, Plugin, Request, Tokens};
pub use time::{Day, Period, TypedTime, ago, shown};
