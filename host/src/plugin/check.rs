//! `tollgate plugin check FILE...`: would a gateway take these files?

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use tollgate_plugin_host::{
    Inspection, PluginHostSettings, Rejection, StepTaken, inspect, inspect_in_folder,
};

use super::offline::{Gate, milliseconds, steps_json};
use crate::fail;

/// What to check, and how.
#[derive(clap::Args)]
pub struct Check {
    /// Plugin files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    gate: Gate,
    /// Use the configuration and the digest in the plugins.toml beside each file
    #[arg(long, conflicts_with = "config")]
    plugins_toml: bool,
    /// Answer in JSON: an array with one object for each file
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> ExitCode {
        let (settings, config) = match (self.gate.settings(), self.gate.config()) {
            (Ok(settings), Ok(config)) => (settings, config),
            (Err(error), _) | (_, Err(error)) => return fail(&error, 2),
        };
        let mut answers = Vec::new();
        let mut all = true;
        let mut out = io::stdout().lock();
        for file in &self.files {
            let result = self.one(&settings, file, config.as_ref());
            all &= result.is_ok();
            let written = if self.json {
                answers.push(as_json(file, &result));
                Ok(())
            } else {
                write_text(&mut out, file, &result)
            };
            if let Err(error) = written {
                return fail(&error, 1);
            }
        }
        if self.json
            && let Err(error) = writeln!(out, "{:#}", Value::Array(answers))
        {
            return fail(&error, 1);
        }
        if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn one(
        &self,
        settings: &PluginHostSettings,
        file: &Path,
        config: Option<&Value>,
    ) -> Result<Inspection, Box<Rejection>> {
        if self.plugins_toml {
            inspect_in_folder(settings, file)
        } else {
            inspect(settings, file, config)
        }
    }
}

fn write_text(
    out: &mut impl Write,
    file: &Path,
    result: &Result<Inspection, Box<Rejection>>,
) -> io::Result<()> {
    writeln!(out, "{}", file.display())?;
    let steps: &[StepTaken] = match result {
        Ok(inspection) => &inspection.steps,
        Err(rejection) => &rejection.steps,
    };
    let failed = result.as_ref().err().and_then(|rejection| rejection.steps.last());
    for taken in steps {
        let found = if failed.is_some_and(|last| last.step == taken.step) {
            "FAILED"
        } else if taken.found.is_empty() {
            "ok"
        } else {
            &taken.found
        };
        let took = milliseconds(taken.took);
        writeln!(out, "  {:<10}{took:>10.1} ms  {found}", taken.step.name())?;
    }
    match result {
        Ok(found) => {
            let roles: Vec<&str> = found.roles.iter().map(|role| role.name()).collect();
            let identity = &found.identity;
            writeln!(out, "ok: {} {}, {}", identity.name, identity.version, roles.join(", "))
        }
        Err(rejection) => writeln!(out, "refused: {rejection}"),
    }
}

fn as_json(file: &Path, result: &Result<Inspection, Box<Rejection>>) -> Value {
    match result {
        Ok(found) => json!({
            "file": file,
            "ok": true,
            "plugin": found.identity.name,
            "version": found.identity.version,
            "sha256": found.identity.digest,
            "steps": steps_json(&found.steps),
        }),
        Err(rejection) => json!({
            "file": file,
            "ok": false,
            "kind": rejection.error.kind(),
            "error": rejection.to_string(),
            "failed": rejection.steps.last().map(|taken| taken.step.name()),
            "steps": steps_json(&rejection.steps),
        }),
    }
}
