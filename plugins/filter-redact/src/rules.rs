//! Rules as an operator writes them.

use crate::keyed_hash::KeyedHash;
use serde::Deserialize;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Pattern, SpanView, Status, Value, Verdict,
};

/// Between the elements of a list that is hashed as one value.
const SEPARATOR: &[u8] = b"\x1f";

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    rules: Vec<Rule>,
    /// The key of the hash; needed if anything is hashed.
    salt: Option<String>,
    #[serde(default = "sixteen")]
    hash_length: usize,
}

fn sixteen() -> usize {
    16
}

/// What to do, for which exporter. Every rule is applied; where two name the same attribute, dropping wins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Spans bound for other exporters are left alone by this rule.
    exporter: Option<Pattern>,
    tenant: Option<Pattern>,
    /// Attributes to remove.
    #[serde(default)]
    drop: Vec<Pattern>,
    /// Attributes whose values are replaced by a hash.
    #[serde(default)]
    hash: Vec<Pattern>,
    drop_spans: Option<Spans>,
}

/// Spans that do not leave: those for which all of this holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spans {
    name: Option<Pattern>,
    attribute: Option<Equals>,
    shorter_than_ms: Option<u64>,
    status: Option<StatusName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Equals {
    key: String,
    /// Of the value as text.
    value: Pattern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StatusName {
    Unset,
    Ok,
    Error,
}

/// The rules, checked.
#[derive(Debug)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    hash: KeyedHash,
    digits: usize,
}

impl Rules {
    /// Reads and checks a configuration.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let settings: Settings = config.parse()?;
        for (index, rule) in settings.rules.iter().enumerate() {
            rule.check(&format!("/rules/{index}"))?;
        }
        if settings.rules.iter().any(|rule| !rule.hash.is_empty())
            && settings.salt.as_deref().unwrap_or("").len() < 8
        {
            let message = "hashes need a salt of at least 8 characters; without one they are undone by trying";
            return Err(ConfigError::invalid("/salt", message));
        }
        if !(8..=64).contains(&settings.hash_length) {
            return Err(ConfigError::invalid(
                "/hash_length",
                "between 8 and 64 hexadecimal digits",
            ));
        }
        let hash = KeyedHash::new(settings.salt.unwrap_or_default().as_bytes());
        Ok(Self { rules: settings.rules, hash, digits: settings.hash_length })
    }

    /// Judges one span and redacts what is kept of it.
    pub(crate) fn apply(
        &self,
        ctx: &Context<'_>,
        span: &SpanView<'_>,
        edits: &mut Edits<'_, '_>,
    ) -> Verdict {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| rule.applies(ctx)).collect();
        if rules
            .iter()
            .any(|rule| rule.drop_spans.as_ref().is_some_and(|spans| spans.matches(span)))
        {
            return Verdict::Drop;
        }
        let dropped: Vec<&Pattern> = rules.iter().flat_map(|rule| &rule.drop).collect();
        let hashed: Vec<&Pattern> = rules.iter().flat_map(|rule| &rule.hash).collect();
        let names =
            |patterns: &[&Pattern], key| patterns.iter().any(|pattern| pattern.matches(key));
        for key in span.attributes().keys() {
            if names(&dropped, key) {
                edits.remove(key);
            } else if names(&hashed, key) {
                match self.hash(span, key) {
                    Some(hash) => edits.set(key, &hash),
                    None => edits.remove(key),
                }
            }
        }
        Verdict::Keep
    }

    /// The hash of a value, or of the elements of a list; none if it was not passed in full.
    fn hash(&self, span: &SpanView<'_>, key: &str) -> Option<String> {
        let mut texts = Vec::new();
        for value in span.attributes().all(key) {
            texts.push(bytes_of(value)?);
        }
        let parts = texts.iter().enumerate().flat_map(|(index, text)| {
            let separator = if index == 0 { &[][..] } else { SEPARATOR };
            [separator, text.as_ref()]
        });
        Some(self.hash.of(parts, self.digits))
    }
}

impl Rule {
    fn applies(&self, ctx: &Context<'_>) -> bool {
        let holds = |condition: &Option<Pattern>, value: Option<&str>| {
            condition
                .as_ref()
                .is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
        };
        holds(&self.exporter, ctx.exporter()) && holds(&self.tenant, ctx.tenant())
    }

    fn check(&self, pointer: &str) -> Result<(), ConfigError> {
        if self.drop.is_empty() && self.hash.is_empty() && self.drop_spans.is_none() {
            return Err(ConfigError::invalid(
                pointer,
                "the rule does nothing: give `drop`, `hash` or `drop_spans`",
            ));
        }
        match &self.drop_spans {
            Some(Spans { name: None, attribute: None, shorter_than_ms: None, status: None }) => {
                let message =
                    "this would drop every span; say so with \"name\": \"*\" if it is meant";
                Err(ConfigError::invalid(format!("{pointer}/drop_spans"), message))
            }
            _ => Ok(()),
        }
    }
}

impl Spans {
    fn matches(&self, span: &SpanView<'_>) -> bool {
        self.name.as_ref().is_none_or(|pattern| pattern.matches(span.name()))
            && self
                .shorter_than_ms
                .is_none_or(|limit| span.duration() < limit.saturating_mul(1_000_000))
            && self.status.is_none_or(|status| status == StatusName::from(span.status))
            && self.attribute.as_ref().is_none_or(|equals| equals.matches(span))
    }
}

impl Equals {
    fn matches(&self, span: &SpanView<'_>) -> bool {
        span.attributes().all(&self.key).any(|value| {
            match bytes_of(value).as_deref().map(str::from_utf8) {
                Some(Ok(text)) => self.value.matches(text),
                _ => false,
            }
        })
    }
}

impl From<Status> for StatusName {
    fn from(status: Status) -> Self {
        match status {
            Status::Unset => Self::Unset,
            Status::Ok => Self::Ok,
            Status::Error => Self::Error,
        }
    }
}

/// A value as it would be written; none for one that was left out.
fn bytes_of(value: Value<'_>) -> Option<std::borrow::Cow<'_, [u8]>> {
    Some(match value {
        Value::Text(text) | Value::Json(text) => text.as_bytes().into(),
        Value::Bytes(bytes) => bytes.into(),
        Value::Int(number) => number.to_string().into_bytes().into(),
        Value::Bool(truth) => truth.to_string().into_bytes().into(),
        Value::Double(number) => number.to_string().into_bytes().into(),
        _ => return None,
    })
}
