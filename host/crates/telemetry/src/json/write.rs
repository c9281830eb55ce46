//! From protobuf to JSON.

use std::io;

use tollgate_domain::otlp::{Content, Fields, Malformed, check_depth};
use tollgate_domain::value::{base64, hex};

use super::schema::{Field, Kind, Message, What};

/// A message in JSON. Fields that OTLP has no name for stay behind: JSON has none for them either.
pub(crate) fn write(bytes: &[u8], message: &'static Message) -> io::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(bytes.len() * 2);
    object(bytes, message, 0, &mut json)?;
    Ok(json)
}

const OTHER: Malformed = Malformed::Unreadable("a field has a wire type that is not its own");

fn malformed(problem: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_string())
}

fn object(
    bytes: &[u8],
    message: &'static Message,
    depth: usize,
    to: &mut Vec<u8>,
) -> io::Result<()> {
    check_depth(depth).map_err(malformed)?;
    let mut found = found(bytes, message)?;
    // As the table has them; those of one field as they came.
    found.sort_by_key(|(index, _)| *index);
    let mut separator = b'{';
    for of_one in found.chunk_by(|(one, _), (other, _)| one == other) {
        let Some(field) = of_one.first().and_then(|(index, _)| message.fields.get(*index)) else {
            continue;
        };
        let contents = || of_one.iter().map(|(_, content)| *content);
        let before = to.len();
        to.push(separator);
        text(field.name, to)?;
        to.push(b':');
        if in_field(field, contents, depth, to)? {
            separator = b',';
        } else {
            to.truncate(before);
        }
    }
    if separator == b'{' {
        to.push(b'{');
    }
    to.push(b'}');
    Ok(())
}

/// The fields that are known, by their places in the table. Of those of which only one may be there the
/// last is.
fn found<'a>(bytes: &'a [u8], message: &'static Message) -> io::Result<Vec<(usize, Content<'a>)>> {
    let (mut found, mut chosen) = (Vec::new(), Vec::new());
    for field in Fields(bytes) {
        let (number, content) = field.map_err(malformed)?;
        let known = message.fields.iter().enumerate().find(|(_, field)| field.number == number);
        let Some((index, field)) = known else { continue };
        if !matches!(field.what, What::OneOf(_)) {
            found.push((index, content));
            continue;
        }
        if chosen.last().is_some_and(|(last, _)| *last != index) {
            chosen.clear();
        }
        chosen.push((index, content));
    }
    found.append(&mut chosen);
    Ok(found)
}

/// What stands in a field; whether it is worth a word.
fn in_field<'a, C: Iterator<Item = Content<'a>>>(
    field: &Field,
    contents: impl Fn() -> C,
    depth: usize,
    to: &mut Vec<u8>,
) -> io::Result<bool> {
    match field.what {
        What::Repeated(kind) => list(contents().map(|content| (kind, content)), depth, to)?,
        What::Packed(kind) => {
            let mut items = Vec::new();
            for content in contents() {
                unpacked(kind, content, &mut items).map_err(malformed)?;
            }
            list(items.into_iter().map(|content| (kind, content)), depth, to)?;
            return Ok(!to.ends_with(b"[]"));
        }
        what => {
            if let Kind::Of(message) = what.kind() {
                // A message that stands there twice is both, one behind the other.
                let mut whole = Vec::new();
                for content in contents() {
                    let Content::Bytes(part) = content else { return Err(malformed(OTHER)) };
                    whole.extend_from_slice(part);
                }
                object(&whole, message, depth + 1, to)?;
                return Ok(true);
            }
            let Some(content) = contents().last() else { return Ok(false) };
            if matches!(what, What::Plain(_)) && is_zero(content) {
                return Ok(false);
            }
            value(what.kind(), content, depth, to)?;
        }
    }
    Ok(true)
}

fn is_zero(content: Content<'_>) -> bool {
    match content {
        Content::Varint(value) | Content::Fixed64(value) => value == 0,
        Content::Fixed32(value) => value == 0,
        Content::Bytes(bytes) => bytes.is_empty(),
    }
}

