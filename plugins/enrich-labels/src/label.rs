//! Labels as an operator writes them.

use crate::{MODELS, READS, WRITE_PREFIXES, WRITES};
use serde::{Deserialize, Deserializer, de::Error};
use std::collections::BTreeMap;
use tollgate_plugin::{Config, ConfigError, Context, Edits, Pattern, SpanView, Value};

/// The configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labels {
    #[serde(default)]
    labels: Vec<Label>,
}

/// One attribute to set. It is set in the order of the list, and only where the span has none of that key unless
/// `overwrite` says so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    key: String,
    /// A fixed value.
    value: Option<Fixed>,
    /// The key of another attribute: its value is copied, or looked up in `map`.
    from: Option<String>,
    /// Values by the other attribute's value, written as text; what is not in it takes `default`.
    map: Option<BTreeMap<String, Fixed>>,
    /// For a span that lacks the other attribute, or has a value that `map` lacks. Without it no label is set then.
    default: Option<Fixed>,
    #[serde(default)]
    when: When,
    #[serde(default)]
    overwrite: bool,
}

/// Conditions, all of which have to hold. A span that lacks what is asked for does not match.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    model: Option<Pattern>,
    tenant: Option<Pattern>,
    /// The name of the span.
    span: Option<Pattern>,
}

/// A value in the configuration. No fractions: a label is a name or a number to group by.
#[derive(Debug, Clone)]
enum Fixed {
    Text(String),
    Int(i64),
    Bool(bool),
}

impl Labels {
    /// Reads and checks a configuration.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let labels: Self = config.parse()?;
        for (index, label) in labels.labels.iter().enumerate() {
            label.check(&format!("/labels/{index}"))?;
        }
        Ok(labels)
    }

    /// Labels one span.
    pub(crate) fn apply(
        &self,
        ctx: &Context<'_>,
        span: &SpanView<'_>,
        model: Option<&str>,
        edits: &mut Edits<'_, '_>,
    ) {
        for label in &self.labels {
            if label.when.holds(ctx, span, model)
                && let Some(value) = label.value(ctx, span)
            {
                if label.overwrite {
                    edits.set(&label.key, value);
                } else {
                    edits.set_default(&label.key, value);
                }
            }
        }
    }
}

impl Label {
    fn value<'a>(&'a self, ctx: &Context<'a>, span: &SpanView<'a>) -> Option<Value<'a>> {
        if let Some(value) = &self.value {
            return Some(value.as_value());
        }
        let from = self.from.as_ref()?;
        let found = span.attributes().get(from).or_else(|| ctx.resource().get(from));
        let value = match (found, &self.map) {
            (Some(found), Some(map)) => map.get(&*text_of(found)?).map(Fixed::as_value),
            (found, _) => found,
        };
        value.or_else(|| self.default.as_ref().map(Fixed::as_value))
    }

    fn check(&self, pointer: &str) -> Result<(), ConfigError> {
        let fault = |key: &str, message: String| {
            Err(ConfigError::invalid(format!("{pointer}/{key}"), message))
        };
        if !WRITE_PREFIXES.iter().any(|prefix| self.key.starts_with(prefix))
            && !WRITES.contains(&self.key.as_str())
        {
            let message = format!(
                "`{}` is not a key for labels: they begin with {}, or are one of {}",
                self.key,
                WRITE_PREFIXES.join(" or "),
                WRITES.join(", ")
            );
            return fault("key", message);
        }
        match (&self.value, &self.from) {
            (Some(_), Some(_)) => fault(
                "from",
                "a label has a fixed `value` or comes `from` an attribute, not both".into(),
            ),
            (None, None) => {
                fault("value", "a label needs a `value`, or an attribute it comes `from`".into())
            }
            (Some(_), None) if self.map.is_some() || self.default.is_some() => {
                fault("value", "`map` and `default` go with `from`".into())
            }
            (None, Some(from))
                if !READS.iter().any(|prefix| from.starts_with(prefix))
                    && MODELS.iter().all(|(key, _)| key != from) =>
            {
                fault(
                    "from",
                    format!(
                        "`{from}` is not passed to this plugin; it gets what begins with {}",
                        READS.join(", ")
                    ),
                )
            }
            _ => Ok(()),
        }
    }
}

impl When {
    fn holds(&self, ctx: &Context<'_>, span: &SpanView<'_>, model: Option<&str>) -> bool {
        let holds = |condition: &Option<Pattern>, value: Option<&str>| {
            condition
                .as_ref()
                .is_none_or(|pattern| value.is_some_and(|value| pattern.matches(value)))
        };
        holds(&self.model, model)
            && holds(&self.tenant, ctx.tenant())
            && holds(&self.span, Some(span.name()))
    }
}

impl Fixed {
    fn as_value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Int(number) => Value::Int(*number),
            Self::Bool(truth) => Value::Bool(*truth),
        }
    }
}

/// How a value is written as a key of `map`; what has no obvious writing is in no map.
fn text_of(value: Value<'_>) -> Option<std::borrow::Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Fixed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Fixed;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, a whole number, true or false")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Fixed, E> {
                Ok(Fixed::Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, truth: bool) -> Result<Fixed, E> {
                Ok(Fixed::Bool(truth))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Fixed, E> {
                Ok(Fixed::Int(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Fixed, E> {
                i64::try_from(number)
                    .map(Fixed::Int)
                    .map_err(|_| E::custom("the number does not fit in 64 bits"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
