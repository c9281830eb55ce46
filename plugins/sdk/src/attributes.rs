//! Attributes as they come in: flat slots that point into an arena, made to look like a map.
//!
//! A key is looked up by name, or by its place in `PluginInfo::reads`: a [`Read`] costs one integer comparison per slot
//! and no string is touched, a name a walk over the declared keys, and a comparison for each span after that.
//! References that point outside the arena, or at text that is not UTF-8, read as absent: they are the host's fault and
//! no reason for a plugin to trap.

use std::cell::Cell;

use crate::bindings::lifecycle::{
    exports::tollgate::plugin::lifecycle::AttributeSelector,
    tollgate::plugin::types::{Slot, TextRef, ValueKind},
};
use crate::pattern::same;

/// From this index on, a key is one that only a prefix matched, and stands in the call's own list of names.
pub(crate) const FOUND_BY_PREFIX: u32 = 0x8000_0000;

/// The value of one attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number. Never money.
    Double(f64),
    /// Bytes that are not text.
    Bytes(&'a [u8]),
    /// A nested value, as JSON text.
    Json(&'a str),
    /// The value was longer than the host's limit and was left out.
    Elided {
        /// Its size in bytes.
        size: u64,
    },
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attribute<'a> {
    /// Its name.
    pub key: &'a str,
    /// Its value; a list is the same key several times.
    pub value: Value<'a>,
}

/// A key by its place in `PluginInfo::reads`, the first being 0; the fast way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read(pub u32);

/// A key by its place in the call at hand. The gateway names a key once for all spans of a batch, so each of them has it at
/// the same place, and what was decided of its name holds for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

/// What was decided of keys, by their places in one call. It takes its memory when it is made, which is best when the plugin
/// is configured: what is taken during a call and kept after it stands in the way of the memory of calls.
#[derive(Debug, Clone)]
pub struct ByKey<T> {
    declared: Box<[Option<T>]>,
    found: Box<[Option<T>]>,
}

impl<T: Copy> ByKey<T> {
    /// For so many keys that `describe` named, and so many that only a prefix matched; what is decided of others is decided
    /// again.
    pub fn with_room(declared: usize, found: usize) -> Self {
        Self { declared: vec![None; declared].into(), found: vec![None; found].into() }
    }

    /// For the next call.
    pub fn clear(&mut self) {
        self.declared.fill(None);
        self.found.fill(None);
    }

    /// What was decided of the key, or is decided now.
    #[inline]
    pub fn get_or_insert_with(&mut self, place: Place, decide: impl FnOnce() -> T) -> T {
        let (list, at) = match place.0.checked_sub(FOUND_BY_PREFIX) {
            Some(found) => (&mut self.found, found),
            None => (&mut self.declared, place.0),
        };
        match list.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(known) => *known.get_or_insert_with(decide),
            None => decide(),
        }
    }
}

/// What names an attribute to read: a [`Read`], or its name.
pub trait Key: Sized {
    /// The index of the key in this call; `None` if it was not declared or no item of the call has it.
    #[doc(hidden)]
    fn index(self, keys: Keys<'_>) -> Option<u32>;
}

impl Key for Read {
    #[inline]
    fn index(self, _: Keys<'_>) -> Option<u32> {
        Some(self.0)
    }
}

impl<T: AsRef<str> + ?Sized> Key for &T {
    fn index(self, keys: Keys<'_>) -> Option<u32> {
        keys.find(self.as_ref())
    }
}

/// The names behind the key indexes of one call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'a> {
    pub(crate) reads: &'a [AttributeSelector],
    /// Of the keys that only a prefix matched.
    pub(crate) found: &'a [Option<&'a str>],
    pub(crate) hints: Option<&'a Hints>,
}

/// At which index names were found before: a plugin asks for the same few, span after span. A name has its place by where
/// it lies, and what was found there counts only if it is the name that is asked for.
#[derive(Debug, Default)]
pub(crate) struct Hints([Cell<u32>; 8]);

impl Hints {
    pub(crate) fn of(&self, name: &str) -> Option<&Cell<u32>> {
        let [place, ..] = (name.as_ptr().addr() / 8).to_le_bytes();
        self.0.get(usize::from(place % 8))
    }
}

/// The names of a call's own keys, looked at once and not for each attribute that has one.
pub(crate) fn names<'a>(keys: &[TextRef], arena: &'a [u8]) -> Vec<Option<&'a str>> {
    keys.iter().map(|key| text_at(arena, *key)).collect()
}

impl<'a> Keys<'a> {
    fn find(self, name: &str) -> Option<u32> {
        let hint = self.hints.and_then(|hints| hints.of(name));
        if let Some(hint) = hint
            && self.name(hint.get()).is_some_and(|known| is(known, name))
        {
            return Some(hint.get());
        }
        let index = self.search(name)?;
        if let Some(hint) = hint {
            hint.set(index);
        }
        Some(index)
    }