fn list<'a>(
    items: impl Iterator<Item = (Kind, Content<'a>)>,
    depth: usize,
    to: &mut Vec<u8>,
) -> io::Result<()> {
    to.push(b'[');
    for (number, (kind, content)) in items.enumerate() {
        if number > 0 {
            to.push(b',');
        }
        match (kind, content) {
            (Kind::Of(message), Content::Bytes(bytes)) => object(bytes, message, depth + 1, to)?,
            _ => value(kind, content, depth, to)?,
        }
    }
    to.push(b']');
    Ok(())
}

/// The numbers in one field that has several.
fn unpacked<'a>(
    kind: Kind,
    content: Content<'a>,
    to: &mut Vec<Content<'a>>,
) -> Result<(), Malformed> {
    let Content::Bytes(mut bytes) = content else {
        to.push(content);
        return Ok(());
    };
    const BREAKS_OFF: Malformed = Malformed::Unreadable("numbers break off");
    if matches!(kind, Kind::Fixed64 | Kind::Double) {
        let (numbers, rest) = bytes.as_chunks::<8>();
        to.extend(numbers.iter().map(|number| Content::Fixed64(u64::from_le_bytes(*number))));
        return if rest.is_empty() { Ok(()) } else { Err(BREAKS_OFF) };
    }
    while !bytes.is_empty() {
        let number = prost::encoding::decode_varint(&mut bytes).map_err(|_| BREAKS_OFF)?;
        to.push(Content::Varint(number));
    }
    Ok(())
}

/// One that is no message.
fn value(kind: Kind, content: Content<'_>, depth: usize, to: &mut Vec<u8>) -> io::Result<()> {
    match (kind, content) {
        (Kind::Text, Content::Bytes(bytes)) => {
            let not_text = |_| malformed(Malformed::Unreadable("a text is not UTF-8"));
            text(str::from_utf8(bytes).map_err(not_text)?, to)?;
        }
        (Kind::Bytes, Content::Bytes(bytes)) => text(&base64(bytes), to)?,
        (Kind::Id, Content::Bytes(bytes)) => text(&hex(bytes), to)?,
        (Kind::Bool, Content::Varint(value)) => plain(value != 0, to)?,
        // The lower half, as protobuf reads numbers of 32 bits.
        (Kind::Uint32, Content::Varint(value)) => plain(value as u32, to)?,
        (Kind::Int32 | Kind::Enum, Content::Varint(value)) => plain(value as u32 as i32, to)?,
        (Kind::Sint32, Content::Varint(value)) => {
            let zigzag = value as u32;
            plain((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed(), to)?;
        }
        (Kind::Fixed32, Content::Fixed32(value)) => plain(value, to)?,
        (Kind::Uint64, Content::Varint(value)) | (Kind::Fixed64, Content::Fixed64(value)) => {
            text(&value.to_string(), to)?;
        }
        (Kind::Int64, Content::Varint(value)) | (Kind::Sfixed64, Content::Fixed64(value)) => {
            text(&value.cast_signed().to_string(), to)?;
        }
        (Kind::Double, Content::Fixed64(bits)) => match f64::from_bits(bits) {
            value if value.is_finite() => plain(value, to)?,
            value if value.is_nan() => text("NaN", to)?,
            value => text(if value > 0.0 { "Infinity" } else { "-Infinity" }, to)?,
        },
        (Kind::Of(message), Content::Bytes(bytes)) => object(bytes, message, depth + 1, to)?,
        _ => return Err(malformed(OTHER)),
    }
    Ok(())
}

fn text(text: &str, to: &mut Vec<u8>) -> io::Result<()> {
    Ok(serde_json::to_writer(to, text)?)
}

fn plain(value: impl serde::Serialize, to: &mut Vec<u8>) -> io::Result<()> {
    Ok(serde_json::to_writer(to, &value)?)
}
