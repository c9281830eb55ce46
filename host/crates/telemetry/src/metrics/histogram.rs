//! How often a value fell between which bounds: [`Distribution`] is filled while requests run,
//! [`Histogram`] is what it holds at one moment. Each bucket remembers one exemplar, the newest.

use std::collections::BTreeMap;

use tollgate_domain::record::TracePlace;
use tollgate_domain::{SpanId, TraceId, UnixNanos};

use super::Value;

/// A value and the trace it was seen in, for whoever wants to look at a bucket's cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The value.
    pub value: f64,
    /// The trace.
    pub trace_id: TraceId,
    /// The span within it.
    pub span_id: SpanId,
    /// When it was seen.
    pub at: UnixNanos,
}

/// How often a value fell between which bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Upper bounds, ascending, without infinity.
    pub bounds: Vec<f64>,
    /// How many were at most that bound and above the one before; one more than there are bounds,
    /// for what was above them all.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: f64,
    /// By number of the bucket, those that have one.
    pub exemplars: BTreeMap<usize, Exemplar>,
}

impl Histogram {
    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

impl Value for Histogram {
    /// Those of other bounds replace what is there: they cannot be added.
    fn add(&mut self, other: Self) {
        if self.bounds != other.bounds || self.counts.len() != other.counts.len() {
            *self = other;
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum += other.sum;
        for (bucket, exemplar) in other.exemplars {
            let newest = self.exemplars.entry(bucket).or_insert(exemplar);
            if newest.at < exemplar.at {
                *newest = exemplar;
            }
        }
    }
}

/// A histogram that is being filled. Observing takes some ten nanoseconds and no memory.
#[derive(Clone, Debug)]
pub struct Distribution {
    bounds: &'static [f64],
    buckets: Box<[Bucket]>,
    sum: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    count: u64,
    newest: Option<Exemplar>,
}

impl Distribution {
    /// An empty one; `bounds` as in [`Histogram`].
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = vec![Bucket::default(); bounds.len() + 1].into_boxed_slice();
        Self { bounds, buckets, sum: 0.0 }
    }

    /// Counts a value. One that is no number is left out: it would make the sum none either.
    pub fn observe(&mut self, value: f64) {
        self.count(value, None);
    }

    /// Counts a value that was seen at `at` in the request that stands at `place`.
    pub fn observe_in(&mut self, value: f64, place: &TracePlace, at: UnixNanos) {
        let (trace_id, span_id) = (place.trace_id, place.root);
        self.count(value, Some(Exemplar { value, trace_id, span_id, at }));
    }

    /// What it holds now.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        let exemplars = self.buckets.iter().map(|bucket| bucket.newest).enumerate();
        Histogram {
            bounds: self.bounds.to_vec(),
            counts: self.buckets.iter().map(|bucket| bucket.count).collect(),
            sum: self.sum,
            exemplars: exemplars.filter_map(|(bucket, newest)| Some((bucket, newest?))).collect(),
        }
    }

    fn count(&mut self, value: f64, exemplar: Option<Exemplar>) {
        if value.is_nan() {
            return;
        }
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.count = bucket.count.saturating_add(1);
            bucket.newest = exemplar.or(bucket.newest);
            self.sum += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: [f64; 3] = [0.5, 1.0, 2.0];

    fn place(trace: u128) -> TracePlace {
        TracePlace { trace_id: TraceId(trace), root: SpanId(7), parent: None }
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut seen = Distribution::new(&BOUNDS);
        for value in [0.0, 0.5, 0.500_001, 2.0, 2.1, f64::INFINITY] {
            seen.observe(value);
        }
        seen.observe(f64::NAN);
        assert_eq!(seen.histogram().counts, [2, 1, 1, 2]);
        assert_eq!(seen.histogram().count(), 6);
        assert_eq!(seen.histogram().exemplars, BTreeMap::new());
    }

    #[test]
    fn a_bucket_keeps_its_newest_exemplar() {
        let mut seen = Distribution::new(&BOUNDS);
        for (value, trace) in [(0.1, 1), (0.9, 2), (0.2, 3)] {
            seen.observe_in(value, &place(trace), UnixNanos(trace.try_into().unwrap()));
        }
        seen.observe(0.3);
        let exemplars = seen.histogram().exemplars;
        let kept: Vec<_> = exemplars.iter().map(|(b, e)| (*b, e.value, e.trace_id.0)).collect();
        assert_eq!(kept, [(0, 0.2, 3), (1, 0.9, 2)]);
    }

    #[test]
    fn histograms_of_the_same_bounds_add_up() {
        let mut seen = Distribution::new(&[1.0, 2.0]);
        for value in [1.0, 1.5, 2.0, 5.5] {
            seen.observe_in(value, &place(1), UnixNanos(1));
        }
        let one = seen.histogram();
        let mut newer = one.clone();
        newer.exemplars.values_mut().for_each(|exemplar| exemplar.at = UnixNanos(2));
        let mut sum = one.clone();
        sum.add(newer.clone());
        sum.add(one);
        assert_eq!((sum.count(), sum.sum), (12, 30.0));
        assert_eq!(sum.exemplars, newer.exemplars);
        let other = Histogram { bounds: vec![1.0], counts: vec![1, 0], ..Histogram::default() };
        sum.add(other.clone());
        assert_eq!(sum, other);
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_bucket_that_bounds_it(values: Vec<f64>) {
            let mut seen = Distribution::new(&BOUNDS);
            for value in &values {
                seen.observe_in(*value, &place(1), UnixNanos(1));
            }
            let histogram = seen.histogram();
            let bounds = |bucket: usize| {
                let below = bucket.checked_sub(1).and_then(|below| BOUNDS.get(below));
                let above = BOUNDS.get(bucket);
                (below.copied().unwrap_or(f64::NEG_INFINITY), above.copied().unwrap_or(f64::INFINITY))
            };
            for (bucket, count) in histogram.counts.iter().enumerate() {
                let (below, above) = bounds(bucket);
                let within = |v: &&f64| (**v > below || below.is_infinite()) && **v <= above;
                prop_assert_eq!(values.iter().filter(within).count() as u64, *count);
            }
            for (bucket, exemplar) in &histogram.exemplars {
                prop_assert!(exemplar.value <= bounds(*bucket).1);
            }
        }
    }
}
