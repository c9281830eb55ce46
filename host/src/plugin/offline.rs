//! What the commands that need no gateway share: the gateway's own gate, and how its answers look.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_plugin_host::{Compiler, PluginHostSettings, StepTaken, TrustedKey};

/// The gate as a gateway has it.
#[derive(clap::Args)]
pub(crate) struct Gate {
    /// Configuration, as JSON or as a .json file [default: {}]
    #[arg(long, value_name = "JSON|FILE")]
    config: Option<String>,
    /// minisign public key: the file must be signed by one of those named
    #[arg(long, value_name = "KEY")]
    plugin_key: Vec<TrustedKey>,
}

impl Gate {
    /// The default limits, and a compiler that can be killed.
    pub(crate) fn settings(&self) -> Result<PluginHostSettings, String> {
        let compiler = Compiler::this_program()
            .map_err(|error| format!("cannot find this program to compile with: {error}"))?;
        Ok(PluginHostSettings {
            compiler,
            trusted_keys: self.plugin_key.clone(),
            ..PluginHostSettings::new(PathBuf::new())
        })
    }

    /// The configuration that was given.
    pub(crate) fn config(&self) -> Result<Option<Value>, String> {
        let Some(given) = &self.config else { return Ok(None) };
        let text = if given.trim_start().starts_with('{') {
            given.clone()
        } else {
            std::fs::read_to_string(given)
                .map_err(|error| format!("cannot read the configuration {given}: {error}"))?
        };
        let value = serde_json::from_str(&text)
            .map_err(|error| format!("the configuration is not JSON: {error}"))?;
        Ok(Some(value))
    }
}

/// The steps as JSON; times in milliseconds.
pub(super) fn steps_json(steps: &[StepTaken]) -> Value {
    steps
        .iter()
        .map(|taken| {
            json!({
                "step": taken.step.name(),
                "ms": milliseconds(taken.took),
                "found": taken.found,
            })
        })
        .collect()
}

/// To the microsecond.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
