//! Attributes and their values: checked as they come in, read where they lie, made when somebody keeps one.

use std::borrow::Cow;

use bytes::BufMut;
use prost::encoding::{self, WireType, bytes as octets, double, int64, string};

use super::wire::{Content, Fields, head, nested, text};
use super::{Counts, Malformed, Most, check_depth};
use crate::span::{Attributes, Key, Value, gathered};
use crate::value::ValueRef;

/// How deep attributes lie: those of an event, within its span, scope, resource and request.
const LEAST_DEPTH: usize = 5;

/// Attributes as they were sent: fields of one number, one behind another, each a `KeyValue` that
/// has been checked.
#[derive(Debug)]
pub(crate) struct Sent {
    field: u32,
    /// How many, those of one name counted each: room for what is made of them.
    count: usize,
    /// Whether each name stands there once, as far as one look has told; nearly always.
    once: bool,
    bytes: Box<[u8]>,
}

impl Sent {
    /// The fields, if that is their number.
    pub(super) fn as_field(&self, field: u32) -> Option<&[u8]> {
        (self.field == field).then_some(&*self.bytes)
    }

    /// How many bytes they are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        entries(&self.bytes, self.field)
    }

    /// These, with another value in the place of one or without that one; none if none are left.
    pub(crate) fn with(&self, key: &str, mut value: Option<&Value>) -> Option<Self> {
        self.rewritten(|named, whole, to| {
            if named != key.as_bytes() {
                to.put_slice(whole);
            } else if let Some(value) = value.take() {
                write_entry(self.field, key, value, to);
            }
        })
    }

    /// Those of them whose name is to be kept; none if none are left.
    pub(crate) fn those(&self, mut keep: impl FnMut(&str) -> bool) -> Option<Self> {
        self.rewritten(|key, whole, to| {
            if str::from_utf8(key).is_ok_and(&mut keep) {
                to.put_slice(whole);
            }
        })
    }

    /// What is written for each of them, of which the name and the whole field are given.
    fn rewritten(&self, mut write: impl FnMut(&[u8], &[u8], &mut Vec<u8>)) -> Option<Self> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let (mut count, mut fields) = (0, Fields(&self.bytes));
        loop {
            let (from, before) = (fields.0, bytes.len());
            let Some(Ok((_, Content::Bytes(entry)))) = fields.next() else { break };
            let whole = from.get(..from.len() - fields.0.len()).unwrap_or_default();
            write(pair(entry).0, whole, &mut bytes);
            count += usize::from(bytes.len() > before);
        }
        let (field, once) = (self.field, self.once);
        (count > 0).then(|| Self { field, count, once, bytes: bytes.into_boxed_slice() })
    }
}

/// The messages in the fields of that number.
fn entries(message: &[u8], field: u32) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter_map(move |found| match found {
        Ok((number, Content::Bytes(entry))) if number == field => Some(entry),
        _ => None,
    })
}

/// Where in a message its attributes are, while it is read.
#[derive(Default)]
pub(super) struct Gathered {
    first: Option<usize>,
    end: usize,
    total: usize,
    count: usize,
    names: Names,
}

/// Names that have been met, as bits, of which few names share one.
struct Names {
    met: [u64; 32],
    /// Whether none shares one.
    once: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self { met: [0; 32], once: true }
    }
}

