//! Percentiles of durations, in memory that does not grow with the requests.
//!
//! A report may have many small groups and a few huge ones. A sorted list is exact, and small while a group is; from
//! [`MOST_EXACT`] values on, an HDR histogram of three significant digits takes over, which is within 0.1 % and never
//! larger than about 200 KiB.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Most values that are kept one by one.
const MOST_EXACT: usize = 4096;

/// Nanoseconds in a unit of the histogram.
const UNIT: u64 = 1000;

/// Durations in nanoseconds.
#[derive(Debug)]
pub enum Latencies {
    /// Few, one by one.
    Exact(Vec<u64>),
    /// Many.
    Histogram(Box<Histogram<u64>>),
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half take at most so long.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one of a hundred.
    pub p99: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, nanos: u64) {
        match self {
            Self::Exact(values) if values.len() < MOST_EXACT => values.push(nanos),
            Self::Exact(values) => {
                // Three digits are among those that it can have.
                let Ok(mut histogram) = Histogram::new(3) else { return };
                for value in values.iter().chain([&nanos]) {
                    record(&mut histogram, *value);
                }
                *self = Self::Histogram(Box::new(histogram));
            }
            Self::Histogram(histogram) => record(histogram, nanos),
        }
    }

    /// The percentiles, by nearest rank; none of nothing.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at: Box<dyn Fn(f64) -> u64> = match self {
            Self::Exact(values) if values.is_empty() => return None,
            Self::Exact(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable();
                Box::new(move |share| nearest_rank(&sorted, share))
            }
            Self::Histogram(histogram) => {
                Box::new(|share| histogram.value_at_quantile(share).saturating_mul(UNIT))
            }
        };
        let milliseconds = |share| rounded(at(share));
        Some(Percentiles {
            p50: milliseconds(0.5),
            p90: milliseconds(0.9),
            p99: milliseconds(0.99),
        })
    }
}

/// A histogram that grows takes every value.
fn record(histogram: &mut Histogram<u64>, nanos: u64) {
    let _ = histogram.record(nanos.saturating_add(UNIT / 2) / UNIT);
}

/// The smallest value that at least this share of all does not exceed.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most a few thousand values"
)]
fn nearest_rank(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Milliseconds to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "a duration for people")]
fn rounded(nanos: u64) -> f64 {
    (nanos as f64 / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn percentiles(values: &[u64]) -> Option<Percentiles> {
        let mut latencies = Latencies::default();
        values.iter().for_each(|value| latencies.add(*value));
        latencies.percentiles()
    }

    #[test]
    fn small_groups_are_exact() {
        assert_eq!(percentiles(&[]), None);
        let one = percentiles(&[1_234_567]).unwrap();
        assert_eq!((one.p50, one.p90, one.p99), (1.235, 1.235, 1.235));
        let hundred: Vec<u64> = (1..=100).rev().map(|n| n * 1_000_000).collect();
        let found = percentiles(&hundred).unwrap();
        assert_eq!((found.p50, found.p90, found.p99), (50.0, 90.0, 99.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn large_groups_are_within_a_thousandth(
            values in prop::collection::vec(1_000_u64..3_600_000_000_000, MOST_EXACT + 1..MOST_EXACT + 2000)
        ) {
            let found = percentiles(&values).unwrap();
            let mut sorted = values;
            sorted.sort_unstable();
            for (share, found) in [(0.5, found.p50), (0.9, found.p90), (0.99, found.p99)] {
                let exact = rounded(nearest_rank(&sorted, share));
                prop_assert!((found - exact).abs() <= exact / 1000.0 + 0.001, "{} {}", found, exact);
            }
        }

        #[test]
        fn any_duration_is_taken(value in any::<u64>()) {
            prop_assert!(percentiles(&vec![value; MOST_EXACT + 1]).is_some());
        }
    }
}
