//! A span as plugins and exporters see it, whoever made it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{SpanContext, SpanId};
use crate::otlp::{self, Sent};
use crate::received::{Origin, Received};
use crate::time::{Interval, UnixNanos};
pub use crate::value::Value;

/// Name of an attribute.
pub type Key = Cow<'static, str>;

/// Attributes in the order they were set; a key stands in it once. Copies share them until one is
/// changed: a span is copied on its way from the ledger to each exporter, and few copies are changed.
/// Those that others sent are made when somebody looks at them ([`crate::otlp`]), and are not touched by
/// what is added to them.
#[derive(Clone, Default)]
pub struct Attributes {
    /// As they came, until one of them is changed.
    sent: Option<Arc<Lazy>>,
    /// Those that are not among them.
    added: Arc<Vec<(Key, Value)>>,
}

#[derive(Debug)]
struct Lazy {
    sent: Sent,
    made: OnceLock<Vec<(Key, Value)>>,
}

impl Lazy {
    fn made(&self) -> &[(Key, Value)] {
        self.made.get_or_init(|| otlp::values(&self.sent))
    }

    /// Whether a key is one that is wanted; no value is made for that.
    fn has(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        match self.made.get() {
            Some(made) => made.iter().any(|(key, _)| wanted(key.as_bytes())),
            None => otlp::keys(&self.sent).any(wanted),
        }
    }
}

impl Attributes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, with room for so many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Vec::with_capacity(count).into()
    }

    /// As they came.
    pub(crate) fn sent(sent: Sent) -> Self {
        let lazy = Lazy { sent, made: OnceLock::new() };
        Self { sent: Some(Arc::new(lazy)), ..Self::default() }
    }

    /// Those that are as they came, and those that are not.
    pub(crate) fn parts(&self) -> (Option<&Sent>, &[(Key, Value)]) {
        (self.sent.as_ref().map(|lazy| &lazy.sent), &self.added)
    }

    /// All of them, for a change.
    fn all(&mut self) -> &mut Vec<(Key, Value)> {
        if let Some(lazy) = self.sent.take() {
            self.added = Arc::new([lazy.made(), &self.added].concat());
        }
        Arc::make_mut(&mut self.added)
    }

    /// Those among which `key` is, or is to be.
    fn among(&mut self, key: &str) -> &mut Vec<(Key, Value)> {
        let is_new = |lazy: &Arc<Lazy>| !lazy.has(|named| named == key.as_bytes());
        match self.sent.as_ref().is_some_and(is_new) {
            true => Arc::make_mut(&mut self.added),
            false => self.all(),
        }
    }

    /// Sets `key`, replacing what it had.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let key = key.into();
        set(self.among(&key), key, value.into());
    }

    /// Sets `key`, replacing what it had. Its name is copied only if it is not among them yet.
    pub fn set_named(&mut self, key: &str, value: Value) {
        let among = self.among(key);
        match among.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => among.push((Key::Owned(key.to_owned()), value)),
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
        // Where none has that name, no value is made.
        let sent = self.sent.as_ref().filter(|lazy| lazy.has(|named| named == key.as_bytes()));
        let among = sent.map_or(self.added.as_slice(), |lazy| lazy.made());
        among.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Whether a key is one that is wanted; no value is made for that.
    pub fn has(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.added.iter().any(|(key, _)| wanted(key.as_bytes()))
            || self.sent.as_ref().is_some_and(|lazy| lazy.has(wanted))
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let is_there = self.has(|named| named == key.as_bytes());
        if is_there {
            self.all().retain(|(k, _)| k != key);
        }
        is_there
    }

    /// Keeps those whose key is to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key) -> bool) {
        self.all().retain(|(key, _)| keep(key));
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        let sent = self.sent.as_ref().map_or(&[][..], |lazy| lazy.made());
        sent.iter().chain(self.added.iter()).map(|(key, value)| (key, value))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sent.as_ref().map_or(0, |lazy| lazy.made().len()) + self.added.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_none() && self.added.is_empty()
    }
}

