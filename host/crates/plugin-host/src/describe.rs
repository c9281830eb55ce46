//! What a plugin says about itself, checked before anything trusts it.

use foldhash::HashMap;
use tollgate_domain::text::one_line;

use crate::bindings::lifecycle::{AttributeSelector, PluginInfo};
use crate::error::PluginHostError;

/// Longest name of an attribute.
pub(crate) const KEY_BYTES: usize = 256;
/// Most entries of each list.
const ENTRIES: usize = 256;

/// A checked [`PluginInfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub name: String,
    pub version: String,
    pub description: String,
    pub reads: Selection,
    pub writes: Selection,
    pub operations: Vec<String>,
    pub max_batch: usize,
    pub config_schema: Option<String>,
}

/// A list of selectors, ready for look-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    keys: HashMap<String, u32>,
    prefixes: Vec<String>,
    /// In the order of the list; none where a prefix stands.
    by_index: Vec<Option<String>>,
}

/// How a key was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selected {
    /// By name, at this place of the list.
    Key(u32),
    /// By a prefix.
    Prefix,
}

impl Selection {
    pub fn new(selectors: Vec<AttributeSelector>, of: &str) -> Result<Self, PluginHostError> {
        if selectors.len() > ENTRIES {
            return Err(unacceptable(format!("{of} has more than {ENTRIES} entries")));
        }
        let mut selection = Self::default();
        for (index, selector) in (0_u32..).zip(selectors) {
            let (AttributeSelector::Key(text) | AttributeSelector::Prefix(text)) = &selector;
            if !is_name(text) {
                return Err(unacceptable(format!(
                    "{of} has {:?}, which is no attribute's name",
                    one_line(text, 64)
                )));
            }
            match selector {
                AttributeSelector::Key(key) if key.is_empty() => {
                    return Err(unacceptable(format!("{of} has an empty key")));
                }
                AttributeSelector::Key(key) => {
                    selection.keys.entry(key.clone()).or_insert(index);
                    selection.by_index.push(Some(key));
                }
                AttributeSelector::Prefix(prefix) => {
                    selection.prefixes.push(prefix);
                    selection.by_index.push(None);
                }
            }
        }
        Ok(selection)
    }

    /// Whether and how `key` is selected.
    pub fn find(&self, key: &str) -> Option<Selected> {
        if let Some(index) = self.keys.get(key) {
            return Some(Selected::Key(*index));
        }
        self.prefixes.iter().any(|prefix| key.starts_with(prefix)).then_some(Selected::Prefix)
    }

    /// What the list says, prefixes with a `*` behind them; first the keys.
    pub fn names(&self) -> Vec<String> {
        let keys = self.by_index.iter().flatten().cloned();
        keys.chain(self.prefixes.iter().map(|prefix| format!("{prefix}*"))).collect()
    }

    /// How many places the list has.
    pub fn places(&self) -> usize {
        self.by_index.len()
    }

    /// The key at a place of the list; none if a prefix stands there or nothing.
    pub fn key_at(&self, index: u32) -> Option<&str> {
        self.by_index.get(usize::try_from(index).ok()?)?.as_deref()
    }

    #[cfg(test)]
    pub fn of(keys: &[&str], prefixes: &[&str]) -> Self {
        let keys = keys.iter().map(|k| AttributeSelector::Key((*k).to_owned()));
        let prefixes = prefixes.iter().map(|p| AttributeSelector::Prefix((*p).to_owned()));
        Self::new(keys.chain(prefixes).collect(), "test").unwrap()
    }
}

impl Described {
    /// Checks what a plugin said.
    pub fn check(info: PluginInfo) -> Result<Self, PluginHostError> {
        let name_ok =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
        if info.name.is_empty() || info.name.len() > 128 || !info.name.chars().all(name_ok) {
            return Err(unacceptable(format!(
                "the name {:?} is not 1 to 128 letters, digits or any of . _ - / :",
                one_line(&info.name, 64)
            )));
        }
        if !is_version(&info.version) {
            return Err(unacceptable(format!(
                "the version {:?} is not one such as 1.2.3",
                one_line(&info.version, 64)
            )));
        }
        if info.operations.len() > ENTRIES {
            return Err(unacceptable(format!("operations has more than {ENTRIES} entries")));
        }
        if let Some(operation) = info.operations.iter().find(|operation| !is_name(operation)) {
            return Err(unacceptable(format!(
                "operations has {:?}, which is no operation's name",
                one_line(operation, 64)
            )));
        }
        if let Some(schema) = &info.config_schema
            && let Err(error) = serde_json::from_str::<serde_json::Value>(schema)
        {
            return Err(unacceptable(format!("config-schema is not JSON: {error}")));
        }
        Ok(Self {
            name: info.name,
            version: info.version,
            description: one_line(&info.description, 4096),
            reads: Selection::new(info.reads, "reads")?,
            writes: Selection::new(info.writes, "writes")?,
            operations: info.operations,
            max_batch: usize::try_from(info.max_batch).unwrap_or(usize::MAX),
            config_schema: info.config_schema,
        })
    }
}

/// Something that may stand in a log and on a terminal.
fn is_name(text: &str) -> bool {
    text.len() <= KEY_BYTES && !text.chars().any(char::is_control)
}

fn unacceptable(what: String) -> PluginHostError {
    PluginHostError::Described(what)
}

/// The form of a semantic version; precedence is nobody's business here.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or(text);
    let rest = text.get(core.len()..).unwrap_or_default();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 64
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && rest.len() != 1
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_three_numbers() {
        for good in ["0.1.0", "1.2.3-rc.1", "1.2.3+build-5", "10.20.30-a+b"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "1.2.3-", "1.2.3 ", "1.2.3\n"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn no_name_has_what_a_terminal_acts_on() {
        let info = |operation: &str, key: &str| PluginInfo {
            name: "acme/x".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            reads: vec![AttributeSelector::Key(key.to_owned())],
            writes: Vec::new(),
            operations: vec!["chat".to_owned(), operation.to_owned()],
            max_batch: 0,
            config_schema: None,
        };
        assert!(Described::check(info("embeddings", "a.b")).is_ok());
        for bad in ["\u{1b}[2J", "a\nb", "\u{9b}31m", &"x".repeat(257)] {
            for (info, list) in [(info(bad, "a"), "operations has"), (info("x", bad), "reads has")]
            {
                let said = Described::check(info).unwrap_err().to_string();
                assert!(said.contains(list), "{said}");
                assert!(!said.chars().any(char::is_control), "{said:?}");
            }
        }
    }

    #[test]
    fn a_key_is_found_by_name_before_prefix() {
        let selection = Selection::of(&["a.b", "c"], &["a."]);
        assert_eq!(selection.find("a.b"), Some(Selected::Key(0)));
        assert_eq!(selection.find("a.x"), Some(Selected::Prefix));
        assert_eq!(selection.find("b"), None);
        assert_eq!(selection.key_at(1), Some("c"));
        assert_eq!((selection.key_at(2), selection.key_at(3)), (None, None));
    }
}
