//! Points in time as they are stored: nanoseconds since the Unix epoch, UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, UTC. Good until the year 2554.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// This point moved later by `length`, or the end of time.
    #[must_use]
    pub fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(nanos(length)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since the epoch, as OpenAI's `created` wants them.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }
}

impl From<SystemTime> for UnixNanos {
    /// A clock set before 1970 reads as 1970.
    fn from(time: SystemTime) -> Self {
        Self(nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

impl From<UnixNanos> for SystemTime {
    fn from(time: UnixNanos) -> Self {
        UNIX_EPOCH + Duration::from_nanos(time.0)
    }
}

/// A length of time in whole nanoseconds, at most `u64::MAX`.
#[must_use]
pub fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// A start and an end; the end is never before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began.
    pub start: UnixNanos,
    /// When it ended.
    pub end: UnixNanos,
}

impl Interval {
    /// From `start` to `end`, or an empty interval at `start` if `end` is earlier.
    #[must_use]
    pub fn new(start: UnixNanos, end: UnixNanos) -> Self {
        Self { start, end: end.max(start) }
    }

    /// How long it lasted.
    #[must_use]
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }

    /// Its length in milliseconds.
    #[must_use]
    pub fn milliseconds(self) -> f64 {
        self.length().as_secs_f64() * 1e3
    }
}
