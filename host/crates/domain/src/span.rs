//! A span as plugins and exporters see it, whoever made it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::id::{SpanContext, SpanId};
use crate::time::{Interval, UnixNanos};

/// Name of an attribute.
pub type Key = Cow<'static, str>;

/// OpenTelemetry's attribute value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text.
    Text(String),
    /// Several values, by convention all of one kind.
    List(Vec<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u64> for Value {
    /// Counts beyond `i64` cannot happen in practice and saturate.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

/// Attributes in the order they were set; a key stands in it once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(Vec<(Key, Value)>);

impl Attributes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, replacing what it had.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets `key` if there is a value.
    pub fn set_some<V: Into<Value>>(&mut self, key: impl Into<Key>, value: Option<V>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(k, _)| k != key);
        self.0.len() != before
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// OpenTelemetry's span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are OpenTelemetry's")]
pub enum SpanKind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// OpenTelemetry's span status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanStatus {
    /// Nothing was said.
    Unset,
    /// Explicitly good.
    Ok,
    /// Failed, and how.
    Error(String),
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// What happened.
    pub name: Key,
    /// When.
    pub time: UnixNanos,
    /// Details.
    pub attributes: Attributes,
}

/// One timed operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Trace, id, flags.
    pub context: SpanContext,
    /// Its parent, in this process or another's.
    pub parent: Option<SpanId>,
    /// Whether the parent is in another process.
    pub parent_is_remote: bool,
    /// Its name.
    pub name: Key,
    /// Its kind.
    pub kind: SpanKind,
    /// Start and end.
    pub interval: Interval,
    /// How it ended.
    pub status: SpanStatus,
    /// Facts about it.
    pub attributes: Attributes,
    /// Moments in it, in order.
    pub events: Vec<SpanEvent>,
}

/// What all spans of one process share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// `service.name` and the like.
    pub attributes: Attributes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once() {
        let mut attributes = Attributes::new();
        attributes.set("a", 1_i64);
        attributes.set("b", "x");
        attributes.set("a", 2_i64);
        attributes.set_some("c", None::<bool>);
        assert_eq!(attributes.len(), 2);
        assert_eq!(attributes.get("a"), Some(&Value::Int(2)));
        assert!(attributes.remove("a") && !attributes.remove("a"));
    }
}
