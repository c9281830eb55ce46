//! `tollgate plugin test`: cases as data, put to the real component through the gateway's own path.
//!
//! A case is a folder: `in.json` says what is asked, `config.json` (optional) how the plugin is configured, `out.json` what
//! it has to answer. A `message` or `refused` in `out.json` may end in `*`, for words that are nobody's contract.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use tollgate_plugin_host::Limits;
use tollgate_plugin_host::workshop::{Case, Workshop};

use super::project::{component, read};
use super::{ToolError, diff};

#[derive(Args)]
pub(crate) struct Test {
    /// The project's folder, or a component
    #[arg(default_value = ".")]
    plugin: PathBuf,
    /// Folder of cases, more than once for more; `cases` beside the project or the component if absent
    #[arg(long, value_name = "FOLDER")]
    cases: Vec<PathBuf>,
    /// Write what the plugin answers to out.json, after which you read it
    #[arg(long)]
    bless: bool,
}

/// A case's folder and what is in it.
pub(super) struct Written {
    pub(super) folder: PathBuf,
    pub(super) case: Case,
    pub(super) config: String,
}

impl Test {
    pub(super) fn run(self) -> Result<(), ToolError> {
        let (component, beside) = component(&self.plugin)?;
        let folders = if self.cases.is_empty() { vec![beside] } else { self.cases };
        let mut cases = Vec::new();
        for folder in &folders {
            cases.extend(written(folder)?);
        }
        let workshop = open(&component)?;
        let mut failed = 0_usize;
        for case in &cases {
            let complaint = check(&workshop, case, self.bless)?;
            let name = case.folder.file_name().unwrap_or_default().to_string_lossy();
            match complaint {
                None => println!("ok    {name}"),
                Some(complaint) => {
                    failed += 1;
                    println!("FAIL  {name}\n{complaint}");
                }
            }
        }
        match failed {
            0 => {
                println!("{} passed", cases.len());
                Ok(())
            }
            _ => Err(ToolError::No(format!("{failed} of {} cases failed", cases.len()))),
        }
    }
}

/// Opens a component within the limits that an operator can give at most.
pub(super) fn open(component: &Path) -> Result<Workshop, ToolError> {
    let limits = Limits { component_bytes: 64 << 20, ..Limits::default() };
    Workshop::open(component, &limits)
        .map_err(|source| ToolError::Plugin { path: component.to_owned(), source })
}

/// Every case of a folder, by name.
pub(super) fn written(folder: &Path) -> Result<Vec<Written>, ToolError> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(ToolError::file(folder))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("in.json").is_file())
        .collect();
    folders.sort();
    if folders.is_empty() {
        let what = format!("{} holds no case: no NAME/in.json", folder.display());
        return Err(ToolError::Project(what));
    }
    folders.into_iter().map(one).collect()
}

fn one(folder: PathBuf) -> Result<Written, ToolError> {
    let input = folder.join("in.json");
    let case = Case::parse(&read(&input)?)
        .map_err(|source| ToolError::Case { path: input.clone(), source })?;
    let config = folder.join("config.json");
    let config = if config.is_file() { read(&config)? } else { "{}".to_owned() };
    Ok(Written { folder, case, config })
}

/// Runs a case; what is wrong with the answer, if anything.
fn check(workshop: &Workshop, case: &Written, bless: bool) -> Result<Option<String>, ToolError> {
    let outcome = workshop.answer(&case.config, &case.case);
    if let Some((which, other)) = outcome.disagreed {
        let differ = diff::lines("a fresh instance", &outcome.answer, which, &other);
        return Ok(Some(format!("      the answer depends on what was asked before\n{differ}")));
    }
    let path = case.folder.join("out.json");
    if bless {
        let text = format!("{:#}\n", outcome.answer);
        return match read(&path) {
            // What is met already stays as it was written, with its stars.
            Ok(old) if parsed(&path, &old).is_ok_and(|old| meets(&old, &outcome.answer)) => {
                Ok(None)
            }
            _ => fs::write(&path, text).map(|()| None).map_err(ToolError::file(path)),
        };
    }
    if !path.is_file() {
        return Ok(Some("      there is no out.json; --bless writes one".to_owned()));
    }
    let mut expected = parsed(&path, &read(&path)?)?;
    if meets(&expected, &outcome.answer) {
        return Ok(None);
    }
    fill(&mut expected, &outcome.answer);
    Ok(Some(diff::lines("out.json", &expected, "answer", &outcome.answer)))
}

fn parsed(path: &Path, text: &str) -> Result<Value, ToolError> {
    serde_json::from_str(text)
        .map_err(|error| ToolError::Project(format!("{}: {error}", path.display())))
}

fn meets(expected: &Value, answer: &Value) -> bool {
    let mut expected = expected.clone();
    fill(&mut expected, answer);
    expected == *answer
}

/// Puts the answer's words where the expectation leaves them open.
fn fill(expected: &mut Value, answer: &Value) {
    match (expected, answer) {
        (Value::Object(expected), Value::Object(answer)) => {
            for (key, value) in expected {
                let Some(given) = answer.get(key) else { continue };
                if matches!(key.as_str(), "message" | "refused")
                    && let (Value::String(pattern), Value::String(text)) = (&*value, given)
                    && pattern.strip_suffix('*').is_some_and(|start| text.starts_with(start))
                {
                    *value = given.clone();
                } else {
                    fill(value, given);
                }
            }
        }
        (Value::Array(expected), Value::Array(answer)) => {
            expected.iter_mut().zip(answer).for_each(|(value, given)| fill(value, given));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_messages_may_be_left_open() {
        let answer = json!({ "prices": [{ "status": "plugin_failed", "message": "too much" }] });
        for (expected, met) in [
            (json!({ "prices": [{ "status": "plugin_failed", "message": "too *" }] }), true),
            (json!({ "prices": [{ "status": "plugin_failed", "message": "*" }] }), true),
            (json!({ "prices": [{ "status": "plugin_*", "message": "*" }] }), false),
            (json!({ "prices": [{ "status": "plugin_failed" }] }), false),
            (json!({ "prices": [] }), false),
        ] {
            assert_eq!(meets(&expected, &answer), met, "{expected}");
        }
    }
}
