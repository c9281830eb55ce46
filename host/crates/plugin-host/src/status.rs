//! What the operator is told of each file.

use std::sync::Arc;
use std::time::SystemTime;

use tollgate_domain::{BreakerState, PluginIdentity};

use crate::error::{PluginHostError, chain};
use crate::loaded::Loaded;
use crate::manifest::Isolation;
use crate::role::Role;

/// A file of the plugin folder and what became of it.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// Its name in the folder; `plugins.toml` has an entry of its own when it is broken.
    pub file: String,
    /// The plugin that serves from it: the last good version, if the present one was refused.
    pub identity: Option<PluginIdentity>,
    /// What that one does here.
    pub roles: Vec<Role>,
    /// Since when it serves.
    pub since: Option<SystemTime>,
    /// Whether `plugins.toml` and the operator allow it.
    pub enabled: bool,
    /// Why the file as it is now is not used: every cause in one line.
    pub error: Option<PluginRefusal>,
    /// Why something else serves than what the file holds, or nothing at all.
    pub held: Option<String>,
    /// SHA-256 of what the file holds, where it could be read.
    pub digest_of_file: Option<String>,
    /// What a rollback would go back to. Its version is empty where only its content is known, from before a restart.
    pub previous: Option<PluginIdentity>,
    /// How the breaker of the one that serves stands.
    pub breaker: BreakerState,
    /// The fault that opened it last; empty if none did.
    pub breaker_fault: String,
    /// Whether it prices in the shadow only.
    pub shadow: bool,
    /// Who may share an instance of it.
    pub isolation: Isolation,
    /// Version of the contract that it was built for.
    pub api_version: Option<String>,
    /// What it says of itself.
    pub description: Option<String>,
    /// JSON Schema of its configuration, if it has one.
    pub config_schema: Option<String>,
}

impl PluginStatus {
    /// Of a file of which nothing is known yet.
    pub(crate) fn new(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            identity: None,
            roles: Vec::new(),
            since: None,
            enabled: true,
            error: None,
            held: None,
            digest_of_file: None,
            previous: None,
            breaker: BreakerState::Closed,
            breaker_fault: String::new(),
            shadow: false,
            isolation: Isolation::default(),
            api_version: None,
            description: None,
            config_schema: None,
        }
    }
}

/// A status, and where to ask for what changes without a scan.
#[derive(Clone)]
pub(crate) struct Reported {
    pub status: PluginStatus,
    pub loaded: Option<Arc<Loaded>>,
}

impl Reported {
    /// The status now.
    pub fn now(&self) -> PluginStatus {
        let mut status = self.status.clone();
        if let Some(loaded) = &self.loaded {
            status.breaker = loaded.breaker.state();
            status.breaker_fault = loaded.breaker.last_fault();
        }
        status
    }
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRefusal {
    /// [`PluginHostError::kind`].
    pub kind: &'static str,
    /// The whole chain of causes, and what to do.
    pub message: String,
}

impl PluginRefusal {
    pub(crate) fn of(error: &PluginHostError) -> Self {
        Self { kind: error.kind(), message: chain(error) }
    }
}
