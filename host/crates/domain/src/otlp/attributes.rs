//! Attributes and their values: checked as they come in, made when somebody looks at them.

use bytes::BufMut;
use prost::encoding::{self, bytes as octets, double, int64, string};

use super::wire::{Content, Fields, head, nested, text};
use super::{Counts, DEPTH, Malformed, Most};
use crate::span::{Attributes, Key, Value};

/// How deep attributes lie: those of an event, within its span, scope, resource and request.
const LEAST_DEPTH: usize = 5;

/// Attributes as they were sent: fields of one number, one behind another, each a `KeyValue` that
/// has been checked.
#[derive(Debug)]
pub(crate) struct Sent {
    field: u32,
    bytes: Box<[u8]>,
}

impl Sent {
    /// The fields, if that is their number.
    pub(super) fn as_field(&self, field: u32) -> Option<&[u8]> {
        (self.field == field).then_some(&*self.bytes)
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        entries(&self.bytes, self.field)
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
        check_entry(entry.bytes()?, LEAST_DEPTH, counts, most)?;
        self.first.get_or_insert(begins);
        self.end = end;
        self.total += end - begins;
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
        Attributes::sent(Sent { field, bytes })
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
    if depth > DEPTH {
        return Err(Malformed::Unreadable("values lie too deep within each other"));
    }
    counts.value(most)?;
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

/// Their names as they stand there, without anything being made of them.
pub(crate) fn keys(sent: &Sent) -> impl Iterator<Item = &[u8]> {
    // Of a field that stands there twice the last one counts.
    sent.entries().map(|entry| entries(entry, 1).last().unwrap_or_default())
}

/// What they are. Of a key that stands twice the last value counts.
pub(crate) fn values(sent: &Sent) -> Vec<(Key, Value)> {
    crate::span::gathered(sent.entries().map(entry))
}

fn entry(entry: &[u8]) -> (Key, Value) {
    let (mut key, mut value) = ("", Value::Empty);
    for field in Fields(entry) {
        match field {
            Ok((1, name)) => key = name.text().unwrap_or_default(),
            Ok((2, Content::Bytes(content))) => merge(&mut value, content),
            _ => {}
        }
    }
    (key.to_owned().into(), value)
}

/// Reads a value into one, as protobuf merges: the last kind counts, and lists go on.
fn merge(value: &mut Value, content: &[u8]) {
    for field in Fields(content) {
        match field {
            Ok((1, text)) => *value = text.text().unwrap_or_default().into(),
            Ok((2, Content::Varint(number))) => *value = Value::Bool(number != 0),
            Ok((3, Content::Varint(number))) => *value = Value::Int(number.cast_signed()),
            Ok((4, Content::Fixed64(bits))) => *value = Value::Double(f64::from_bits(bits)),
            Ok((5, Content::Bytes(list))) => {
                let items = entries(list, 1).map(|item| {
                    let mut value = Value::Empty;
                    merge(&mut value, item);
                    value
                });
                match value {
                    Value::List(so_far) => so_far.extend(items),
                    _ => *value = Value::List(items.collect()),
                }
            }
            Ok((6, Content::Bytes(map))) => {
                let added = entries(map, 1).map(entry);
                match value {
                    Value::Map(so_far) => added.for_each(|(key, value)| so_far.set(key, value)),
                    _ => *value = Value::Map(added.collect()),
                }
            }
            Ok((7, Content::Bytes(bytes))) => *value = Value::Bytes(bytes.to_owned()),
            // An index into a table that traces do not have.
            Ok((8, _)) => *value = Value::Empty,
            _ => {}
        }
    }
}

/// Attributes as fields of that number: those that nobody has changed as they came.
pub(super) fn write(field: u32, attributes: &Attributes, to: &mut Vec<u8>) {
    let entry = |to: &mut Vec<u8>, key: &Key, value: &Value| {
        nested(field, to, |to| {
            text(1, key, to);
            nested(2, to, |to| write_value(value, to));
        });
    };
    let (sent, added) = attributes.parts();
    match sent.map(|sent| sent.as_field(field)) {
        Some(None) => attributes.iter().for_each(|(key, value)| entry(to, key, value)),
        sent => {
            to.put_slice(sent.flatten().unwrap_or_default());
            added.iter().for_each(|(key, value)| entry(to, key, value));
        }
    }
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
