//! Protobuf on the wire: the fields of a message, one after another.

use bytes::{Buf, BufMut};
use prost::encoding::{self, WireType};

use super::Malformed;

/// What stands in a field.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// A number of any length.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message. After the first that cannot be read there are no more.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Content<'a>), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    #[inline]
    fn field(&mut self) -> Result<(u32, Content<'a>), Malformed> {
        match self.short() {
            Some((number, content)) => Ok((number, Content::Bytes(content))),
            None => self.any_field(),
        }
    }

    /// The next one, if it is as nearly all are: of a number below 16 and shorter than 128 bytes.
    #[inline]
    pub(super) fn short(&mut self) -> Option<(u32, &'a [u8])> {
        let [key @ 0x08..0x80, length @ ..0x80, rest @ ..] = self.0 else { return None };
        if key & 7 != WireType::LengthDelimited as u8 {
            return None;
        }
        let (content, rest) = rest.split_at_checked(usize::from(*length))?;
        self.0 = rest;
        Some((u32::from(key >> 3), content))
    }

    fn any_field(&mut self) -> Result<(u32, Content<'a>), Malformed> {
        const BREAKS_OFF: Malformed = Malformed::Unreadable("it breaks off");
        let bytes = &mut self.0;
        let key = encoding::decode_key(bytes);
        let (number, wire) =
            key.map_err(|_| Malformed::Unreadable("a field has no number that protobuf has"))?;
        let content = match wire {
            WireType::Varint => Content::Varint(varint(bytes)?),
            WireType::SixtyFourBit => {
                Content::Fixed64(bytes.try_get_u64_le().map_err(|_| BREAKS_OFF)?)
            }
            WireType::ThirtyTwoBit => {
                Content::Fixed32(bytes.try_get_u32_le().map_err(|_| BREAKS_OFF)?)
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(varint(bytes)?).map_err(|_| BREAKS_OFF)?;
                let (content, rest) = bytes.split_at_checked(length).ok_or(BREAKS_OFF)?;
                *bytes = rest;
                Content::Bytes(content)
            }
            WireType::StartGroup | WireType::EndGroup => {
                return Err(Malformed::Unreadable(
                    "a field has a wire type that OTLP does not use",
                ));
            }
        };
        Ok((number, content))
    }
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Nearly all are of one byte, and prost's function is a call for each.
    match bytes.split_first() {
        Some((first, rest)) if first & 0x80 == 0 => {
            *bytes = rest;
            Ok(u64::from(*first))
        }
        _ => encoding::decode_varint(bytes)
            .map_err(|_| Malformed::Unreadable("a number breaks off, or is longer than 10 bytes")),
    }
}

/// A field that is known holds something else.
const OTHER: Malformed = Malformed::Unreadable("a field has a wire type that is not its own");

impl<'a> Content<'a> {
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(OTHER) }
    }

    #[inline]
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed::Unreadable("a text is not UTF-8"))
    }

    #[inline]
    pub(super) fn varint(self) -> Result<u64, Malformed> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(OTHER) }
    }

    /// The lower half, as protobuf reads numbers of 32 bits.
    #[inline]
    pub(super) fn uint32(self) -> Result<u32, Malformed> {
        Ok(self.varint()? as u32)
    }

    #[inline]
    pub(super) fn fixed64(self) -> Result<u64, Malformed> {
        if let Self::Fixed64(value) = self { Ok(value) } else { Err(OTHER) }
    }

    #[inline]
    pub(super) fn fixed32(self) -> Result<u32, Malformed> {
        if let Self::Fixed32(value) = self { Ok(value) } else { Err(OTHER) }
    }
}

pub(super) fn head(number: u32, length: usize, to: &mut Vec<u8>) {
    encoding::encode_key(number, WireType::LengthDelimited, to);
    encoding::encode_varint(length as u64, to);
}

/// A message within another: its length is known once it is written, and mostly one byte.
pub(super) fn nested(number: u32, to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    nested_about(number, 0, to, write);
}

/// The same of one that has about so many bytes: where as many digits tell its length, nothing is moved.
pub(super) fn nested_about(
    number: u32,
    about: usize,
    to: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    head(number, about, to);
    let begins = to.len();
    let place = begins - encoding::encoded_len_varint(about as u64)..begins;
    write(to);
    let length = (to.len() - begins) as u64;
    match to.get_mut(place.clone()) {
        Some(mut digits) if digits.len() == encoding::encoded_len_varint(length) => {
            encoding::encode_varint(length, &mut digits);
        }
        _ => drop(to.splice(place, written(|to| encoding::encode_varint(length, to)))),
    }
}

pub(super) fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

/// What is empty or zero does not stand there.
pub(super) fn text(field: u32, text: &str, to: &mut Vec<u8>) {
    if !text.is_empty() {
        head(field, text.len(), to);
        to.put_slice(text.as_bytes());
    }
}

pub(super) fn number<T: Copy + Default + PartialEq>(
    field: u32,
    number: T,
    encode: impl Fn(u32, &T, &mut Vec<u8>),
    to: &mut Vec<u8>,
) {
    if number != T::default() {
        encode(field, &number, to);
    }
}
