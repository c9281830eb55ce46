//! The steps of the gate, each with its time and what it found, for who asks what happens to a file.

use std::time::{Duration, Instant};

use crate::error::PluginHostError;

/// One step of the gate, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Reading the file: a plain one, within the limit.
    Read,
    /// Looking at its first bytes: a component, not machine code.
    Format,
    /// Comparing its digest with the one that is pinned.
    Pin,
    /// Verifying its signature.
    Signature,
    /// Looking at what it imports and exports.
    Interface,
    /// Validating and compiling it.
    Compile,
    /// Linking what it imports.
    Link,
    /// Asking it twice what it is.
    Describe,
    /// Checking the configuration against its schema.
    Schema,
    /// Handing it the configuration.
    Configure,
    /// Calling each of its roles once with a made-up item.
    Trial,
}

impl Step {
    /// A short, stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Format => "format",
            Self::Pin => "pin",
            Self::Signature => "signature",
            Self::Interface => "interface",
            Self::Compile => "compile",
            Self::Link => "link",
            Self::Describe => "describe",
            Self::Schema => "schema",
            Self::Configure => "configure",
            Self::Trial => "trial",
        }
    }
}

/// A step that was taken.
#[derive(Clone, Debug)]
pub struct StepTaken {
    /// Which.
    pub step: Step,
    /// How long it took.
    pub took: Duration,
    /// What it found, in a few words; of the step that failed, nothing.
    pub found: String,
}

/// The steps that were taken so far.
#[derive(Debug, Default)]
pub(crate) struct Steps(Vec<StepTaken>);

impl Steps {
    /// Takes a step; `found` says in a few words what it found.
    pub fn take<T>(
        &mut self,
        step: Step,
        run: impl FnOnce() -> Result<T, PluginHostError>,
        found: impl FnOnce(&T) -> String,
    ) -> Result<T, PluginHostError> {
        let began = Instant::now();
        let result = run();
        let took = began.elapsed();
        let found = result.as_ref().map(found).unwrap_or_default();
        self.0.push(StepTaken { step, took, found });
        result
    }

    /// All of them. If one failed it is the last.
    pub fn taken(self) -> Vec<StepTaken> {
        self.0
    }
}