impl Names {
    /// Notes one. Names of one span differ in their ends, or in how long they are.
    fn meet(&mut self, name: &[u8]) {
        let end = match name.last_chunk::<8>() {
            Some(end) => u64::from_le_bytes(*end),
            None => name.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
        };
        let mixed = (end ^ (name.len() as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (word, bit) = (mixed >> 59, 1 << (mixed >> 53 & 63));
        if let Some(word) = self.met.get_mut(word as usize) {
            self.once &= *word & bit == 0;
            *word |= bit;
        }
    }
}

impl Gathered {
    /// Checks one that stands there, from `begins` to `end` with the number of its field.
    pub(super) fn check(
        &mut self,
        (begins, end): (usize, usize),
        entry: Content<'_>,
        counts: &mut Counts,
        most: &Most,
    ) -> Result<(), Malformed> {
        let entry = entry.bytes()?;
        check_entry(entry, LEAST_DEPTH, counts, most)?;
        self.names.meet(pair(entry).0);
        self.first.get_or_insert(begins);
        self.end = end;
        self.total += end - begins;
        self.count += 1;
        Ok(())
    }

    /// All that were checked, which are the fields of that number in `message`.
    pub(super) fn take(self, field: u32, message: &[u8]) -> Attributes {
        let Some(first) = self.first else { return Attributes::new() };
        let bytes = match message.get(first..self.end) {
            Some(together) if together.len() == self.total => together.into(),
            // Others stand between them.
            _ => {
                let mut together = Vec::with_capacity(self.total);
                for entry in entries(message, field) {
                    head(field, entry.len(), &mut together);
                    together.put_slice(entry);
                }
                together.into_boxed_slice()
            }
        };
        Attributes::sent(Sent { field, count: self.count, once: self.names.once, bytes })
    }
}

/// Whether texts are known to be UTF-8: where all around them is ASCII, which one look at it tells.
#[derive(Clone, Copy)]
struct Text {
    is_known: bool,
}

impl Text {
    fn check(self, content: Content<'_>) -> Result<(), Malformed> {
        if self.is_known { content.bytes().map(drop) } else { content.text().map(drop) }
    }
}

/// Whether it can be read, and what is in it.
fn check_entry(
    entry: &[u8],
    depth: usize,
    counts: &mut Counts,
    most: &Most,
) -> Result<(), Malformed> {
    counts.value(most)?;
    let text = Text { is_known: entry.is_ascii() };
    if let (_, Unread::Value(value)) = pair(entry)
        && text.is_known
    {
        return check_value(value, text, depth + 1, counts, most);
    }
    for field in Fields(entry) {
        match field? {
            (1, key) => text.check(key)?,
            (2, value) => check_value(value.bytes()?, text, depth + 1, counts, most)?,
            (3, place) => drop(place.varint()?),
            _ => {}
        }
    }
    Ok(())
}

fn check_value(
    value: &[u8],
    text: Text,
    depth: usize,
    counts: &mut Counts,
    most: &Most,
) -> Result<(), Malformed> {
    check_depth(depth)?;
    counts.value(most)?;
    // Most are a short text, or a small number.
    match value {
        [TEXT, length, rest @ ..]
            if text.is_known && usize::from(*length) == rest.len() && *length < 0x80 =>
        {
            return Ok(());
        }
        [INT, 0..0x80] => return Ok(()),
        _ => {}
    }
    for field in Fields(value) {
        match field? {
            (1, content) => text.check(content)?,
            (2 | 3 | 8, number) => drop(number.varint()?),
            (4, number) => drop(number.fixed64()?),
            (5, list) => {
                for item in Fields(list.bytes()?) {
                    if let (1, item) = item? {
                        check_value(item.bytes()?, text, depth + 2, counts, most)?;
                    }
                }
            }
            (6, map) => {
                for entry in Fields(map.bytes()?) {
                    if let (1, entry) = entry? {
                        check_entry(entry.bytes()?, depth + 2, counts, most)?;
                    }
                }
            }
            (7, bytes) => drop(bytes.bytes()?),
            _ => {}
        }
    }
    Ok(())
}

/// Keys of the fields of a value that is a text or a whole number.
const TEXT: u8 = 1 << 3 | WireType::LengthDelimited as u8;
const INT: u8 = 3 << 3 | WireType::Varint as u8;

/// What an attribute is, where it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unread<'a> {
    /// There.
    Value(&'a [u8]),
    /// Somewhere in its entry.
    Entry(&'a [u8]),
}

/// The name of one, and what it is. Of a name that stands there twice the last one counts.
#[inline]
fn pair(entry: &[u8]) -> (&[u8], Unread<'_>) {
    let mut fields = Fields(entry);
    match (fields.short(), fields.short(), fields.0) {
        (Some((1, key)), Some((2, value)), []) => (key, Unread::Value(value)),
        _ => (entries(entry, 1).last().unwrap_or_default(), Unread::Entry(entry)),
    }
}

fn named(entry: &[u8]) -> (&str, Unread<'_>) {
    let (key, value) = pair(entry);
    (str::from_utf8(key).unwrap_or_default(), value)
}

/// Each as it stands there, without anything being made of them.
#[inline]
pub(crate) fn pairs(sent: &Sent) -> impl Iterator<Item = (&[u8], Unread<'_>)> {
    sent.entries().map(pair)
}

/// Each by its name. Of a name that stands twice the last one counts.
pub(crate) fn by_name(sent: &Sent) -> Vec<(&str, Unread<'_>)> {
    let pairs = sent.entries().map(named);
    if sent.once { pairs.collect() } else { gathered(sent.count, pairs) }
}

/// What they are.
pub(crate) fn values(sent: &Sent) -> Vec<(Key, Value)> {
    by_name(sent).into_iter().map(|(key, value)| (key.to_owned().into(), value.made())).collect()
}

impl<'a> Unread<'a> {
    /// What it is, for a look.
    pub(crate) fn read(self) -> ValueRef<'a> {
        let plain = match self {
            Self::Value(content) => plain(None, content),
            Self::Entry(entry) => entries(entry, 2).fold(None, plain),
        };
        plain.unwrap_or_else(|| ValueRef::Other(Cow::Owned(self.made())))
    }

    fn made(self) -> Value {
        let mut value = Value::Empty;
        match self {
            Self::Value(content) => merge(&mut value, content),
            Self::Entry(entry) => {
                entries(entry, 2).for_each(|content| merge(&mut value, content));
            }
        }
        value
    }
}

/// A field of a value that is the whole of it, whatever stands before.
fn scalar<'a>(field: u32, content: Content<'a>) -> Option<ValueRef<'a>> {
    match (field, content) {
        (1, text) => Some(ValueRef::Text(text.text().unwrap_or_default())),
        (2, Content::Varint(number)) => Some(ValueRef::Bool(number != 0)),
        (3, Content::Varint(number)) => Some(ValueRef::Int(number.cast_signed())),
        (4, Content::Fixed64(bits)) => Some(ValueRef::Double(f64::from_bits(bits))),
        (7, Content::Bytes(bytes)) => Some(ValueRef::Bytes(bytes)),
        _ => None,
    }
}

