//! Series of a bounded number, whatever they are called.
//!
//! Who comes first has a series of its own until the process ends; who comes when all places are
//! taken is counted with the others. A name is never dropped to make room for another: a counter
//! that vanishes and comes back from zero is worse than one that is counted in a sum.
//!
//! Locks are held for a look-up or for an increment, never while text is written.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tollgate_telemetry::metrics::bounded;

use super::OTHER;

/// Names that have series of their own.
#[derive(Debug)]
pub(super) struct Names {
    most: usize,
    known: Mutex<HashSet<Arc<str>>>,
    other: Arc<str>,
    left_out: AtomicU64,
}

impl Names {
    /// For at most `most` names.
    pub(super) fn new(most: usize) -> Self {
        let (known, left_out) = (Mutex::default(), AtomicU64::new(0));
        Self { most, known, other: OTHER.into(), left_out }
    }

    /// What to call `name`, which gets a place if there is one.
    pub(super) fn admit(&self, name: &str) -> Arc<str> {
        let name = bounded(name);
        let mut known = lock(&self.known);
        if let Some(known) = known.get(name) {
            return Arc::clone(known);
        }
        if known.len() >= self.most {
            drop(known);
            self.left_out.fetch_add(1, Relaxed);
            return Arc::clone(&self.other);
        }
        let name: Arc<str> = name.into();
        known.insert(Arc::clone(&name));
        name
    }

    /// What to call `name`, which gets no place that it has not.
    pub(super) fn find(&self, name: &str) -> Arc<str> {
        let known = lock(&self.known);
        Arc::clone(known.get(bounded(name)).unwrap_or(&self.other))
    }

    /// What others are called.
    pub(super) fn other(&self) -> Arc<str> {
        Arc::clone(&self.other)
    }

    /// How often a name found no place.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }
}

/// Series by their labels.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    most: usize,
    series: Mutex<HashMap<K, Arc<Mutex<V>>>>,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    /// At most `most`, besides those that `other` of [`Bounded::update`] names.
    pub(super) fn new(most: usize) -> Self {
        Self { most, series: Mutex::default() }
    }

    /// Changes the series of `key`, or the one of `other` if `key` has none and finds no place.
    /// `other` must be one of a few keys.
    pub(super) fn update(
        &self,
        key: K,
        other: impl FnOnce(K) -> K,
        new: impl FnOnce() -> V,
        change: impl FnOnce(&mut V),
    ) {
        let series = {
            let mut all = lock(&self.series);
            let full = all.len() >= self.most && !all.contains_key(&key);
            let key = if full { other(key) } else { key };
            Arc::clone(all.entry(key).or_insert_with(|| Arc::new(Mutex::new(new()))))
        };
        change(&mut lock(&series));
    }

    /// Looks at every series, in no order.
    pub(super) fn each(&self, mut look: impl FnMut(&K, &V)) {
        let all: Vec<(K, Arc<Mutex<V>>)> =
            lock(&self.series).iter().map(|(key, one)| (key.clone(), Arc::clone(one))).collect();
        for (key, series) in all {
            look(&key, &lock(&series));
        }
    }
}

/// Counts are never left half changed, so those of a thread that panicked are as good as others.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_names_keep_their_places() {
        let names = Names::new(2);
        let called: Vec<Arc<str>> =
            ["a", "b", "c", "a", "", "b"].iter().map(|name| names.admit(name)).collect();
        assert_eq!(called, ["a", "b", "other", "a", "other", "b"].map(Arc::from));
        assert_eq!((&*names.find("a"), &*names.find("c")), ("a", "other"));
        assert_eq!(names.left_out(), 2, "looking for one is not leaving one out");
        let long = "é".repeat(1000);
        assert!(Names::new(1).admit(&long).len() <= 256);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_a_flood(most in 1_usize..8, keys: Vec<u8>) {
            let series = Bounded::<Option<u8>, u64>::new(most);
            for key in &keys {
                series.update(Some(*key), |_| None, || 0, |count| *count += 1);
            }
            let (mut number, mut sum) = (0, 0);
            series.each(|_, count| { number += 1; sum += count; });
            prop_assert!(number <= most + 1);
            prop_assert_eq!(sum, keys.len() as u64);
            for key in keys.iter().take(most) {
                let mut own = false;
                series.each(|of, _| own |= *of == Some(*key));
                prop_assert!(own, "who comes first has a series");
            }
        }
    }
}
