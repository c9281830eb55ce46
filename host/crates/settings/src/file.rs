//! The settings file: from its text to what it sets. What is wrong with it is told all at once, each fault with its line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Spanned, Table, Value};

use crate::exporter::{self, GivenExporter};
use crate::given::Given;
use crate::names;
use crate::resolved::{SettingsError, unknown};

/// What a file sets, without what is wrong with it.
pub(crate) struct Read {
    pub(crate) given: Given,
    /// Whether values of a wrong type were left out, so that what depends on them cannot be judged.
    pub(crate) mistyped: bool,
}

/// Reads it, and adds to `faults` each name that means nothing and, where there are several faults, each value of a
/// wrong type.
///
/// # Errors
/// If there is no such file, if it is no TOML, or if one value of a wrong type is all that is wrong with it: that is
/// shown as it stands in the file.
pub(crate) fn read(path: &Path, faults: &mut Vec<String>) -> Result<Read, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    let malformed = |source: toml::de::Error| SettingsError::Malformed {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut table: Table = text.parse().map_err(malformed)?;
    let before = faults.len();
    faults.extend(unknown_keys(&mut table, path));
    let wrong = wrong_types(&mut table, &Places::of(&text), path);
    let mistyped = !wrong.is_empty();
    if wrong.len() == 1 && faults.len() == before {
        // Parsed from the text once more, since only then an error shows the line itself.
        toml::from_str::<Given>(&text).map_err(malformed)?;
    }
    faults.extend(wrong);
    Ok(Read { given: table.try_into().map_err(malformed)?, mistyped })
}

/// Takes the keys out that mean nothing, and names for each the one that was probably meant.
fn unknown_keys(table: &mut Table, path: &Path) -> Vec<String> {
    let known = names::keys();
    let wrong: Vec<String> = table.keys().filter(|key| !known.contains(key)).cloned().collect();
    let what = format!("key in {}", path.display());
    let mut faults = Vec::new();
    for key in wrong {
        table.remove(&key);
        faults.push(unknown(&what, &key, &known));
    }
    if let Some(tables) = table.get_mut(names::EXPORTER) {
        let unknown = exporter::remove_unknown_keys(tables);
        faults.extend(unknown.into_iter().map(|fault| format!("{fault} in {}", path.display())));
    }
    faults
}

/// Takes out what has the wrong type; of an exporter the whole table, since the rest of it says little alone.
fn wrong_types(table: &mut Table, places: &Places, path: &Path) -> Vec<String> {
    let told = |line: Option<usize>, name: &str, why: &str| {
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        format!("in {}{line}: {name}: {why}", path.display())
    };
    let mut faults = Vec::new();
    if let Some(Value::Array(tables)) = table.get_mut(names::EXPORTER) {
        let mut at = 0_usize;
        tables.retain(|one| {
            let Value::Table(keys) = one else { return true };
            let lines = places.exporters.get(at);
            at = at.saturating_add(1);
            let wrong = wrong_keys::<GivenExporter>(keys);
            for (key, why) in &wrong {
                let line = lines.and_then(|lines| lines.get(key)).copied();
                faults.push(told(line, &format!("{key} of [[{}]]", names::EXPORTER), why));
            }
            wrong.is_empty()
        });
    }
    for (key, why) in wrong_keys::<Given>(table) {
        table.remove(&key);
        faults.push(told(places.keys.get(&key).copied(), &key, &why));
    }
    faults
}

/// The keys whose values alone make no `T`, in which every key may be missing; and why.
fn wrong_keys<T: DeserializeOwned>(table: &Table) -> Vec<(String, String)> {
    let wrong = table.iter().filter_map(|(key, value)| {
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        let error = alone.try_into::<T>().err()?;
        Some((key.clone(), error.message().to_owned()))
    });
    wrong.collect()
}

/// In which line each key has its value.
#[derive(Default)]
struct Places {
    keys: BTreeMap<String, usize>,
    exporters: Vec<BTreeMap<String, usize>>,
}

impl Places {
    /// Of a text that is TOML.
    fn of(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Tables {
            #[serde(default)]
            exporter: Vec<BTreeMap<String, Spanned<Value>>>,
        }
        let lines = |keys: BTreeMap<String, Spanned<Value>>| {
            let line = |value: &Spanned<Value>| {
                let before = text.get(..value.span().start).unwrap_or_default();
                before.matches('\n').count().saturating_add(1)
            };
            keys.iter().map(|(key, value)| (key.clone(), line(value))).collect()
        };
        let keys = toml::from_str(text).map(lines).unwrap_or_default();
        let tables: Tables = toml::from_str(text).unwrap_or_default();
        Self { keys, exporters: tables.exporter.into_iter().map(lines).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a file, one fault a line, without its path.
    fn told(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.toml");
        std::fs::write(&path, text).unwrap();
        let mut faults = Vec::new();
        if let Err(error) = read(&path, &mut faults) {
            faults.push(error.to_string());
        }
        faults.join("\n").replace(&format!("{}", path.display()), "FILE")
    }

    #[test]
    fn values_of_wrong_types_are_told_all_at_once() {
        let text = told(
            "listen = 8080\nmodel = [\n  \"demo\",\n]\nmax-running = \"many\"\n\n[[exporter]]\nkind = \"otlp\"\n\
             endpoint = 7\n[[exporter]]\nkind = \"console\"\nformat = \"loud\"\nkeeps = 3\n",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for (line, words) in lines.iter().zip([
            "unknown key of [[exporter]] number 2 (console): keeps",
            "in FILE, line 9: endpoint of [[exporter]]: invalid type: integer `7`, expected a string",
            "in FILE, line 12: format of [[exporter]]: unknown variant `loud`, expected one of `tree`",
            "in FILE, line 1: listen: invalid type: integer `8080`",
            "in FILE, line 5: max-running: invalid type: string \"many\", expected usize",
        ]) {
            assert!(line.starts_with(words), "{line}\n{words}");
        }
    }

    #[test]
    fn one_alone_is_shown_as_it_stands_there() {
        let text = told("console = \"off\"\nlisten = 8080\n");
        assert!(text.contains("line 2") && text.contains("2 | listen = 8080"), "{text}");
        assert!(told("exporter = 7\n").contains("exporter"), "{}", told("exporter = 7\n"));
        assert_eq!(told("listen = \"127.0.0.1:9\"\n"), "");
    }
}