/// A value of which nothing is to be made, where it is one: the last kind counts, after what was read `before`.
fn plain<'a>(before: Option<ValueRef<'a>>, content: &'a [u8]) -> Option<ValueRef<'a>> {
    let mut last = before;
    for (field, content) in Fields(content).flatten() {
        match (scalar(field, content), field, content) {
            (Some(one), ..) => last = Some(one),
            (None, 5 | 6, Content::Bytes(_)) | (None, 8, _) => last = None,
            _ => {}
        }
    }
    last
}

/// Reads a value into one, as protobuf merges: the last kind counts, and lists go on.
fn merge(value: &mut Value, content: &[u8]) {
    for (field, content) in Fields(content).flatten() {
        match (scalar(field, content), field, content) {
            (Some(one), ..) => *value = one.into(),
            (None, 5, Content::Bytes(list)) => {
                let items = entries(list, 1).map(|item| Unread::Value(item).made());
                match value {
                    Value::List(so_far) => so_far.extend(items),
                    _ => *value = Value::List(items.collect()),
                }
            }
            (None, 6, Content::Bytes(map)) => {
                let added =
                    entries(map, 1).map(named).map(|(key, value)| (key.to_owned(), value.made()));
                match value {
                    Value::Map(so_far) => added.for_each(|(key, value)| so_far.set(key, value)),
                    _ => *value = Value::Map(added.collect()),
                }
            }
            // An index into a table that traces do not have.
            (None, 8, _) => *value = Value::Empty,
            _ => {}
        }
    }
}

