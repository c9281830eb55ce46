//! Rules as an operator writes them.

use crate::keyed_hash::KeyedHash;
use serde::Deserialize;
use std::cell::RefCell;
use tollgate_plugin::{
    ByKey, Config, ConfigError, Context, Edits, Pattern, SpanView, Status, Value, Verdict,
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
    call: RefCell<Call>,
}

/// Keys of a call of which it is remembered what is done to them.
const KEYS: usize = 256;

/// What the rules come to in the call at hand.
#[derive(Debug)]
struct Call {
    /// Of each rule, whether it applies.
    applies: Vec<bool>,
    actions: ByKey<Action>,
}

/// What is done to an attribute.
#[derive(Debug, Clone, Copy)]
enum Action {
    Leave,
    Remove,
    Hash,
}

impl Action {
    /// Of two rules that name the key, the one that drops it wins.
    fn of<'r>(key: &str, rules: impl Iterator<Item = &'r Rule>) -> Self {
        let names = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(key));
        let mut action = Self::Leave;
        for rule in rules {
            if names(&rule.drop) {
                return Self::Remove;
            }
            if names(&rule.hash) {
                action = Self::Hash;
            }
        }
        action
    }
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
        let (rules, digits) = (settings.rules, settings.hash_length);
        // Until a call begins all of them: when in doubt it removes.
        let applies = vec![true; rules.len()];
        let call = RefCell::new(Call { applies, actions: ByKey::with_room(0, KEYS) });
        Ok(Self { rules, hash, digits, call })
    }

    /// Begins a call: which rules apply, and to which keys, is the same for all of its spans.
    pub(crate) fn begin(&self, ctx: &Context<'_>) {
        let call = &mut *self.call.borrow_mut();
        call.applies.clear();
        call.applies.extend(self.rules.iter().map(|rule| rule.applies(ctx)));
        call.actions.clear();
    }

    /// Judges one span and redacts what is kept of it.
    pub(crate) fn apply(&self, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) -> Verdict {
        let Call { applies, actions } = &mut *self.call.borrow_mut();
        let rules = self.rules.iter().zip(&*applies);
        let applying = rules.filter_map(|(rule, applies)| applies.then_some(rule));
        if applying
            .clone()
            .any(|rule| rule.drop_spans.as_ref().is_some_and(|spans| spans.matches(span)))
        {
            return Verdict::Drop;
        }
        let attributes = span.attributes();
        for place in attributes.places() {
            let action = actions.get_or_insert_with(place, || {
                attributes
                    .name(place)
                    .map_or(Action::Leave, |key| Action::of(key, applying.clone()))
            });
            if matches!(action, Action::Leave) {
                continue;
            }
            let Some(key) = attributes.name(place) else { continue };
            let hash = matches!(action, Action::Hash).then(|| self.hash(span, key)).flatten();
            match hash {
                Some(hash) => edits.set(key, &hash),
                None => edits.remove(key),
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
