//! Which backends a request may go to, in which order. A route holds on to the configuration it was made from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tollgate_domain::BreakerState;

use crate::backend::Backend;
use crate::config::{Balance, BreakerSettings, Configuration};
use crate::error::UpstreamError;

/// Counters of turns. Sets of backends that fall on the same one share their turns.
const COUNTERS: usize = 64;
/// Most backends that one request is tried at.
const MOST: usize = 16;

/// All backends of one configuration.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub backends: Vec<Arc<Backend>>,
    pub retry_budget: f64,
    pub configuration: Configuration,
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns([AtomicUsize; COUNTERS]);

/// A plan for one request: its candidates, best first.
#[derive(Clone, Debug)]
pub struct Route {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) candidates: Vec<Candidate>,
}

/// A backend that has the model.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(crate) backend: Arc<Backend>,
    /// What it calls the model.
    pub(crate) upstream_model: Arc<str>,
    /// Its place among the candidates, counted from 0.
    pub(crate) place: u16,
}

impl Route {
    /// Who is asked, in this order. At least one, at most 16.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}

impl Candidate {
    fn new(backend: &Arc<Backend>, upstream_model: Arc<str>) -> Self {
        Self { backend: Arc::clone(backend), upstream_model, place: 0 }
    }

    /// The backend's name.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend.name
    }

    /// Its `gen_ai.provider.name`.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.backend.settings.provider
    }

    /// What it calls the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.upstream_model
    }

    /// `server.address` and `server.port`.
    #[must_use]
    pub fn server(&self) -> (&str, u16) {
        self.backend.server()
    }

    /// Its place on the route, counted from 0.
    #[must_use]
    pub fn place(&self) -> u16 {
        self.place
    }
}

impl Snapshot {
    /// Nothing of the configuration so far is lost where it stays the same.
    pub fn new(
        configuration: Configuration,
        before: Option<&Self>,
        path: &std::path::Path,
    ) -> Result<Self, UpstreamError> {
        let mut backends = Vec::with_capacity(configuration.backends.len());
        for settings in &configuration.backends {
            let same = before.and_then(|before| before.named(&settings.name));
            backends.push(match same {
                Some(same) if same.is_as(settings, configuration.breaker) => Arc::clone(same),
                other => {
                    let breaker: BreakerSettings = configuration.breaker;
                    let backend = Backend::new(settings.clone(), breaker, other.map(|b| &**b));
                    Arc::new(backend.map_err(|problem| UpstreamError::Configuration {
                        path: path.to_owned(),
                        problem: format!("backend {}: {problem}", settings.name),
                    })?)
                }
            });
        }
        Ok(Self { backends, retry_budget: configuration.retry_budget, configuration })
    }

    fn named(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| &*backend.name == name)
    }

    /// The backends that serve the model to the tenant, in the order of the file: those that name it, else those with a
    /// pattern for it.
    pub fn serving(&self, model: &str, tenant: Option<&str>) -> Vec<Candidate> {
        let admitting =
            || self.backends.iter().filter(|backend| backend.settings.tenants.admit(tenant));
        let named: Vec<Candidate> = admitting()
            .filter_map(|backend| {
                Some(Candidate::new(backend, backend.settings.models.named(model)?))
            })
            .collect();
        if !named.is_empty() {
            return named;
        }
        let fitting = admitting().filter(|backend| backend.settings.models.fits(model));
        fitting.map(|backend| Candidate::new(backend, model.into())).collect()
    }

    /// The best candidates in order: first those that seem well, among them as the balance says.
    pub fn candidates(&self, model: &str, tenant: Option<&str>, turns: &Turns) -> Vec<Candidate> {
        let mut candidates = self.serving(model, tenant);
        if candidates.len() < 2 {
            return candidates;
        }
        let turn = turns.next(&candidates);
        candidates.rotate_left(turn);
        let unwell = |candidate: &Candidate| {
            let state = &candidate.backend.state;
            let open = matches!(state.breaker.state().0, BreakerState::Open { .. });
            (open, state.is_unhealthy(), candidate.backend.is_full())
        };
        match self.configuration.balance {
            // Equals stay in the order of their turns, of which each has as many as its weight.
            Balance::LeastLoaded => candidates
                .sort_by_cached_key(|candidate| (unwell(candidate), candidate.backend.load())),
            Balance::RoundRobin => candidates.sort_by_cached_key(unwell),
        }
        candidates.truncate(MOST);
        for (place, candidate) in (0..).zip(&mut candidates) {
            candidate.place = place;
        }
        candidates
    }
}

impl Turns {
    pub fn new() -> Self {
        Self([const { AtomicUsize::new(0) }; COUNTERS])
    }