impl PartialEq for Attributes {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

impl From<Vec<(Key, Value)>> for Attributes {
    fn from(all: Vec<(Key, Value)>) -> Self {
        Self { sent: None, added: Arc::new(all) }
    }
}

/// More attributes than this are looked up in a map while they are gathered.
const FEW: usize = 32;

impl<K: Into<Key>> FromIterator<(K, Value)> for Attributes {
    /// As if each were set in turn, in linear time.
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(pairs: I) -> Self {
        gathered(pairs).into()
    }
}

/// These as if each were set in turn, in linear time.
pub(crate) fn gathered<K: Into<Key>>(
    pairs: impl IntoIterator<Item = (K, Value)>,
) -> Vec<(Key, Value)> {
    let pairs = pairs.into_iter();
    let mut all = Vec::with_capacity(pairs.size_hint().0);
    let mut places: HashMap<Key, usize> = HashMap::new();
    for (key, value) in pairs {
        let key = key.into();
        if all.len() < FEW {
            set(&mut all, key, value);
            continue;
        }
        if places.is_empty() {
            places = all.iter().map(|(key, _)| key.clone()).zip(0..).collect();
        }
        match places.get(&key).and_then(|place| all.get_mut(*place)) {
            Some((_, old)) => *old = value,
            None => {
                places.insert(key.clone(), all.len());
                all.push((key, value));
            }
        }
    }
    all
}

/// Sets `key` among these, replacing what it had.
fn set(all: &mut Vec<(Key, Value)>, key: Key, value: Value) {
    match all.iter_mut().find(|(k, _)| *k == key) {
        Some((_, old)) => *old = value,
        None => all.push((key, value)),
    }
}

/// OpenTelemetry's span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are OpenTelemetry's")]
pub enum SpanKind {
    Unspecified,
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
    /// How many of them were left out before we saw it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_attributes: u32,
}

impl SpanEvent {
    /// One with nothing left out.
    #[must_use]
    pub fn new(name: impl Into<Key>, time: UnixNanos, attributes: Attributes) -> Self {
        Self { name: name.into(), time, attributes, dropped_attributes: 0 }
    }
}

/// Whether it is zero, as most counts are: then it does not stand on record.
pub(crate) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
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
    /// What it carries besides, if another program recorded and sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Box<Received>>,
}

impl Span {
    /// One that is ours and has nothing else yet.
    #[must_use]
    pub fn new(
        context: SpanContext,
        name: impl Into<Key>,
        kind: SpanKind,
        interval: Interval,
    ) -> Self {
        Self {
            context,
            parent: None,
            parent_is_remote: false,
            name: name.into(),
            kind,
            interval,
            status: SpanStatus::Unset,
            attributes: Attributes::new(),
            events: Vec::new(),
            received: None,
        }
    }

    /// Who recorded it; none: we.
    #[must_use]
    pub fn origin(&self) -> Option<&Arc<Origin>> {
        self.received.as_deref().map(|received| &received.origin)
    }
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
        attributes.set_named("b", true.into());
        attributes.set_named("d", false.into());
        assert_eq!(attributes.get("b"), Some(&Value::Bool(true)));
        assert!(attributes.remove("d"));
        assert_eq!(attributes.len(), 2);
        assert_eq!(attributes.get("a"), Some(&Value::Int(2)));
        assert!(attributes.remove("a") && !attributes.remove("a"));
    }

    #[test]
    fn copies_share_until_one_is_changed() {
        let mut one: Attributes =
            [("a", Value::Int(1)), ("b", Value::Int(2))].into_iter().collect();
        let kept = one.clone();
        assert!(
            !one.remove("c") && Arc::ptr_eq(&one.added, &kept.added),
            "nothing to remove, nothing to copy"
        );
        let changes: [fn(&mut Attributes); 3] = [
            |one| one.set("a", 3_i64),
            |one| assert!(one.remove("b")),
            |one| one.retain(|key| key != "a"),
        ];
        for change in changes {
            let before = one.clone();
            change(&mut one);
            assert!(one != before && !Arc::ptr_eq(&one.added, &before.added));
        }
        assert_eq!((one.len(), kept.get("a"), kept.len()), (0, Some(&Value::Int(1)), 2));
        // On record it is what it was when each had its own.
        let stored = serde_json::to_string(&kept).unwrap();
        assert_eq!(stored, r#"[["a",1],["b",2]]"#);
        assert_eq!(serde_json::from_str::<Attributes>(&stored).unwrap(), kept);
    }

    #[test]
    fn many_are_gathered_as_if_each_were_set() {
        let pairs: Vec<(String, Value)> =
            (0..200_i64).map(|n| ((n * 7 % 90).to_string(), Value::Int(n))).collect();
        let mut set = Attributes::new();
        for (key, value) in pairs.clone() {
            set.set(key, value);
        }
        assert_eq!(pairs.into_iter().collect::<Attributes>(), set);
        assert_eq!(set.len(), 90);
    }
}
