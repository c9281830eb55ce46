//! Moments in a configuration: an RFC 3339 date, meaning its midnight in UTC, or a date with time and offset.

use serde::{Deserialize, Deserializer, de::Error};
use std::str::FromStr;

/// Nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn nanos(self) -> u64 {
        self.0
    }
}

impl FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text).map(Self).ok_or_else(|| {
            format!("`{text}` is neither a date such as 2026-01-31 nor a date-time such as 2026-01-31T12:00:00Z")
        })
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn parse(text: &str) -> Option<u64> {
    let (date, time) = text.split_at_checked(10)?;
    let days = days_since_epoch(date)?;
    let seconds = if time.is_empty() { 0 } else { seconds_of_day(time)? };
    u64::try_from(days * 86_400 + seconds).ok()?.checked_mul(1_000_000_000)
}

fn days_since_epoch(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if parts.next().is_some() || !(1..=last).contains(&day) {
        return None;
    }
    // A year that begins in March has its leap day at the end, so the days before a month are a straight line.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_of_years =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(days_of_years + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// `T12:00:00`, then `Z` or an offset.
fn seconds_of_day(time: &str) -> Option<i64> {
    let time = time.strip_prefix(['T', 't', ' '])?;
    let (clock, zone) = time.split_at_checked(8)?;
    let mut parts = clock.split(':');
    let (hour, minute, second) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, rest) = if let Some(rest) = zone.strip_prefix('+') {
                (1, rest)
            } else {
                (-1, zone.strip_prefix('-')?)
            };
            let (hours, minutes) = rest.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    Some(hour * 3600 + minute * 60 + second - offset)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    (text.len() == length && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_and_date_times() {
        let seconds = |text: &str| text.parse::<Instant>().map(|i| i.0 / 1_000_000_000).ok();
        assert_eq!(seconds("1970-01-01"), Some(0));
        assert_eq!(seconds("2000-02-29"), Some(951_782_400));
        assert_eq!(seconds("2026-01-01"), Some(1_767_225_600));
        assert_eq!(seconds("2026-01-01T00:00:00Z"), Some(1_767_225_600));
        assert_eq!(seconds("2026-01-01T02:30:00+02:30"), Some(1_767_225_600));
        assert_eq!(seconds("2025-12-31T19:00:00-05:00"), Some(1_767_225_600));
        for wrong in [
            "",
            "2026",
            "2026-1-1",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-00",
            "2026-01-01T",
            "2026-01-01T00:00:00",
            "2026-01-01T24:00:00Z",
            "1969-12-31",
            "2026-01-01Z",
            "９０２６-01-01",
            "9999-01-01",
            "2026-01-01T00:00:00+1:00",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Each day follows the one before it.
        #[test]
        fn days_count_up(year in 1970_i64..2500, month in 1_i64..=12, day in 1_i64..=27) {
            let days = |day: i64| days_since_epoch(&format!("{year:04}-{month:02}-{day:02}"));
            prop_assert_eq!(days(day + 1), days(day).map(|d| d + 1));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,30}|[0-9TZ:+ -]{8,26}") {
            let _ = text.parse::<Instant>();
        }
    }
}
