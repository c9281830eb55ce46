//! A stretch of time as it is typed, and the days that requests fall on. All days are UTC.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tollgate_domain::UnixNanos;

/// From `since` to just before `until`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The first moment; none: from the beginning.
    pub since: Option<UnixNanos>,
    /// The first moment after it; none: up to now and on.
    pub until: Option<UnixNanos>,
}

impl Period {
    /// From one typed time to another, relative ones counted from `now`.
    ///
    /// # Errors
    /// Nothing lies between: a sentence that says what to change.
    pub fn between(
        since: Option<TypedTime>,
        until: Option<TypedTime>,
        now: UnixNanos,
    ) -> Result<Self, String> {
        let at = |moment: Option<TypedTime>| moment.map(|moment| moment.at(now));
        match (at(since), at(until)) {
            (Some(since), Some(until)) if since >= until => Err(format!(
                "since is {} and until is {}: nothing lies between; until must be later",
                shown(since),
                shown(until)
            )),
            (since, until) => Ok(Self { since, until }),
        }
    }

    /// Whether a request that began then is meant.
    #[must_use]
    pub fn holds(&self, time: UnixNanos) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// The part of both.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        let since = [self.since, other.since].into_iter().flatten().max();
        let until = [self.until, other.until].into_iter().flatten().min();
        Self { since, until }
    }

    /// From the start of `first` to the end of `last`.
    #[must_use]
    pub fn of_days(first: Day, last: Day) -> Self {
        Self {
            since: Some(first.start()),
            until: last.0.tomorrow().ok().map(|day| Day(day).start()),
        }
    }
}

/// A time as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypedTime {
    /// A point in time.
    At(UnixNanos),
    /// So long before now.
    Ago(Duration),
}

impl TypedTime {
    /// The point in time that is meant, seen from `now`.
    #[must_use]
    pub fn at(self, now: UnixNanos) -> UnixNanos {
        match self {
            Self::At(time) => time,
            Self::Ago(length) => {
                UnixNanos(now.0.saturating_sub(tollgate_domain::time::nanos(length)))
            }
        }
    }
}

impl FromStr for TypedTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(length) = ago(text) {
            return Ok(Self::Ago(length));
        }
        let read = if text.contains(['T', 't', ' ']) {
            text.parse::<Timestamp>().ok().and_then(unix)
        } else {
            Day::parse(text).map(Day::start)
        };
        read.map(Self::At).ok_or_else(|| {
            "write a date such as 2026-01-31, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 7d".to_owned()
        })
    }
}

/// Reads a length of time such as `7d`: a whole number and a unit, one of s, m, h, d and w.
#[must_use]
pub fn ago(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn unix(time: Timestamp) -> Option<UnixNanos> {
    u64::try_from(time.as_nanosecond()).ok().map(UnixNanos)
}

/// A day of the calendar, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Date);

impl Day {
    /// The day of a time.
    #[must_use]
    pub fn of(time: UnixNanos) -> Self {
        let seconds = i64::try_from(time.seconds()).unwrap_or(i64::MAX);
        let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        Self(time.to_zoned_datetime(TimeZone::UTC).date())
    }

    /// Reads `2026-01-31`, of 1970 or later.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let date: Date = plain.then(|| text.parse().ok())??;
        (date.year() >= 1970).then_some(Self(date))
    }

    /// Reads a date, or the day of a time with an offset: a time without one counts as UTC.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        if let Some(day) = Self::parse(text) {
            return Some(day);
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return unix(time).map(Self::of);
        }
        let (date, time) = text.split_at_checked(10)?;
        time.strip_prefix(['T', ' '])?.parse::<jiff::civil::Time>().ok()?;
        Self::parse(date)
    }

    /// Reads a date in a format of `strptime`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn formatted(text: &str, format: &str) -> Result<Self, String> {
        let date = Date::strptime(format, text).map_err(|error| error.to_string())?;
        if date.year() < 1970 { Err("it is before 1970".to_owned()) } else { Ok(Self(date)) }
    }

    /// Its midnight.
    #[must_use]
    pub fn start(self) -> UnixNanos {
        let seconds = self
            .0
            .to_zoned_datetime(TimeZone::UTC)
            .map_or(0, |start| start.timestamp().as_second());
        UnixNanos(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A time for people and for JSON.
#[must_use]
pub fn shown(time: UnixNanos) -> String {
    let length = SignedDuration::from_nanos(i64::try_from(time.0).unwrap_or(i64::MAX));
    Timestamp::from_duration(length).unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seconds(text: &str) -> Option<u64> {
        let now = UnixNanos(1_000_000 * SECOND);
        text.parse::<TypedTime>().ok().map(|moment| moment.at(now).seconds())
    }

    #[test]
    fn times_are_read_as_they_are_typed() {
        for (text, expected) in [
            ("1970-01-02", 86_400),
            ("2026-01-01", 1_767_225_600),
            ("2026-01-01T00:00:00Z", 1_767_225_600),
            ("2026-01-01T02:30:00+02:30", 1_767_225_600),
            ("2026-01-01 00:00:01Z", 1_767_225_601),
            ("0s", 1_000_000),
            ("2h", 992_800),
            ("1w", 395_200),
            ("9999999w", 0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "d",
            "7",
            "-7d",
            "7y",
            "yesterday",
            "2026-1-1",
            "2026-02-29",
            "1969-12-31",
            "2026-01-01T00:00:00",
            "99999999999999999999d",
            "١d",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_period_that_holds_nothing_is_an_error() {
        let now = UnixNanos(1_767_225_600 * SECOND);
        let typed =
            |since: &str, until: &str| Period::between(since.parse().ok(), until.parse().ok(), now);
        let period = typed("2025-12-01", "1d").unwrap();
        assert!(period.holds(UnixNanos(1_766_000_000 * SECOND)) && !period.holds(now));
        let error = typed("2026-02-01", "2026-02-01").unwrap_err();
        assert!(error.contains("2026-02-01T00:00:00Z"), "{error}");
    }

    #[test]
    fn days_of_an_invoice() {
        for (text, day) in [
            ("2026-01-31", "2026-01-31"),
            ("2026-01-31T23:59:59Z", "2026-01-31"),
            ("2026-01-31T23:59:59-05:00", "2026-02-01"),
            ("2026-01-31 23:59:59", "2026-01-31"),
        ] {
            assert_eq!(Day::of_text(text).unwrap().to_string(), day, "{text}");
        }
        for text in ["31.01.2026", "01/31/2026", "2026-01-31x", "2026-01-31 nonsense", ""] {
            assert_eq!(Day::of_text(text), None, "{text}");
        }
        assert_eq!(
            Day::formatted("1/31/2026", "%m/%d/%Y").unwrap(),
            Day::parse("2026-01-31").unwrap()
        );
        assert!(Day::formatted("31/1/2026", "%m/%d/%Y").is_err());
    }

    proptest! {
        #[test]
        fn a_day_holds_its_own_times(time in 0..u64::MAX) {
            let day = Day::of(UnixNanos(time));
            let period = Period::of_days(day, day);
            prop_assert!(period.holds(UnixNanos(time)), "{} {}", time, day);
            prop_assert_eq!(Day::parse(&day.to_string()), Some(day));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,30}|[0-9TZ:+ -]{8,26}") {
            let _ = text.parse::<TypedTime>();
            let _ = Day::of_text(&text);
            let _ = Day::formatted(&text, &text);
        }
    }
}
