//! A cost model without a gateway: one file through the same gate, asked in the same way, so that a price that is computed
//! again comes out as it did while the client waited.
//!
//! It is asked whatever its breaker would say: that many prices in a row failed says nothing about the next one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_domain::{CostOutcome, PluginIdentity, Usage};

use crate::error::PluginHostError;
use crate::inspect::{self, Rejection, take};
use crate::limits::PluginHostSettings;
use crate::loaded::{Loaded, config_digest};
use crate::manifest::Entry;
use crate::role::Role;
use crate::steps::Steps;
use crate::{price, state, stopwatch};

/// A cost model that is ready to be asked.
pub struct OfflineCostModel(Arc<Loaded>);

impl OfflineCostModel {
    /// Takes a file through the gate, with this configuration, a JSON object, and the default limits. Of the settings the
    /// folder does not matter.
    ///
    /// # Errors
    ///
    /// When a gateway would refuse it, or it is no cost model.
    pub fn open(
        settings: &PluginHostSettings,
        file: &Path,
        config: &str,
    ) -> Result<Self, Box<Rejection>> {
        stopwatch::calibrate();
        let entry = Entry { config: config.to_owned(), ..Entry::default() };
        let loaded = take(settings, file, |_, _| Ok(entry))?.passed.loaded;
        if loaded.has(Role::CostModel) {
            return Ok(Self(loaded));
        }
        let roles: Vec<&str> = loaded.roles().iter().map(|role| role.name()).collect();
        let error = PluginHostError::NoCostModel { roles: roles.join(", ") };
        Err(Rejection::of(error, Steps::default()))
    }

    /// Which build it is.
    #[must_use]
    pub fn identity(&self) -> &PluginIdentity {
        &self.0.identity
    }

    /// What its prices say of a configuration: its SHA-256, and nothing of an empty one.
    #[must_use]
    pub fn config_digest(config: &str) -> Option<String> {
        config_digest(config)
    }

    /// What it says of a request, as [`crate::PluginSet::price`] would.
    #[must_use]
    pub fn price(&self, tenant: Option<&str>, usage: &Usage) -> CostOutcome {
        price::one(&self.0, tenant, usage, true)
    }
}

/// SHA-256 of a plugin file, 64 hex digits.
///
/// # Errors
///
/// When it cannot be read, or is larger than a plugin may be.
pub fn digest_of_file(
    settings: &PluginHostSettings,
    file: &Path,
) -> Result<String, PluginHostError> {
    Ok(inspect::read(settings, file, |_, _| Ok(Entry::default()))?.content.digest)
}

/// What a host keeps of plugins that served, to be read beside it.
#[derive(Clone, Debug)]
pub struct KeptPlugins(PathBuf);

impl KeptPlugins {
    /// What is kept in this folder, the host's own.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The file of this digest, if it is kept. Whoever opens it sees whether it is what it is called.
    #[must_use]
    pub fn file(&self, digest: &str) -> Option<PathBuf> {
        state::kept_original(&self.0, digest)
    }

    /// The configuration of this digest, if it is kept and whole.
    #[must_use]
    pub fn configuration(&self, digest: &str) -> Option<String> {
        state::kept_configuration(&self.0, digest)
    }
}

impl fmt::Debug for OfflineCostModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OfflineCostModel").field(self.identity()).finish()
    }
}
