//! Changes to JSON text that leave the rest of it as it is: no number is written anew, no key changes its place.
//!
//! A borrowed [`RawValue`] is a slice of the text it was read from, which says where it lies.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object: key and value, in the order of the text.
pub(crate) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// All values under that key; there should be one.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| *value)
    }

    /// The value under that key: the last, as most parsers have it.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.all(key).last()
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// Most elements of an array that are looked at. Nobody means more, and what is behind them costs no more than its bytes.
const ELEMENTS: usize = 65_536;

/// Reads the elements of an array one after another, and keeps none: a list of empty objects takes many times its own size
/// once it is read. How many there are.
///
/// # Errors
/// What is no array, or has an element of another shape; those before it have been taken.
pub(crate) fn each<'a, T: Deserialize<'a>>(
    array: &'a RawValue,
    take: impl FnMut(T),
) -> Result<usize, serde_json::Error> {
    struct Each<T, F>(F, PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while count < ELEMENTS
                && let Some(element) = seq.next_element()?
            {
                (self.0)(element);
                count += 1;
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok(count)
        }
    }
    serde_json::Deserializer::from_str(array.get()).deserialize_seq(Each(take, PhantomData))
}

/// Where `value`, which was read from `text`, lies in it.
pub(crate) fn place(text: &[u8], value: &RawValue) -> Option<Range<usize>> {
    let start = (value.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let range = start..start.checked_add(value.get().len())?;
    (range.end <= text.len()).then_some(range)
}

/// Where the member lies whose value is at `value` and whose key is `key`, with the comma that goes with it. None if the
/// key is written with escapes.
pub(crate) fn member(text: &[u8], key: &str, value: Range<usize>) -> Option<Range<usize>> {
    let before = text.get(..value.start)?.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let before = before.strip_suffix(b"\"")?.strip_suffix(key.as_bytes())?.strip_suffix(b"\"")?;
    let head = before.trim_ascii_end();
    if let Some(head) = head.strip_suffix(b",") {
        return Some(head.len()..value.end);
    }
    let tail = text.get(value.end..)?;
    let after = tail.trim_ascii_start();
    let end = match after.strip_prefix(b",") {
        Some(after) => text.len() - after.trim_ascii_start().len(),
        None => value.end,
    };
    Some(before.len()..end)
}

/// `text` with some ranges replaced. They must not overlap and come in order.
pub(crate) fn splice(text: &[u8], changes: &[(Range<usize>, Cow<'_, str>)]) -> Vec<u8> {
    let added: usize = changes.iter().map(|(_, new)| new.len()).sum();
    let mut out = Vec::with_capacity(text.len() + added);
    let mut at = 0;
    for (range, new) in changes {
        out.extend_from_slice(text.get(at..range.start).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A field of type `Option<&RawValue>` that tells `null` from absent.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// The text of a JSON string; none for anything else.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// Whether it is `null`.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_cut_with_its_comma() {
        let cases = [
            (r#"{"a":1,"usage":null}"#, r#"{"a":1}"#),
            (r#"{"a":1 , "usage" : null , "b":2}"#, r#"{"a":1  , "b":2}"#),
            (r#"{"usage":{"x":[1,2]}, "b":2}"#, r#"{"b":2}"#),
            (r#"{ "usage":null }"#, r#"{  }"#),
        ];
        for (text, expected) in cases {
            let members: Members = serde_json::from_str(text).unwrap();
            let value = place(text.as_bytes(), members.get("usage").unwrap()).unwrap();
            let range = member(text.as_bytes(), "usage", value).unwrap();
            let cut = splice(text.as_bytes(), &[(range, "".into())]);
            assert_eq!(String::from_utf8(cut).unwrap(), expected);
        }
        let text = r#"{"\u0075sage":1}"#;
        let members: Members = serde_json::from_str(text).unwrap();
        let value = place(text.as_bytes(), members.get("usage").unwrap()).unwrap();
        assert_eq!(member(text.as_bytes(), "usage", value), None);
    }

    #[test]
    fn elements_come_one_after_another() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let mut seen = Vec::new();
        assert_eq!(each(&raw("[1, 2,3]"), |n: u8| seen.push(n)).unwrap(), 3);
        assert_eq!(seen, [1, 2, 3]);
        assert!(each(&raw("[4, {}]"), |n: u8| seen.push(n)).is_err() && seen == [1, 2, 3, 4]);
        assert!(each(&raw("{}"), |_: u8| ()).is_err());
        let many = format!("[{}1]", "1,".repeat(ELEMENTS + 1));
        let mut taken = 0;
        assert_eq!(each(&raw(&many), |_: u8| taken += 1).unwrap(), ELEMENTS + 2);
        assert_eq!(taken, ELEMENTS);
    }

    #[test]
    fn strings_are_read_as_json_has_them() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(string(&raw(r#""a\n\u00e9""#)).unwrap(), "a\né");
        assert_eq!(string(&raw(r#""plain""#)).unwrap(), "plain");
        assert_eq!(string(&raw("[1]")), None);
    }
}
