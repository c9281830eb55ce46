//! From JSON to protobuf.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tollgate_domain::value::{from_base64, from_hex};

use super::schema::{Field, Kind, Message, What};

/// Longest id in bytes: a trace's.
const ID: usize = 16;

/// Whole numbers that a double holds exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The message that `json` holds, in protobuf; or what is wrong with it, and where.
pub(crate) fn read(json: &[u8], message: &'static Message) -> Result<Vec<u8>, String> {
    let (mut bytes, place) = (Vec::with_capacity(json.len() / 2), Place::default());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let seed = Within { message, place: &place, to: &mut bytes };
    let read = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| place.named(&error))?;
    Ok(bytes)
}

/// Where the reader is. After an error it stays where that was found.
#[derive(Default)]
struct Place(RefCell<Vec<Step>>);

#[derive(Clone, Copy)]
enum Step {
    Key(&'static str),
    Item(usize),
}

impl Place {
    fn at<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.0.borrow_mut().push(step);
        let found = read()?;
        self.0.borrow_mut().pop();
        Ok(found)
    }

    fn named(&self, error: &serde_json::Error) -> String {
        let mut text = String::new();
        for step in self.0.borrow().iter() {
            let _ = match step {
                Step::Key(key) if text.is_empty() => write!(text, "{key}"),
                Step::Key(key) => write!(text, ".{key}"),
                Step::Item(item) => write!(text, "[{item}]"),
            };
        }
        let separator = if text.is_empty() { "" } else { ": " };
        format!("{text}{separator}{error}")
    }
}

/// An object that holds a message; only an object does. Its fields are written, without a head.
struct Within<'a> {
    message: &'static Message,
    place: &'a Place,
    to: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Within<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Within<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { message, place, to } = self;
        let (mut seen, mut chosen) = (0_u64, None);
        while let Some(key) = map.next_key_seed(Key(message))? {
            let Some((index, field)) = key else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            place.at(Step::Key(field.name), || {
                if seen & 1 << index != 0 {
                    return Err(A::Error::custom("it stands there twice"));
                }
                seen |= 1 << index;
                let is_told = map.next_value_seed(InField { field, place, to: &mut *to })?;
                if is_told
                    && matches!(field.what, What::OneOf(_))
                    && let Some(other) = chosen.replace(field.name)
                {
                    let problem = format!("it stands there beside {other}, and only one may");
                    return Err(A::Error::custom(problem));
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The key of a field, if it is known.
struct Key(&'static Message);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(usize, &'static Field)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(usize, &'static Field)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().enumerate().find(|(_, field)| field.name == key))
    }
}

/// What stands in a field, or `null`; whether it is not that.
struct InField<'a> {
    field: &'static Field,
    place: &'a Place,
    to: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for InField<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for InField<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let Self { field, place, to } = self;
        let Field { number, what, .. } = *field;
        match what {
            What::Repeated(kind) => deserializer.deserialize_seq(Items {
                one: One { head: Some((number, true)), kind, place, to },
            })?,
            What::Packed(kind) => {
                let mut packed = Vec::new();
                deserializer.deserialize_seq(Items {
                    one: One { head: None, kind, place, to: &mut packed },
                })?;
                if !packed.is_empty() {
                    put_bytes(number, &packed, to);
                }
            }
            What::Plain(kind) => {
                One { head: Some((number, false)), kind, place, to }.deserialize(deserializer)?;
            }
            What::Optional(kind) | What::OneOf(kind) => {
                One { head: Some((number, true)), kind, place, to }.deserialize(deserializer)?;
            }
        }
        Ok(true)
    }
}

/// A list of values.
struct Items<'a> {
    one: One<'a>,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let One { head, kind, place, to } = self.one;
        let mut number = 0;
        while place
            .at(Step::Item(number), || {
                items.next_element_seed(One { head, kind, place, to: &mut *to })
            })?
            .is_some()
        {
            number += 1;
        }
        Ok(())
    }
}

