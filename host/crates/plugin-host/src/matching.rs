//! Which requests, spans and exporters a plugin is for, as `match` in `plugins.toml` says.
//!
//! A pattern has `*` for any text and `?` for one character, and matches the whole of a name. A list that is empty
//! matches everything; what lacks the thing that a list is about is matched as the empty text, so by `*` alone.

use serde::Deserialize;
use tollgate_domain::{Span, Usage, Value};
use wildmatch::WildMatch;

/// Most patterns of a list, and bytes of one.
const PATTERNS: usize = 256;
const PATTERN_BYTES: usize = 256;

/// All lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Matching {
    /// The model that was asked for or the one that answered.
    models: Patterns,
    providers: Patterns,
    tenants: Patterns,
    operations: Patterns,
    /// Of filters only: the others are asked before it is known who exports.
    exporters: Patterns,
    /// Whether any list says anything.
    restricted: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Patterns(Vec<WildMatch>);

impl Patterns {
    fn admit<'a>(&self, names: impl IntoIterator<Item = Option<&'a str>>) -> bool {
        self.0.is_empty() || {
            let mut names = names.into_iter().map(Option::unwrap_or_default);
            names.any(|name| self.0.iter().any(|pattern| pattern.matches(name)))
        }
    }
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WrittenMatching {
    models: Vec<String>,
    providers: Vec<String>,
    tenants: Vec<String>,
    operations: Vec<String>,
    exporters: Vec<String>,
}

impl WrittenMatching {
    /// Checks the patterns; the error names the list.
    pub fn check(self) -> Result<Matching, String> {
        let restricted =
            [&self.models, &self.providers, &self.tenants, &self.operations, &self.exporters]
                .iter()
                .any(|list| !list.is_empty());
        Ok(Matching {
            models: patterns("models", &self.models)?,
            providers: patterns("providers", &self.providers)?,
            tenants: patterns("tenants", &self.tenants)?,
            operations: patterns("operations", &self.operations)?,
            exporters: patterns("exporters", &self.exporters)?,
            restricted,
        })
    }
}

fn patterns(list: &str, written: &[String]) -> Result<Patterns, String> {
    if written.len() > PATTERNS {
        return Err(format!("match.{list}: more than {PATTERNS} patterns"));
    }
    if let Some(long) = written.iter().position(|pattern| pattern.len() > PATTERN_BYTES) {
        return Err(format!("match.{list}[{long}]: longer than {PATTERN_BYTES} bytes"));
    }
    Ok(Patterns(written.iter().map(|pattern| WildMatch::new(pattern)).collect()))
}

impl Matching {
    /// Whether it says anything of exporters.
    pub fn names_exporters(&self) -> bool {
        !self.exporters.0.is_empty()
    }

    /// Whether it is for a request with this usage.
    pub fn usage(&self, tenant: Option<&str>, usage: &Usage) -> bool {
        !self.restricted
            || (self.models.admit([Some(&*usage.request_model), Some(&*usage.response_model)])
                && self.providers.admit([Some(&*usage.provider)])
                && self.operations.admit([Some(&*usage.operation)])
                && self.tenants.admit([tenant]))
    }

    /// Whether it is for any span of this tenant on its way to this exporter.
    pub fn batch(&self, tenant: Option<&str>, exporter: Option<&str>) -> bool {
        !self.restricted
            || (self.tenants.admit([tenant])
                && (exporter.is_none() || self.exporters.admit([exporter])))
    }

    /// Whether it is for this span.
    pub fn span(&self, span: &Span) -> bool {
        if !self.restricted {
            return true;
        }
        let text = |key: &str| match span.attributes.get(key) {
            Some(Value::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        self.models.admit([text("gen_ai.request.model"), text("gen_ai.response.model")])
            && self.providers.admit([text("gen_ai.provider.name")])
            && self.operations.admit([text("gen_ai.operation.name")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn matching(toml: &str) -> Matching {
        toml::from_str::<WrittenMatching>(toml).unwrap().check().unwrap()
    }

    #[test]
    fn patterns_match_whole_names() {
        let usage = testing::usage("gpt-4o-mini");
        let cases = [
            ("", true),
            ("models = [\"gpt-4o*\"]", true),
            ("models = [\"gpt-4?-mini\"]", true),
            ("models = [\"gpt-4o\"]", false),
            ("models = [\"GPT-4o*\"]", false),
            ("models = [\"x\", \"*mini\"]", true),
            ("providers = [\"toll*\"]\noperations = [\"chat\"]", true),
            ("providers = [\"toll*\"]\noperations = [\"embeddings\"]", false),
            ("tenants = [\"acme\"]", true),
            ("tenants = [\"acme-*\"]", false),
            ("exporters = [\"otlp*\"]", true),
        ];
        for (toml, expected) in cases {
            assert_eq!(matching(toml).usage(Some("acme"), &usage), expected, "{toml}");
        }
        assert!(!matching("tenants = [\"a*\"]").usage(None, &usage));
        assert!(matching("tenants = [\"*\"]").usage(None, &usage));
    }

    #[test]
    fn spans_are_matched_by_their_attributes() {
        let root = testing::span(&[("gen_ai.request.model", "gpt-4o".into())]);
        let child = testing::span(&[]);
        let models = matching("models = [\"gpt-*\"]\nexporters = [\"otlp*\"]");
        assert!(models.span(&root) && !models.span(&child));
        assert!(models.batch(None, Some("otlp-grpc")) && !models.batch(None, Some("console")));
        assert!(models.batch(None, None), "before it is known who exports");
        assert!(Matching::default().span(&child));
    }
}
