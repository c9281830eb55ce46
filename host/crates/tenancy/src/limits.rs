//! What a key, a tenant or a model may use: rates, places and money, as values.

use std::time::Duration;

use tollgate_domain::{Currency, Money, UnixNanos};

/// Largest limit of requests, tokens or places: what stays exact in a double (the numbers of
/// Redis' scripts) when it is counted in sixty-thousandths.
pub const LARGEST_LIMIT: u64 = 10_000_000_000;

/// Limits of one scope. `None`: no limit; 0: nothing is admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a minute, and at once after a quiet minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, input and output together, and at once after a quiet minute.
    pub tokens_per_minute: Option<u64>,
    /// Requests at the same time.
    pub concurrent: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What something is limited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One key.
    Key,
    /// All of a tenant.
    Tenant,
    /// What one tenant asks of one model.
    Model,
}

impl Scope {
    /// Its name in headers, messages and on spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::Model => "model",
        }
    }
}

/// How long an amount of money has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// From midnight to midnight, UTC.
    Day,
    /// A month of the calendar, UTC.
    Month,
    /// For ever.
    Total,
}

impl Per {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Total];

    /// Its name in `keys.toml` and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }
}

/// An amount of money for a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The amount.
    pub amount: Money,
    /// How long it has to last.
    pub per: Per,
    /// What may be spent before the soft threshold is reached.
    pub soft: Money,
    /// Whether requests are refused once it is spent; else it is only told.
    pub hard: bool,
}

/// One stretch of time that a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// Its kind.
    pub per: Per,
    /// Its first moment; zero for [`Per::Total`].
    pub start: UnixNanos,
    /// The first moment after it; none for [`Per::Total`].
    pub end: Option<UnixNanos>,
}

const DAY: u64 = 86_400 * 1_000_000_000;

impl Period {
    /// The period of this kind that `at` lies in.
    #[must_use]
    pub fn of(per: Per, at: UnixNanos) -> Self {
        let (start, end) = match per {
            Per::Total => (0, None),
            Per::Day => {
                let start = at.0 - at.0 % DAY;
                (start, Some(UnixNanos(start.saturating_add(DAY))))
            }
            Per::Month => {
                let (year, month, _) = civil(at.0 / DAY);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (days(year, month) * DAY, Some(UnixNanos(days(next.0, next.1).saturating_mul(DAY))))
            }
        };
        Self { per, start: UnixNanos(start), end }
    }

    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: UnixNanos) -> bool {
        self.start <= at && self.end.is_none_or(|end| at < end)
    }

    /// Time from `now` to its end.
    #[must_use]
    pub fn remaining(&self, now: UnixNanos) -> Option<Duration> {
        self.end.map(|end| end.since(now))
    }

    /// `2026-11-26`, `2026-11` or `total`.
    #[must_use]
    pub fn label(&self) -> String {
        let (year, month, day) = civil(self.start.0 / DAY);
        match self.per {
            Per::Day => format!("{year:04}-{month:02}-{day:02}"),
            Per::Month => format!("{year:04}-{month:02}"),
            Per::Total => "total".to_owned(),
        }
    }
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar. With years
/// that begin in March a leap day is the last of its year, which is all there is to it.
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from the epoch to the first of a month, from 1970 on.
fn days(year: u64, month: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let march = if month > 2 { month - 3 } else { month + 9 };
    let of_era = year % 400;
    let of_year = (153 * march + 2) / 5;
    (year / 400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `amount` in parts per million of itself.
pub(crate) fn share(amount: Money, parts_per_million: i128) -> Money {
    let pico = amount.pico.checked_mul(parts_per_million).map_or(amount.pico, |n| n / 1_000_000);
    Money::new(pico, amount.currency)
}

/// What identifies a budget of one scope: no scope has two of the same.
pub(crate) fn identity(budget: &Budget) -> (Currency, Per) {
    (budget.amount.currency, budget.per)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> UnixNanos {
        let time: jiff::Timestamp = text.parse().unwrap();
        UnixNanos(u64::try_from(time.as_nanosecond()).unwrap())
    }

    #[test]
    fn periods_begin_and_end_in_utc() {
        let cases = [
            (Per::Day, "2026-11-26T23:59:59.999999999Z", "2026-11-26", "2026-11-27T00:00:00Z"),
            (Per::Day, "2024-02-29T00:00:00Z", "2024-02-29", "2024-03-01T00:00:00Z"),
            (Per::Month, "2024-02-29T12:00:00Z", "2024-02", "2024-03-01T00:00:00Z"),
            (Per::Month, "2026-12-31T23:59:59Z", "2026-12", "2027-01-01T00:00:00Z"),
            (Per::Month, "1970-01-01T00:00:00Z", "1970-01", "1970-02-01T00:00:00Z"),
        ];
        for (per, time, label, end) in cases {
            let period = Period::of(per, at(time));
            assert_eq!(period.label(), label);
            assert_eq!(period.end, Some(at(end)), "{label}");
            assert!(period.contains(at(time)) && !period.contains(at(end)));
        }
        let total = Period::of(Per::Total, at("2026-11-26T00:00:00Z"));
        assert_eq!((total.label().as_str(), total.end), ("total", None));
    }

    proptest! {
        #[test]
        fn the_calendar_is_that_of_everybody_else(nanos in any::<u64>()) {
            let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap().to_string();
            let now = UnixNanos(nanos);
            prop_assert_eq!(Period::of(Per::Day, now).label(), &time[..10]);
            let month = Period::of(Per::Month, now);
            prop_assert!(month.contains(now));
            prop_assert_eq!(month.label(), &time[..7]);
            prop_assert_eq!(Period::of(Per::Month, month.start), month);
        }
    }
}
