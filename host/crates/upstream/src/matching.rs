//! Which models a backend serves under which names, and to whom.
//!
//! A pattern has `*` for any text and `?` for one character, and matches the whole of a name.

use std::collections::HashMap;
use std::sync::Arc;

use wildmatch::WildMatch;

/// The models of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Models {
    /// Name here, name there.
    named: HashMap<String, Arc<str>>,
    /// In the order of the file.
    names: Vec<String>,
    patterns: Vec<WildMatch>,
}

impl Models {
    /// Whether the name was not there before.
    pub fn add(&mut self, name: &str, there: &str) -> bool {
        self.names.push(name.to_owned());
        self.named.insert(name.to_owned(), there.into()).is_none()
    }

    pub fn add_pattern(&mut self, pattern: &str) {
        self.patterns.push(WildMatch::new(pattern));
    }

    /// What the backend calls the model, if it is named.
    pub fn named(&self, model: &str) -> Option<Arc<str>> {
        self.named.get(model).cloned()
    }

    /// Whether a pattern fits.
    pub fn fits(&self, model: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(model))
    }

    /// All names that are not patterns.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Whom a backend serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tenants(pub Vec<WildMatch>);

impl Tenants {
    /// Nobody in particular is matched as the empty text.
    pub fn admit(&self, tenant: Option<&str>) -> bool {
        let tenant = tenant.unwrap_or_default();
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(tenant))
    }
}

/// Whether it is a pattern rather than a name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}
