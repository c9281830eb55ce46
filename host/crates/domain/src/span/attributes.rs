//! Attributes: those that are set here, and those that came and are looked at when somebody wants to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::otlp::{self, Sent, Unread};
use crate::value::{Value, ValueRef};

/// Name of an attribute.
pub type Key = Cow<'static, str>;

/// Attributes in the order they were set; a key stands in it once. Copies share them until one is
/// changed: a span is copied on its way from the ledger to each exporter, and few copies are changed.
/// Those that others sent stay the bytes that came ([`crate::otlp`]), also where some of them are changed or taken away;
/// values are made of them when somebody wants to keep one.
#[derive(Clone, Default)]
pub struct Attributes {
    /// Those that came, less those that were removed; none are left: none.
    sent: Option<Arc<Lazy>>,
    /// Those that are not among them; none: none, as of most that came.
    added: Option<Arc<Vec<(Key, Value)>>>,
}

#[derive(Debug)]
struct Lazy {
    sent: Sent,
    made: OnceLock<Vec<(Key, Value)>>,
}

impl Lazy {
    fn new(sent: Sent) -> Arc<Self> {
        Arc::new(Self { sent, made: OnceLock::new() })
    }

    fn made(&self) -> &[(Key, Value)] {
        self.made.get_or_init(|| otlp::values(&self.sent))
    }

    /// Whether a key is one that is wanted; no value is made for that.
    fn has(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        match self.made.get() {
            Some(made) => made.iter().any(|(key, _)| wanted(key.as_bytes())),
            None => otlp::pairs(&self.sent).any(|(key, _)| wanted(key)),
        }
    }
}

/// An attribute that is looked at; of one that came it is read now what it is.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a, K = &'a str> {
    /// Its name.
    pub key: K,
    what: What<'a>,
}