/// A value that is not `null`.
struct One<'a> {
    /// The number of its field, and whether it stands there also if it is zero or empty; none: it is one
    /// of those that are packed.
    head: Option<(u32, bool)>,
    kind: Kind,
    place: &'a Place,
    to: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind {
            Kind::Of(message) => {
                let mut within = Vec::new();
                let place = self.place;
                Within { message, place, to: &mut within }.deserialize(deserializer)?;
                self.put_all(&within);
                Ok(())
            }
            Kind::Text | Kind::Bytes | Kind::Id => deserializer.deserialize_str(self),
            Kind::Bool => deserializer.deserialize_bool(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl One<'_> {
    fn put_all(self, bytes: &[u8]) {
        if let Some((number, always)) = self.head
            && (always || !bytes.is_empty())
        {
            put_bytes(number, bytes, self.to);
        }
    }

    fn put<T: Copy>(
        self,
        value: T,
        is_zero: bool,
        wire: WireType,
        put: impl FnOnce(T, &mut Vec<u8>),
    ) {
        match self.head {
            Some((_, false)) if is_zero => return,
            Some((number, _)) => encode_key(number, wire, self.to),
            None => {}
        }
        put(value, self.to);
    }

    /// A whole number, if it is in the range of its kind.
    fn whole<E: Error>(self, value: i128) -> Result<(), E> {
        let is_zero = value == 0;
        let out_of_range = |_| E::custom("the number is out of range");
        let varint = |value: u64, to: &mut Vec<u8>| encode_varint(value, to);
        match self.kind {
            Kind::Uint32 => {
                let value = u32::try_from(value).map_err(out_of_range)?;
                self.put(u64::from(value), is_zero, WireType::Varint, varint);
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(out_of_range)?;
                self.put(value, is_zero, WireType::ThirtyTwoBit, |value, to| to.put_u32_le(value));
            }
            Kind::Int32 | Kind::Enum => {
                let value = i32::try_from(value).map_err(out_of_range)?;
                self.put(i64::from(value).cast_unsigned(), is_zero, WireType::Varint, varint);
            }
            Kind::Sint32 => {
                let value = i32::try_from(value).map_err(out_of_range)?;
                let zigzag = ((value << 1) ^ (value >> 31)).cast_unsigned();
                self.put(u64::from(zigzag), is_zero, WireType::Varint, varint);
            }
            Kind::Uint64 => {
                let value = u64::try_from(value).map_err(out_of_range)?;
                self.put(value, is_zero, WireType::Varint, varint);
            }
            Kind::Int64 => {
                let value = i64::try_from(value).map_err(out_of_range)?;
                self.put(value.cast_unsigned(), is_zero, WireType::Varint, varint);
            }
            Kind::Fixed64 => {
                let value = u64::try_from(value).map_err(out_of_range)?;
                self.put(value, is_zero, WireType::SixtyFourBit, |value, to| to.put_u64_le(value));
            }
            Kind::Sfixed64 => {
                let value = i64::try_from(value).map_err(out_of_range)?;
                self.put(value, is_zero, WireType::SixtyFourBit, |value, to| to.put_i64_le(value));
            }
            _ => return Err(E::custom("there is no whole number")),
        }
        Ok(())
    }

    fn double(self, value: f64) {
        let is_zero = value.to_bits() == 0;
        self.put(value, is_zero, WireType::SixtyFourBit, |value, to| to.put_f64_le(value));
    }
}

impl Visitor<'_> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Text => "a text",
            Kind::Bytes => "a text in base64",
            Kind::Id => "a text of hexadecimal digits",
            Kind::Bool => "true or false",
            Kind::Enum => "a number, since an enum is no name in OTLP",
            Kind::Double => "a number, or one as text",
            _ => "a whole number, or one as text",
        })
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        if !matches!(self.kind, Kind::Bool) {
            return Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self));
        }
        self.put(u64::from(value), !value, WireType::Varint, encode_varint);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are read")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.kind {
            Kind::Double => self.double(value as f64),
            _ => self.whole(value.into())?,
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are read")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.kind {
            Kind::Double => self.double(value as f64),
            _ => self.whole(value.into())?,
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Kind::Double => self.double(value),
            // Some writers have one kind of number only.
            #[expect(clippy::cast_possible_truncation, reason = "checked")]
            _ if value.fract() == 0.0 && value.abs() <= EXACT => self.whole(value as i128)?,
            _ => return Err(E::invalid_type(serde::de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Kind::Text => self.put_all(text.as_bytes()),
            Kind::Bytes => {
                let bytes = from_base64(text);
                self.put_all(&bytes.ok_or_else(|| E::custom("the text is not base64"))?);
            }
            Kind::Id => {
                let bytes = from_hex(text).filter(|bytes| bytes.len() <= ID);
                let wrong = || E::custom("an id is hexadecimal digits, two for each byte");
                self.put_all(&bytes.ok_or_else(wrong)?);
            }
            Kind::Double => {
                let value = text.parse::<f64>().ok().filter(|value| {
                    // What is too large for a double is not infinite.
                    value.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())
                });
                self.double(value.ok_or_else(|| E::custom("the text is no number"))?);
            }
            Kind::Enum | Kind::Bool | Kind::Of(_) => {
                return Err(E::invalid_type(serde::de::Unexpected::Str(text), &self));
            }
            _ => {
                let wrong = || E::custom("the text is no whole number");
                self.whole(text.parse().map_err(|_| wrong())?)?;
            }
        }
        Ok(())
    }
}

fn put_bytes(number: u32, bytes: &[u8], to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.put_slice(bytes);
}
