//! The author's workbench: one component file, opened through the gateway's own gate and called through its own path.
//!
//! What a case answers here is what the gateway would bill, add and let leave, to the digit. Each case is run on a fresh
//! instance and twice on a warm one, since an operator may choose either, and the three have to agree.

mod answer;
mod bench;
mod case;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate_domain::PluginIdentity;

pub use self::bench::{Measured, Measures};
pub use self::case::{Case, CaseError};
use crate::engine::Runtime;
use crate::error::{PluginHostError, chain};
use crate::folder::{self, Content};
use crate::gate::{self, Candidate, Opened};
use crate::limits::{Limits, PluginHostSettings};
use crate::loaded::Loaded;
use crate::manifest::Entry;
use crate::role::Role;
use crate::set::{Member, PluginSet, Rules};
use crate::steps::Steps;

/// One opened component.
pub struct Workshop {
    opened: Opened,
    about: About,
    content: Content,
}

/// What is known of a component once it is open.
#[derive(Clone, Debug)]
pub struct About {
    /// Name, version and digest.
    pub plugin: PluginIdentity,
    /// What it does.
    pub roles: Vec<Role>,
    /// Size of the file.
    pub component_bytes: u64,
    /// Size of the machine code and data that it becomes.
    pub compiled_bytes: u64,
    /// How long it took to compile.
    pub compiled_in: Duration,
}

/// What a case came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer of a fresh instance.
    pub answer: Value,
    /// An answer of a warm instance that is another one, and which call gave it.
    pub disagreed: Option<(&'static str, Value)>,
}

impl Workshop {
    /// Opens a file as the gateway would, up to the point where it is configured.
    ///
    /// # Errors
    /// Those of the gateway's gate.
    pub fn open(file: &Path, limits: &Limits) -> Result<Self, PluginHostError> {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let parent = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let content = folder::read(parent, &name, limits.component_bytes)?;
        let began = Instant::now();
        let settings = PluginHostSettings { limits: limits.clone(), ..PluginHostSettings::new("") };
        let opened = open(&Runtime::start(&settings)?, &name, &content)?;
        let about = About {
            plugin: opened.identity.clone(),
            roles: opened.prepared.roles(),
            component_bytes: u64::try_from(content.bytes.len()).unwrap_or(u64::MAX),
            compiled_bytes: u64::try_from(opened.compiled_bytes).unwrap_or(u64::MAX),
            compiled_in: began.elapsed(),
        };
        Ok(Self { opened, about, content })
    }

    /// What is known of it.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Answers a case with this configuration, which is JSON. A refused configuration is an answer too:
    /// `{"refused": "..."}`.
    #[must_use]
    pub fn answer(&self, config: &str, case: &Case) -> Outcome {
        let once = Limits { calls_per_instance: (1, 1), ..self.limits().clone() };
        let answer = self.ask(once, config, |set| answer::of(case, set));
        let warm = self.ask(self.limits().clone(), config, |set| {
            (answer::of(case, set), answer::of(case, set))
        });
        let (answer, (first, second)) = match (answer, warm) {
            (Ok(answer), Ok(warm)) => (answer, warm),
            (Ok(answer), Err(error)) => (answer, (refused(&error), refused(&error))),
            (Err(error), _) => {
                return Outcome { answer: refused(&error), disagreed: None };
            }
        };
        let disagreed = [
            ("the first call of a warm instance", first),
            ("the second call of a warm instance", second),
        ]
        .into_iter()
        .find(|(_, other)| *other != answer);
        Outcome { answer, disagreed }
    }

    /// Measures the plugin on what a case holds, or on made-up items of each of its roles.
    ///
    /// # Errors
    /// When the configuration is refused, or a call fails.
    pub fn bench(&self, config: &str, case: Option<&Case>) -> Result<Measures, PluginHostError> {
        bench::run(self, config, case)
    }

    fn limits(&self) -> &Limits {
        &self.opened.prepared.runtime.limits
    }

    /// Configures the plugin within these limits and lets a set of it alone be asked.
    fn ask<T>(
        &self,
        limits: Limits,
        config: &str,
        ask: impl FnOnce(&PluginSet) -> T,
    ) -> Result<T, PluginHostError> {
        Ok(ask(&set_of(&self.opened, limits, config)?))
    }
}

fn refused(error: &PluginHostError) -> Value {
    serde_json::json!({ "refused": chain(error) })
}

/// A set of one plugin.
fn set_of(opened: &Opened, limits: Limits, config: &str) -> Result<PluginSet, PluginHostError> {
    let rules = Arc::new(Rules::from(&Entry::default()));
    let loaded = Arc::new(configure(opened, limits, config)?);
    let file = opened.identity.name.as_str().into();
    Ok(PluginSet::new(0, vec![Member { loaded, file, rules }]))
}

fn configure(opened: &Opened, limits: Limits, config: &str) -> Result<Loaded, PluginHostError> {
    let mut prepared = opened.prepared.clone();
    prepared.runtime.limits = Arc::new(limits);
    let (identity, described) = (opened.identity.clone(), opened.described.clone());
    let entry = Entry { config: config.to_owned(), ..Entry::default() };
    gate::check_config(&described, config)?;
    Loaded::new(prepared, Arc::new(identity), described, &entry)
}

/// A component through those steps of the gate that ask for no configuration.
fn open(runtime: &Runtime, file: &str, content: &Content) -> Result<Opened, PluginHostError> {
    let entry = Entry::default();
    let candidate = Candidate { file, content, entry: &entry, signature: None };
    gate::open(runtime, &candidate, &mut Steps::default())
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workshop").field("about", &self.about).finish_non_exhaustive()
    }
}