#[derive(Clone, Copy, Debug)]
enum What<'a> {
    Made(&'a Value),
    Sent(Unread<'a>),
}

impl<'a> Entry<'a> {
    fn made((key, value): &'a (Key, Value)) -> Self {
        Self { key, what: What::Made(value) }
    }
}

impl<'a, K> Entry<'a, K> {
    /// What it is.
    #[must_use]
    pub fn value(&self) -> ValueRef<'a> {
        match self.what {
            What::Made(value) => value.into(),
            What::Sent(unread) => unread.read(),
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
        Self { sent: Some(Lazy::new(sent)), ..Self::default() }
    }

    /// Those that came, and those that did not.
    pub(crate) fn parts(&self) -> (Option<&Sent>, &[(Key, Value)]) {
        (self.sent.as_ref().map(|lazy| &lazy.sent), self.added())
    }

    fn added(&self) -> &[(Key, Value)] {
        self.added.as_ref().map_or(&[], |added| added)
    }

    fn added_mut(&mut self) -> &mut Vec<(Key, Value)> {
        Arc::make_mut(self.added.get_or_insert_default())
    }

    /// Puts a value in the place of one that came, or none; whether there was one.
    fn replace_sent(&mut self, key: &str, value: Option<&Value>) -> bool {
        let sent = self.sent.as_ref().filter(|lazy| lazy.has(|named| named == key.as_bytes()));
        let Some(lazy) = sent else { return false };
        self.sent = lazy.sent.with(key, value).map(Lazy::new);
        true
    }

    /// Sets `key`, replacing what it had.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        if !self.replace_sent(&key, Some(&value)) {
            set(self.added_mut(), key, value);
        }
    }

    /// Sets `key`, replacing what it had. Its name is copied only if it is not among them yet.
    pub fn set_named(&mut self, key: &str, value: Value) {
        if self.replace_sent(key, Some(&value)) {
            return;
        }
        let added = self.added_mut();
        match added.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => added.push((Key::Owned(key.to_owned()), value)),
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
        let among = sent.map_or(self.added(), |lazy| lazy.made());
        among.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Whether a key is one that is wanted; no value is made for that.
    pub fn has(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        self.added().iter().any(|(key, _)| wanted(key.as_bytes()))
            || self.sent.as_ref().is_some_and(|lazy| lazy.has(wanted))
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        if self.replace_sent(key, None) {
            return true;
        }
        let is_there = self.added().iter().any(|(k, _)| k == key);
        if is_there {
            self.added_mut().retain(|(k, _)| k != key);
        }
        is_there
    }

    /// Keeps those whose key is to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        if let Some(lazy) = self.sent.take() {
            self.sent = lazy.sent.those(&mut keep).map(Lazy::new);
        }
        if !self.added().is_empty() {
            self.added_mut().retain(|(key, _)| keep(key));
        }
    }

    /// All of them, in order; what came is kept as values from now on.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        let sent = self.sent.as_ref().map_or(&[][..], |lazy| lazy.made());
        sent.iter().chain(self.added()).map(|(key, value)| (key, value))
    }

    /// All of them, in order, for one look.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let made = self.sent.as_ref().and_then(|lazy| lazy.made.get());
        let sent = match &self.sent {
            Some(lazy) if made.is_none() => otlp::by_name(&lazy.sent),
            _ => Vec::new(),
        };
        let sent = sent.into_iter().map(|(key, unread)| Entry { key, what: What::Sent(unread) });
        let made = made.map_or(&[][..], Vec::as_slice).iter().chain(self.added());
        sent.chain(made.map(Entry::made))
    }

    /// Shows all of them as they stand there, which is the quickest look: of a key that stands twice the last one counts.
    pub fn each<'a>(&'a self, mut see: impl FnMut(Entry<'a, &'a [u8]>)) {
        let made = self.sent.as_ref().and_then(|lazy| lazy.made.get());
        if let (Some(lazy), None) = (&self.sent, made) {
            otlp::pairs(&lazy.sent)
                .for_each(|(key, unread)| see(Entry { key, what: What::Sent(unread) }));
        }
        for (key, value) in made.into_iter().flatten().chain(self.added()) {
            see(Entry { key: key.as_bytes(), what: What::Made(value) });
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().count()
    }

    /// How many bytes they have about, as OTLP writes them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let (sent, added) = self.parts();
        let added = added.iter().map(|(key, value)| key.len() + value.bytes() + 8);
        sent.map_or(0, Sent::bytes) + added.sum::<usize>()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent.is_none() && self.added().is_empty()
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
        Self { sent: None, added: Some(Arc::new(all)) }
    }
}

/// More attributes than this are looked up in a map while they are gathered.
const FEW: usize = 32;

impl<K: Into<Key>> FromIterator<(K, Value)> for Attributes {
    /// As if each were set in turn, in linear time.
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        gathered(pairs.size_hint().0, pairs.map(|(key, value)| (key.into(), value))).into()
    }
}

/// These, about so many, as if each were set in turn, in linear time.
pub(crate) fn gathered<K: Clone + Eq + Hash, V>(
    count: usize,
    pairs: impl Iterator<Item = (K, V)>,
) -> Vec<(K, V)> {
    let mut all = Vec::with_capacity(count);
    let mut places: HashMap<K, usize> = HashMap::new();
    for (key, value) in pairs {
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
fn set<K: Eq, V>(all: &mut Vec<(K, V)>, key: K, value: V) {
    match all.iter_mut().find(|(k, _)| *k == key) {
        Some((_, old)) => *old = value,
        None => all.push((key, value)),
    }
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
        let shared =
            |one: &Attributes, other: &Attributes| one.added().as_ptr() == other.added().as_ptr();
        assert!(!one.remove("c") && shared(&one, &kept), "nothing to remove, nothing to copy");
        let changes: [fn(&mut Attributes); 3] = [
            |one| one.set("a", 3_i64),
            |one| assert!(one.remove("b")),
            |one| one.retain(|key| key != "a"),
        ];
        for change in changes {
            let before = one.clone();
            change(&mut one);
            assert!(one != before && !shared(&one, &before));
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