    /// The place of whoever is next; each has as many turns as its weight.
    fn next(&self, candidates: &[Candidate]) -> usize {
        let mut hasher = DefaultHasher::new();
        candidates.iter().for_each(|candidate| candidate.backend.name.hash(&mut hasher));
        let slot = usize::try_from(hasher.finish() % COUNTERS as u64).unwrap_or_default();
        let Some(counter) = self.0.get(slot) else { return 0 };
        let weights = candidates.iter().map(|c| c.backend.settings.weight as usize);
        let total: usize = weights.clone().sum();
        let mut left = counter.fetch_add(1, Relaxed) % total.max(1);
        for (place, weight) in weights.enumerate() {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return place,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::written;
    use std::collections::HashMap;
    use std::path::Path;

    fn snapshot(text: &str, before: Option<&Snapshot>) -> Snapshot {
        let configuration = written::parse(text, Path::new(""), |_| None).unwrap();
        Snapshot::new(configuration, before, Path::new("backends.toml")).unwrap()
    }

    fn backend(name: &str, rest: &str) -> String {
        format!("[[backend]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:1/v1\"\n{rest}\n")
    }

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| &*candidate.backend.name).collect()
    }

    #[test]
    fn a_model_is_served_by_whom_the_file_says() {
        let text = [
            backend("a", "models = [\"gpt-4o\", { as = \"x\", name = \"y/z\" }]"),
            backend("b", "models = [\"gpt-*\"]\ntenants = [\"acme\"]"),
            backend("c", ""),
        ]
        .concat();
        let snapshot = snapshot(&text, None);
        let cases: &[(&str, Option<&str>, &[&str])] = &[
            ("gpt-4o", None, &["a"]),
            ("x", Some("acme"), &["a"]),
            ("gpt-5", Some("acme"), &["b", "c"]),
            ("gpt-5", None, &["c"]),
            ("y/z", None, &["c"]),
        ];
        for (model, tenant, expected) in cases {
            let mut found = snapshot.candidates(model, *tenant, &Turns::new());
            found.sort_by_key(|candidate| Arc::clone(&candidate.backend.name));
            assert_eq!(names(&found), *expected, "{model}");
        }
        assert_eq!(&*snapshot.candidates("x", None, &Turns::new())[0].upstream_model, "y/z");
    }

    #[test]
    fn turns_follow_the_weights() {
        let text = format!(
            "balance = \"round-robin\"\n{}{}",
            backend("a", "weight = 3"),
            backend("b", "")
        );
        let (snapshot, turns) = (snapshot(&text, None), Turns::new());
        let mut first = HashMap::new();
        for _ in 0..400 {
            let candidates = snapshot.candidates("m", None, &turns);
            assert_eq!(candidates.len(), 2);
            *first.entry(candidates[0].backend.name.to_string()).or_insert(0) += 1;
        }
        assert_eq!((first["a"], first["b"]), (300, 100));
    }

    #[test]
    fn the_equally_loaded_have_turns_by_their_weights() {
        let text = [backend("a", "weight = 1"), backend("b", "weight = 9"), backend("c", "")];
        let (snapshot, turns) = (snapshot(&text.concat(), None), Turns::new());
        let mut first = HashMap::new();
        for _ in 0..110 {
            let candidates = snapshot.candidates("m", None, &turns);
            *first.entry(candidates[0].backend.name.to_string()).or_insert(0) += 1;
        }
        assert_eq!((first["a"], first["b"], first["c"]), (10, 90, 10));
    }

    #[test]
    fn the_least_loaded_goes_first_and_the_unwell_last() {
        let text =
            [backend("a", "weight = 2"), backend("b", ""), backend("c", "max-in-flight = 1")];
        let snapshot = snapshot(&text.concat(), None);
        let [a, b, c] = &snapshot.backends[..] else { panic!() };
        let order = || {
            let found = snapshot.candidates("m", None, &Turns::new());
            names(&found).concat()
        };
        let _busy = (a.slot().unwrap(), b.slot().unwrap(), b.slot().unwrap());
        assert_eq!(order(), "cab");
        let full = c.slot().unwrap();
        assert!(c.slot().is_none(), "no more than it takes");
        assert_eq!(order(), "abc");
        drop(full);
        assert_eq!(order(), "cab");
        c.state.checked(Err("x".to_owned()));
        assert_eq!(order(), "cab", "one failed check is none");
        c.state.checked(Err("x".to_owned()));
        assert_eq!(order(), "abc");
        (0..5).for_each(|_| {
            a.state.breaker.failed_later();
        });
        assert_eq!(order(), "bca");
    }

    #[test]
    fn what_stays_the_same_keeps_what_is_known_of_it() {
        let before = snapshot(&[backend("a", ""), backend("b", "")].concat(), None);
        let after =
            snapshot(&[backend("b", "weight = 9"), backend("a", "")].concat(), Some(&before));
        assert!(Arc::ptr_eq(&before.backends[0], &after.backends[1]));
        assert!(!Arc::ptr_eq(&before.backends[1], &after.backends[0]));
        assert!(Arc::ptr_eq(&before.backends[1].state, &after.backends[0].state));
        let moved = "[[backend]]\nname = \"a\"\nurl = \"http://127.0.0.1:2/v1\"\n";
        let moved = snapshot(moved, Some(&after));
        assert!(!Arc::ptr_eq(&moved.backends[0].state, &after.backends[1].state));
    }
}