    fn search(self, name: &str) -> Option<u32> {
        let declared = self
            .reads
            .iter()
            .position(|read| matches!(read, AttributeSelector::Key(key) if is(key, name)));
        if let Some(index) = declared {
            return u32::try_from(index).ok();
        }
        let found = self.found.iter().position(|key| key.is_some_and(|key| is(key, name)))?;
        u32::try_from(found).ok()?.checked_add(FOUND_BY_PREFIX)
    }

    fn name(self, index: u32) -> Option<&'a str> {
        match index.checked_sub(FOUND_BY_PREFIX) {
            Some(found) => *self.found.get(usize::try_from(found).ok()?)?,
            None => match self.reads.get(usize::try_from(index).ok()?)? {
                AttributeSelector::Key(key) => Some(key),
                AttributeSelector::Prefix(_) => None,
            },
        }
    }
}

/// The attributes of one item that the plugin asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    pub(crate) slots: &'a [Slot],
    pub(crate) arena: &'a [u8],
    pub(crate) keys: Keys<'a>,
}

impl<'a> Attributes<'a> {
    /// The value of a key; the first, if it is a list.
    pub fn get(self, key: impl Key) -> Option<Value<'a>> {
        let index = key.index(self.keys)?;
        self.slots.iter().find(|slot| slot.key == index).and_then(|slot| value(slot, self.arena))
    }

    /// The value of a key that has one alone. The elements of a list stand side by side.
    fn single(self, key: impl Key) -> Option<Value<'a>> {
        let index = key.index(self.keys)?;
        let at = self.slots.iter().position(|slot| slot.key == index)?;
        match self.slots.get(at..)? {
            [_, next, ..] if next.key == index => None,
            [slot, ..] => value(slot, self.arena),
            [] => None,
        }
    }

    /// Every value of a key: one, or the elements of a list.
    pub fn all(self, key: impl Key) -> impl Iterator<Item = Value<'a>> {
        let index = key.index(self.keys);
        self.slots
            .iter()
            .filter(move |slot| Some(slot.key) == index)
            .filter_map(move |slot| value(slot, self.arena))
    }

    /// Everything there is, in the host's order.
    pub fn iter(self) -> impl Iterator<Item = Attribute<'a>> {
        self.slots.iter().filter_map(move |slot| {
            Some(Attribute { key: self.keys.name(slot.key)?, value: value(slot, self.arena)? })
        })
    }

    /// The key of everything there is, in the host's order; once for a list.
    pub fn keys(self) -> impl Iterator<Item = &'a str> {
        self.places().filter_map(move |place| self.name(place))
    }

    /// The place of everything there is, in the host's order; once for a list.
    pub fn places(self) -> impl Iterator<Item = Place> {
        let mut previous = None;
        let firsts =
            self.slots.iter().filter(move |slot| previous.replace(slot.key) != Some(slot.key));
        firsts.map(|slot| Place(slot.key))
    }

    /// The key that has this place.
    pub fn name(self, place: Place) -> Option<&'a str> {
        self.keys.name(place.0)
    }

    /// The value, if it is text, and no list.
    pub fn text(self, key: impl Key) -> Option<&'a str> {
        match self.single(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value, if it is a whole number, and no list.
    pub fn int(self, key: impl Key) -> Option<i64> {
        match self.single(key)? {
            Value::Int(number) => Some(number),
            _ => None,
        }
    }

    /// The value, if it is true or false, and no list.
    pub fn bool(self, key: impl Key) -> Option<bool> {
        match self.single(key)? {
            Value::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The value, if it is a floating-point number, and no list.
    pub fn double(self, key: impl Key) -> Option<f64> {
        match self.single(key)? {
            Value::Double(number) => Some(number),
            _ => None,
        }
    }
}

#[inline]
fn is(a: &str, b: &str) -> bool {
    same(a.as_bytes(), b.as_bytes())
}

pub(crate) fn text_at(arena: &[u8], at: TextRef) -> Option<&str> {
    std::str::from_utf8(bytes_at(arena, at)?).ok()
}

pub(crate) fn bytes_at(arena: &[u8], at: TextRef) -> Option<&[u8]> {
    let start = usize::try_from(at.offset).ok()?;
    arena.get(start..start.checked_add(usize::try_from(at.length).ok()?)?)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the bits are meant")]
fn value<'a>(slot: &Slot, arena: &'a [u8]) -> Option<Value<'a>> {
    let at = TextRef { offset: (slot.bits >> 32) as u32, length: slot.bits as u32 };
    Some(match slot.kind {
        ValueKind::Text => Value::Text(text_at(arena, at)?),
        ValueKind::Boolean => Value::Bool(slot.bits != 0),
        ValueKind::Int => Value::Int(slot.bits.cast_signed()),
        ValueKind::Double => Value::Double(f64::from_bits(slot.bits)),
        ValueKind::Bytes => Value::Bytes(bytes_at(arena, at)?),
        ValueKind::Json => Value::Json(text_at(arena, at)?),
        ValueKind::Elided => Value::Elided { size: slot.bits },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: u32, kind: ValueKind, bits: u64) -> Slot {
        Slot { key, kind, bits }
    }

    #[test]
    fn keys_by_index_by_name_and_by_prefix() {
        let reads =
            [AttributeSelector::Prefix("app.".into()), AttributeSelector::Key("model".into())];
        let found = names(&[TextRef { offset: 0, length: 8 }], b"app.team");
        let keys = Keys { reads: &reads, found: &found, hints: Some(&Hints::default()) };
        let team = slot(FOUND_BY_PREFIX, ValueKind::Int, 7);
        let slots = [slot(1, ValueKind::Text, 3), team, team];
        let attributes = Attributes { slots: &slots, arena: b"gpt", keys };
        assert_eq!(attributes.text(Read(1)), Some("gpt"));
        assert_eq!(attributes.text("model"), Some("gpt"));
        assert_eq!(attributes.get("app.team"), Some(Value::Int(7)));
        assert_eq!(
            attributes.int("app.team"),
            None,
            "a list is no number, and neither is its first"
        );
        assert_eq!(attributes.all("app.team").count(), 2);
        assert_eq!(attributes.text("app.team"), None);
        assert_eq!(attributes.get("app.other"), None);
        let keys: Vec<_> = attributes.iter().map(|a| a.key).collect();
        assert_eq!(keys, ["model", "app.team", "app.team"]);
        assert_eq!(attributes.keys().collect::<Vec<_>>(), ["model", "app.team"]);
    }

    #[test]
    fn what_was_decided_of_a_key_is_decided_once() {
        let mut known = ByKey::with_room(4, 4);
        let places = [0, 3, FOUND_BY_PREFIX, FOUND_BY_PREFIX + 3].map(Place);
        for round in 0..2 {
            for (number, place) in places.into_iter().enumerate() {
                let decide = || if round == 0 { number } else { unreachable!("it was decided") };
                assert_eq!(known.get_or_insert_with(place, decide), number);
            }
        }
        for far in [4, FOUND_BY_PREFIX - 1, u32::MAX].map(Place) {
            assert_eq!(known.get_or_insert_with(far, || 7), 7);
            assert_eq!(known.get_or_insert_with(far, || 8), 8, "there is no room for it");
        }
        known.clear();
        assert_eq!(known.get_or_insert_with(Place(3), || 9), 9);
    }

    #[test]
    fn names_that_share_a_hint_are_found_each() {
        let all: Vec<String> = (0..40).map(|n| format!("app.{n}")).collect();
        let reads: Vec<_> =
            all.iter().take(20).map(|name| AttributeSelector::Key(name.clone())).collect();
        let found: Vec<_> = all.iter().skip(20).map(|name| Some(name.as_str())).collect();
        let hints = Hints::default();
        let keys = Keys { reads: &reads, found: &found, hints: Some(&hints) };
        // The same memory holds one name after another, too.
        let mut reused = String::new();
        for name in all.iter().chain(all.iter().rev()) {
            reused.replace_range(.., name);
            for name in [name.as_str(), &reused] {
                assert_eq!(keys.find(name).and_then(|index| keys.name(index)), Some(name));
                assert_eq!(keys.find(name), keys.search(name));
            }
        }
        assert_eq!(keys.find("app.40"), None);
    }

    #[test]
    fn broken_references_read_as_absent() {
        let reads = [AttributeSelector::Key("a".into())];
        let found = names(&[TextRef { offset: 0, length: 2 }], b"\xff\xff");
        let keys = Keys { reads: &reads, found: &found, hints: Some(&Hints::default()) };
        for bits in [u64::MAX, 1 << 32 | 2, 0x0000_0001_ffff_ffff, 2] {
            let slots = [
                slot(0, ValueKind::Text, bits),
                slot(9, ValueKind::Int, 0),
                slot(u32::MAX, ValueKind::Int, 0),
                slot(FOUND_BY_PREFIX, ValueKind::Int, 0),
            ];
            let attributes = Attributes { slots: &slots, arena: b"\xff\xff", keys };
            assert_eq!(attributes.get("a"), None, "{bits:x}");
            assert_eq!(attributes.iter().count(), 0);
        }
    }
}