/// Attributes as fields of that number: those that nobody has changed as they came.
pub(super) fn write(field: u32, attributes: &Attributes, to: &mut Vec<u8>) {
    let (sent, added) = attributes.parts();
    match sent.map(|sent| sent.as_field(field)) {
        Some(None) => attributes.iter().for_each(|(key, value)| write_entry(field, key, value, to)),
        sent => {
            to.put_slice(sent.flatten().unwrap_or_default());
            added.iter().for_each(|(key, value)| write_entry(field, key, value, to));
        }
    }
}

fn write_entry(field: u32, key: &str, value: &Value, to: &mut Vec<u8>) {
    nested(field, to, |to| {
        text(1, key, to);
        nested(2, to, |to| write_value(value, to));
    });
}

/// Which of its kinds a value is of is told even where it is nothing of that kind.
fn write_value(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Empty => {}
        Value::Text(value) => string::encode(1, value, to),
        Value::Bool(value) => encoding::bool::encode(2, value, to),
        Value::Int(value) => int64::encode(3, value, to),
        Value::Double(value) => double::encode(4, value, to),
        Value::List(items) => nested(5, to, |to| {
            items.iter().for_each(|item| nested(1, to, |to| write_value(item, to)));
        }),
        Value::Map(entries) => nested(6, to, |to| write(1, entries, to)),
        Value::Bytes(value) => octets::encode(7, value, to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"\x0a\x01k";
    const INT: &[u8] = b"\x12\x02\x18\x07";
    const TEXT: &[u8] = b"\x12\x03\x0a\x01x";
    const LIST: &[u8] = b"\x12\x02\x2a\x00";
    const INDEX: &[u8] = b"\x12\x02\x40\x01";

    #[test]
    fn of_a_name_that_stands_twice_the_last_one_counts() {
        let (mut entries, mut gathered) = (Vec::new(), Gathered::default());
        for (key, value) in [("a", 1_i64), ("b", 2), ("a", 3)] {
            let begins = entries.len();
            write_entry(9, key, &Value::Int(value), &mut entries);
            let content = Content::Bytes(&entries[begins + 2..]);
            let place = (begins, entries.len());
            gathered.check(place, content, &mut Counts::default(), &Most::ANY).unwrap();
        }
        let attributes = gathered.take(9, &entries);
        let seen: Vec<_> = attributes.entries().map(|entry| (entry.key, entry.value())).collect();
        assert_eq!(seen, [("a", ValueRef::Int(3)), ("b", ValueRef::Int(2))]);
        let mut stand = Vec::new();
        attributes.each(|entry| stand.push((entry.key, entry.value())));
        assert_eq!(stand.len(), 3);
        assert_eq!(attributes.get("a"), Some(&Value::Int(3)));
    }

    #[test]
    fn a_look_sees_what_is_kept_however_oddly_it_is_written() {
        let other = |value| ValueRef::Other(Cow::Owned(value));
        for (parts, expected) in [
            ([KEY, INT, b""], ValueRef::Int(7)),
            ([INT, KEY, b""], ValueRef::Int(7)),
            ([INT, b"", b""], ValueRef::Int(7)),
            ([TEXT, KEY, INT], ValueRef::Int(7)),
            ([KEY, b"\x12\x05\x18\x07\x0a\x01x", b""], ValueRef::Text("x")),
            ([KEY, LIST, INT], ValueRef::Int(7)),
            ([KEY, INT, LIST], other(Value::List(Vec::new()))),
            ([KEY, INT, INDEX], other(Value::Empty)),
            ([KEY, b"", b""], other(Value::Empty)),
        ] {
            let (entry, mut bytes) = (parts.concat(), Vec::new());
            head(9, entry.len(), &mut bytes);
            bytes.put_slice(&entry);
            let sent = Sent { field: 9, count: 1, once: true, bytes: bytes.into() };
            let sent = Attributes::sent(sent);
            let look = || sent.entries().map(|entry| entry.value()).collect::<Vec<_>>();
            assert_eq!(look().first(), Some(&expected), "{entry:?}");
            assert_eq!(sent.iter().count(), 1, "values are made");
            assert_eq!(look().first(), Some(&expected), "{entry:?}");
        }
    }
}
