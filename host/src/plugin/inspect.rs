//! `tollgate plugin inspect`: what is in this file? With `--admin`: what does a running gateway know of it?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use tollgate_domain::text::printable;
use tollgate_plugin_host::{Inspection, inspect};
use url::Url;

use super::offline::Gate;
use super::{finish, show};
use crate::admin::{Target, Token, address};
use crate::fail;

/// What to inspect, and how.
#[derive(clap::Args)]
pub struct Inspect {
    /// Plugin file; with --admin its name in the gateway's plugin folder
    file: PathBuf,
    #[command(flatten)]
    gate: Gate,
    /// Admin API of a running gateway, such as http://127.0.0.1:9090
    #[arg(long, value_name = "URL", value_parser = address, conflicts_with_all = ["config", "plugin_key"])]
    admin: Option<Url>,
    #[command(flatten)]
    token: Token,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> ExitCode {
        if let Some(admin) = self.admin {
            let file = self.file.to_string_lossy();
            return finish(show::run(&Target { admin, token: self.token }, &file, self.json));
        }
        let (settings, config) = match (self.gate.settings(), self.gate.config()) {
            (Ok(settings), Ok(config)) => (settings, config),
            (Err(error), _) | (_, Err(error)) => return fail(&error, 2),
        };
        let found = match inspect(&settings, &self.file, config.as_ref()) {
            Ok(found) => found,
            Err(rejection) => {
                return fail(&format!("{}: {rejection}", self.file.display()), 1);
            }
        };
        let mut out = io::stdout().lock();
        let written = if self.json {
            writeln!(out, "{:#}", as_json(&found))
        } else {
            write_text(&mut out, &found)
        };
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        }
    }
}

fn write_text(out: &mut impl Write, found: &Inspection) -> io::Result<()> {
    let roles: Vec<&str> = found.roles.iter().map(|role| role.name()).collect();
    let schema = found.config_schema.as_ref().map(|schema| schema_text(schema));
    let lines = [
        ("plugin", format!("{} {}", found.identity.name, found.identity.version)),
        ("description", found.description.clone()),
        ("sha256", found.identity.digest.clone()),
        ("roles", roles.join(", ")),
        ("contract", format!("tollgate:plugin {}", found.api_version)),
        ("imports", found.imports.join(", ")),
        ("size", format!("{} bytes, {} compiled", found.bytes, found.compiled_bytes)),
        ("reads", found.reads.join(", ")),
        ("writes", found.writes.join(", ")),
        ("operations", found.operations.join(", ")),
        ("batch", format!("{} items at most", found.max_batch)),
        ("currency", found.currency.map(|currency| currency.to_string()).unwrap_or_default()),
        ("schema", schema.unwrap_or_default()),
    ];
    for (name, value) in lines {
        if !value.is_empty() {
            writeln!(out, "{name:<12} {}", shown(&value))?;
        }
    }
    Ok(())
}

/// It may be a stranger's file: nothing of it moves a terminal.
fn shown(value: &str) -> String {
    value.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// On several lines, as far as it is JSON.
fn schema_text(schema: &str) -> String {
    match serde_json::from_str::<Value>(schema) {
        Ok(value) => format!("{value:#}"),
        Err(_) => schema.to_owned(),
    }
}

fn as_json(found: &Inspection) -> Value {
    json!({
        "plugin": found.identity.name,
        "version": found.identity.version,
        "sha256": found.identity.digest,
        "description": found.description,
        "roles": found.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
        "api_version": found.api_version,
        "imports": found.imports,
        "bytes": found.bytes,
        "compiled_bytes": found.compiled_bytes,
        "reads": found.reads,
        "writes": found.writes,
        "operations": found.operations,
        "max_batch": found.max_batch,
        "currency": found.currency.map(|currency| currency.to_string()),
        "config_schema": found.config_schema.as_deref().map(|schema| {
            serde_json::from_str::<Value>(schema).unwrap_or_else(|_| schema.into())
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_moves_no_terminal() {
        let schema = schema_text("{\"title\": \"a\u{9b}2Jb\\u001b[31m\u{202e}\"}");
        let text = shown(&schema);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            !text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')),
            "{text:?}"
        );
    }
}
