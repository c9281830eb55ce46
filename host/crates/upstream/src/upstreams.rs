//! The handle: which backends there are now, and what is asked of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::backend::BackendStatus;
use crate::budget::RetryBudget;
use crate::config::Configuration;
use crate::error::UpstreamError;
use crate::route::{Route, Snapshot, Turns};

/// All backends. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    snapshot: ArcSwap<Snapshot>,
    turns: Turns,
    budget: RetryBudget,
}

/// A model that can be asked for by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModel {
    /// Its name for clients.
    pub name: String,
    /// The first backend of the file that has it, and serves whoever asks.
    pub backend: Arc<str>,
    /// `gen_ai.provider.name` of that backend.
    pub provider: String,
}

impl Upstreams {
    /// Reads `backends.toml`. Nothing is connected to yet; [`Self::watch`] keeps it up to date.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, UpstreamError> {
        let path = path.into();
        let snapshot = Snapshot::new(Configuration::read(&path)?, None, &path)?;
        Ok(Self(Arc::new(Inner {
            path,
            snapshot: ArcSwap::from_pointee(snapshot),
            turns: Turns::new(),
            budget: RetryBudget::new(),
        })))
    }

    /// The models that have names, each once, in the order of the file, of backends that serve this tenant. What only a pattern
    /// matches is not among them.
    #[must_use]
    pub fn models(&self, tenant: Option<&str>) -> Vec<ServedModel> {
        let snapshot = self.0.snapshot.load();
        let mut seen = HashSet::new();
        let mut models = Vec::new();
        let serve = snapshot.backends.iter().filter(|b| b.settings.tenants.admit(tenant));
        for backend in serve {
            for name in backend.settings.models.names() {
                if seen.insert(name.as_str()) {
                    models.push(ServedModel {
                        name: name.clone(),
                        backend: Arc::clone(&backend.name),
                        provider: backend.settings.provider.clone(),
                    });
                }
            }
        }
        models
    }

    /// A plan for a request, by the configuration of now; none if no backend serves this model to this tenant. A change of
    /// the configuration does not change a plan.
    #[must_use]
    pub fn route(&self, model: &str, tenant: Option<&str>) -> Option<Route> {
        let snapshot = self.0.snapshot.load_full();
        let candidates = snapshot.candidates(model, tenant, &self.0.turns);
        (!candidates.is_empty()).then_some(Route { snapshot, candidates })
    }

    /// Whether any backend serves this model to this tenant. Takes nobody's turn.
    #[must_use]
    pub fn serves(&self, model: &str, tenant: Option<&str>) -> bool {
        !self.0.snapshot.load().serving(model, tenant).is_empty()
    }

    /// How all backends do, in the order of the file.
    #[must_use]
    pub fn status(&self) -> Vec<BackendStatus> {
        self.0.snapshot.load().backends.iter().map(|backend| backend.status()).collect()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    pub(crate) fn budget(&self) -> &RetryBudget {
        &self.0.budget
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    pub(crate) fn replace(&self, snapshot: Snapshot) {
        self.0.snapshot.store(Arc::new(snapshot));
    }
}
