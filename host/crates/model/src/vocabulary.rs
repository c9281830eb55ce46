//! What each token stands for in bytes, by itself.
//!
//! A token may be part of a character, so it is bytes and not text. Vocabularies write these in one of
//! two ways: byte-level ones have a printable character for each byte (GPT-2's table), the others write
//! a space as `▁` and a byte that has no token as `<0x0A>`. Special tokens stand for no text.

use std::collections::HashMap;

use tokenizers::DecoderWrapper;

/// One token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBytes {
    /// Its bytes; of a special token its name.
    pub bytes: Box<[u8]>,
    /// Whether it marks something, such as the end, and is no text.
    pub special: bool,
}

/// All tokens, by their number; numbers without a token have no bytes.
pub(crate) fn of(tokenizer: &tokenizers::Tokenizer) -> Vec<TokenBytes> {
    let added = tokenizer.get_added_tokens_decoder();
    let spelling = Spelling::of(tokenizer);
    let mut tokens = Vec::new();
    for (name, id) in tokenizer.get_vocab(true) {
        let id = id as usize;
        if tokens.len() <= id {
            tokens.resize_with(id + 1, TokenBytes::default);
        }
        let added = u32::try_from(id).ok().and_then(|id| added.get(&id));
        let token = match added {
            Some(token) => TokenBytes { bytes: bytes(&token.content), special: token.special },
            None => TokenBytes { bytes: spelling.read(&name), special: false },
        };
        if let Some(place) = tokens.get_mut(id) {
            *place = token;
        }
    }
    tokens
}

/// How a vocabulary writes bytes.
enum Spelling {
    /// Which byte a character stands for.
    ByteLevel(HashMap<char, u8>),
    /// `▁` is a space, `<0x0A>` a byte.
    Marked,
}

impl Spelling {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let byte_level = tokenizer.get_decoder().is_some_and(is_byte_level);
        if byte_level { Self::ByteLevel(byte_characters()) } else { Self::Marked }
    }

    fn read(&self, name: &str) -> Box<[u8]> {
        match self {
            Self::ByteLevel(bytes_of) => {
                let read: Option<Vec<u8>> =
                    name.chars().map(|c| bytes_of.get(&c).copied()).collect();
                read.map_or_else(|| bytes(name), Vec::into_boxed_slice)
            }
            Self::Marked => match single_byte(name) {
                Some(byte) => Box::new([byte]),
                None => bytes(&name.replace('\u{2581}', " ")),
            },
        }
    }
}

fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(all) => all.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

fn bytes(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

/// The byte that `<0x0A>` stands for.
fn single_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// GPT-2's table: printable bytes stand for themselves, the others for characters from 256 on.
fn byte_characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let themselves =
        (0..=u8::MAX).filter(|byte| printable(*byte)).map(|byte| (char::from(byte), byte));
    let others = ('\u{100}'..).zip((0..=u8::MAX).filter(|byte| !printable(*byte)));
    themselves.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, ModelSource, fixture};

    #[test]
    fn the_table_has_every_byte_once() {
        let table = byte_characters();
        let mut bytes: Vec<u8> = table.values().copied().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!((table[&'\u{120}'], table[&'\u{10a}'], table[&'a']), (b' ', b'\n', b'a'));
    }

    #[test]
    fn marks_are_spaces_and_bytes() {
        for (name, expected) in [
            ("\u{2581}the\u{2581}", b" the ".as_slice()),
            ("<0x0A>", b"\n"),
            ("<0xE2>", b"\xe2"),
            ("<0x1>", b"<0x1>"),
            ("<0xZZ>", b"<0xZZ>"),
            ("é", "é".as_bytes()),
        ] {
            assert_eq!(&*Spelling::Marked.read(name), expected, "{name}");
        }
    }

    /// The tokens of a text, one after another, are its bytes.
    #[test]
    fn bytes_of_tokens_are_the_text() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &fixture::Shape::default()).unwrap();
        let folder = ModelSource::Folder(folder.path().into());
        for source in [folder, ModelSource::Demo] {
            let tokenizer = Model::load(&source).unwrap().tokenizer();
            let text = "Naïve “keys”,\n\n  blocks of 16 – 😀!\u{0}";
            let tokens = tokenizer.encode(text, false).unwrap();
            let bytes: Vec<u8> =
                tokens.iter().flat_map(|token| tokenizer.token(*token).bytes.to_vec()).collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), text);
            let end = tokenizer.token(tokenizer.stop_tokens()[0]);
            assert!(end.special && end.bytes.starts_with(b"<"), "{end:?}");
        }
    }
}
