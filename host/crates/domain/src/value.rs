//! OpenTelemetry's attribute value, and the form in which it is stored.
//!
//! What JSON has is JSON's: `true`, `1`, `1.5`, `"a"`, `[..]`, `null`. What it lacks is an object of
//! one key: `{"bytes":"00ff"}`, `{"map":[["k",1]]}`, `{"double":"NaN"}`. So every value comes back
//! as it was, whole numbers and doubles told apart.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::span::Attributes;

/// OpenTelemetry's attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None was given.
    Empty,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several values, by convention all of one kind.
    List(Vec<Value>),
    /// Values with names.
    Map(Attributes),
}

impl Value {
    /// How many bytes it has about, as OTLP writes it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Bool(_) => 2,
            Self::Int(_) | Self::Double(_) => 9,
            Self::Text(text) => text.len() + 2,
            Self::Bytes(bytes) => bytes.len() + 2,
            Self::List(items) => items.iter().map(|item| item.bytes() + 2).sum::<usize>() + 2,
            Self::Map(entries) => entries.bytes() + 2,
        }
    }
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

/// A value that is looked at and not kept.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A double.
    Double(f64),
    /// Text, where it lies.
    Text(&'a str),
    /// Bytes, where they lie.
    Bytes(&'a [u8]),
    /// One of any other kind.
    Other(Cow<'a, Value>),
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Double(value) => Self::Double(*value),
            Value::Text(text) => Self::Text(text),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            other => Self::Other(Cow::Borrowed(other)),
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Bool(value) => Self::Bool(value),
            ValueRef::Int(value) => Self::Int(value),
            ValueRef::Double(value) => Self::Double(value),
            ValueRef::Text(text) => text.into(),
            ValueRef::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
            ValueRef::Other(other) => other.into_owned(),
        }
    }
}

const BYTES: &str = "bytes";
const MAP: &str = "map";
const DOUBLE: &str = "double";

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Double(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Double(value) => serializer.collect_map([(DOUBLE, value.to_string())]),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.collect_map([(BYTES, const_hex::encode(bytes))]),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serializer.collect_map([(MAP, entries)]),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Stored)
    }
}

struct Stored;

impl<'de> Visitor<'de> for Stored {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute's value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let key: Option<String> = map.next_key()?;
        let value = match key.as_deref() {
            Some(BYTES) => from_hex(&map.next_value::<String>()?).map(Value::Bytes),
            Some(MAP) => Some(Value::Map(map.next_value()?)),
            Some(DOUBLE) => map.next_value::<String>()?.parse().ok().map(Value::Double),
            _ => None,
        };
        value.ok_or_else(|| A::Error::custom("not the stored form of an attribute's value"))
    }
}

/// A value in the JSON that people read: names of a map are keys, bytes are base64, and a double
/// that JSON lacks is its name, as OpenTelemetry says for all that is not OTLP. It does not tell
/// any more what it was.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Double(value) if value.is_infinite() => {
                serializer.serialize_str(if *value > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Value::Double(value) if value.is_nan() => serializer.serialize_str("NaN"),
            Value::Bytes(bytes) => serializer.serialize_str(&base64(bytes)),
            Value::List(items) => serializer.collect_seq(items.iter().map(Plain)),
            Value::Map(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, Plain(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

/// Bytes in base64, with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Bytes from base64, of either alphabet, with its padding or without.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let of_urls = text.contains(['-', '_']);
    let digits = if of_urls { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(digits, LENIENT).decode(text).ok()
}

/// How serde reads and writes bytes that JSON holds as base64.
pub(crate) mod as_base64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::base64(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_base64(&text).ok_or_else(|| D::Error::custom("it is not base64"))
    }
}

/// Bytes in hexadecimal, in small letters.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const_hex::encode(bytes)
}

/// Bytes from hexadecimal: two digits for each, of either case, and nothing else.
#[must_use]
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    // The library would take `0x` before them, too.
    if digits.starts_with("0x") { None } else { const_hex::decode(digits).ok() }
}

/// As JSON of protobuf is read: padding may be there, and bits that stand for nothing may be anything.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Empty),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<f64>()
                .prop_filter("NaN is unlike itself", |x| !x.is_nan())
                .prop_map(Value::Double),
            ".{0,9}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::vec(("[a-d]", inner), 0..6)
                    .prop_map(|pairs| Value::Map(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(value in values()) {
            let stored = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&stored).unwrap(), value, "{}", stored);
        }
    }

    #[test]
    fn people_read_plain_json() {
        let map = [("a", Value::Bytes(b"any".to_vec())), ("b", Value::Bytes(b"an".to_vec()))];
        let map = Value::Map(map.into_iter().collect());
        let list = Value::List(vec![map, Value::Double(f64::NAN), Value::Empty, 1_i64.into()]);
        let json = serde_json::to_string(&Plain(&list)).unwrap();
        assert_eq!(json, r#"[{"a":"YW55","b":"YW4="},"NaN",null,1]"#);
    }

    #[test]
    fn base64_is_read_in_every_form() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("-_8=", Some(&[0xfb, 0xff])),
            ("+/8", Some(&[0xfb, 0xff])),
            ("YW55", Some(b"any")),
            ("YW5=", Some(b"an")),
            ("Y", None),
            ("a b", None),
            ("+_8=", None),
        ] {
            assert_eq!(from_base64(text).as_deref(), bytes, "{text}");
        }
    }

    #[test]
    fn nothing_else_is_a_value() {
        for wrong in [r#"{"a":1}"#, "{}", r#"{"bytes":"0g"}"#, r#"{"double":"x"}"#] {
            assert!(serde_json::from_str::<Value>(wrong).is_err(), "{wrong}");
        }
    }
}
