//! `plugins.toml` in the plugin folder. Optional: without it every file is loaded, in the order of their names, with an
//! empty configuration.

use std::collections::HashMap;

use serde::Deserialize;

use crate::error::{PluginHostError, one_line};

/// Its name in the folder.
pub(crate) const FILE: &str = "plugins.toml";

/// Most bytes of it.
pub(crate) const LIMIT: u64 = 1 << 20;

/// What is said about files; one that is not named has the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    files: HashMap<String, Entry>,
}

/// What is said about one file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub enabled: bool,
    /// Lower comes first; equal ones go by name.
    pub order: i64,
    /// JSON.
    pub config: String,
}

impl Default for Entry {
    fn default() -> Self {
        Self { enabled: true, order: 0, config: "{}".to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenManifest {
    #[serde(default)]
    plugin: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    file: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    order: i64,
    #[serde(default)]
    config: toml::Table,
}

fn yes() -> bool {
    true
}

impl Manifest {
    /// Reads the text of one.
    pub fn parse(text: &str) -> Result<Self, PluginHostError> {
        let written: WrittenManifest =
            toml::from_str(text).map_err(|error| PluginHostError::Manifest(said(&error, text)))?;
        let mut files = HashMap::new();
        for entry in written.plugin {
            let config =
                serde_json::to_string(&json(toml::Value::Table(entry.config), &entry.file)?)
                    .map_err(|error| PluginHostError::Manifest(error.to_string()))?;
            let file = entry.file;
            let shown = one_line(&file, 256);
            if !crate::folder::is_plugin_name(&file) {
                return Err(PluginHostError::Manifest(format!(
                    "file {shown:?} is not the name of a .wasm file in this folder"
                )));
            }
            let known = Entry { enabled: entry.enabled, order: entry.order, config };
            if files.insert(file.clone(), known).is_some() {
                return Err(PluginHostError::Manifest(format!(
                    "file {shown:?} stands in it twice"
                )));
            }
        }
        Ok(Self { files })
    }

    /// What holds for a file.
    pub fn entry(&self, file: &str) -> Entry {
        self.files.get(file).cloned().unwrap_or_default()
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

/// What is wrong and where, without the line itself: it may hold a secret.
fn said(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    one_line(&format!("line {line}, column {column}: {}", error.message()), 512)
}

/// TOML as JSON: numbers keep their kind, dates become text, and what JSON cannot say is an error rather than `null`.
fn json(value: toml::Value, file: &str) -> Result<serde_json::Value, PluginHostError> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .ok_or_else(|| {
                let file = one_line(file, 256);
                PluginHostError::Manifest(format!("config of {file:?} has the number {number}"))
            })?
            .into(),
        toml::Value::Array(items) => {
            items.into_iter().map(|item| json(item, file)).collect::<Result<Vec<_>, _>>()?.into()
        }
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| Ok((key, json(value, file)?)))
            .collect::<Result<serde_json::Map<_, _>, PluginHostError>>()?
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_named_has_the_defaults() {
        let manifest = Manifest::parse(
            "[[plugin]]\nfile = \"a.wasm\"\norder = -1\n[plugin.config]\nprice = \"$1/M\"\nfrom = 2025-01-01\nn = [1, 2.5]\n\
             [[plugin]]\nfile = \"b.wasm\"\nenabled = false\n",
        )
        .unwrap();
        let config: serde_json::Value =
            serde_json::from_str(&manifest.entry("a.wasm").config).unwrap();
        assert_eq!(
            config,
            serde_json::json!({"price": "$1/M", "from": "2025-01-01", "n": [1, 2.5]})
        );
        assert_eq!(manifest.entry("a.wasm").order, -1);
        assert!(!manifest.entry("b.wasm").enabled);
        assert_eq!(manifest.entry("c.wasm"), Entry::default());
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let cases = [
            ("[[plugin]]\nfile = \"a.wasm\"\nordre = 1\n", "ordre"),
            ("plugins = 1\n", "plugins"),
            ("[[plugin]]\norder = 1\n", "file"),
            ("[[plugin]]\nfile = \"../a.wasm\"\n", "../a.wasm"),
            ("[[plugin]]\nfile = \"a.wasm\"\n[[plugin]]\nfile = \"a.wasm\"\n", "twice"),
            ("[[plugin]]\nfile = \"a.wasm\"\nconfig = { x = nan }\n", "NaN"),
            ("[[plugin\n", "plugin"),
        ];
        for (text, named) in cases {
            let error = Manifest::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
