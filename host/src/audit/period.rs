//! A stretch of time as it is typed.

use tollgate_domain::UnixNanos;
use tollgate_summary::{Period, TypedTime};

/// Which requests, by when they began.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Typed {
    /// Only requests that began then or later: 2026-01-31 (its start, UTC), 2026-01-31T12:00:00Z, or 7d for the last seven
    /// days (s, m, h, d, w)
    #[arg(long, value_name = "TIME")]
    since: Option<TypedTime>,

    /// Only requests that began before then; written like --since, so that a date leaves out the day itself
    #[arg(long, value_name = "TIME")]
    until: Option<TypedTime>,
}

impl Typed {
    /// The period that is meant, relative times counted from `now`.
    pub(super) fn period(&self, now: UnixNanos) -> Result<Period, String> {
        Period::between(self.since, self.until, now)
    }
}
