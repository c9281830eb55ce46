//! What everything else speaks of: ids, money, tokens, usage, cost, spans and the record of a
//! request.
//!
//! Pure: no IO, no async, no clock, no randomness. Whatever is here can be stored today and read
//! in ten years.

pub mod admission;
pub mod breaker;
pub mod cost;
pub mod error;
pub mod id;
pub mod money;
pub mod otlp;
pub mod passed;
pub mod place;
pub mod plugin;
pub mod received;
pub mod record;
pub mod sampling;
mod shared;
pub mod span;
pub mod text;
pub mod time;
pub mod upstream;
pub mod usage;
pub mod value;

pub use breaker::BreakerState;
pub use cost::{Cost, CostKind, CostLine, CostOutcome, UnpricedReason};
pub use error::ErrorKind;
pub use id::{RequestId, SpanContext, SpanId, TraceId};
pub use money::{Currency, Money};
pub use plugin::{FaultKind, PluginFault, PluginIdentity};
pub use record::{Outcome, Record};
pub use span::{Resource, Span, Value};
pub use time::UnixNanos;
pub use usage::{TokenUsage, Usage};
