//! Tokens to text one at a time, never half a character.
//!
//! A byte-level token may hold part of a multi-byte character, and how a token reads can depend on
//! the ones before it. So the new tokens are decoded together with the last ones given out, and
//! only what comes after those is new. Replacement characters at the end may be a character's first
//! bytes: they wait for what follows.

use crate::{ModelError, Tokenizer};

/// Turns tokens into text one by one. The pieces joined are what decoding all tokens at once gives.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// The tokens of the last piece, and those that wait.
    window: Vec<u32>,
    /// How many tokens of the window belong to the last piece.
    settled: usize,
    /// How many bytes of the window's text have been given out.
    given: usize,
}

const REPLACEMENT: char = '\u{fffd}';

impl TextStream {
    pub(crate) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, window: Vec::new(), settled: 0, given: 0 }
    }

    /// The text that `token` completes, if any.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn push(&mut self, token: u32) -> Result<Option<String>, ModelError> {
        self.window.push(token);
        let text = self.tokenizer.decode(&self.window)?;
        let whole = text.trim_end_matches(REPLACEMENT);
        let Some(new) = whole.get(self.given..).filter(|new| !new.is_empty()).map(str::to_owned)
        else {
            return Ok(None);
        };
        self.given = whole.len();
        if whole.len() == text.len() {
            self.settle()?;
        }
        Ok(Some(new))
    }

    /// What is left when no more tokens come: at most the bytes of an unfinished character, as
    /// replacement characters.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`].
    pub fn finish(&mut self) -> Result<Option<String>, ModelError> {
        let text = self.tokenizer.decode(&self.window)?;
        let rest = text.get(self.given..).filter(|rest| !rest.is_empty()).map(str::to_owned);
        self.window.clear();
        (self.settled, self.given) = (0, 0);
        Ok(rest)
    }

    /// Nothing waits: the last piece's tokens stay as context, those before it go.
    fn settle(&mut self) -> Result<(), ModelError> {
        self.window.drain(..self.settled);
        self.settled = self.window.len();
        self.given = self.tokenizer.decode(&self.window)?.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{Model, ModelSource, Tokenizer, fixture};

    /// Every token is one byte, or special.
    fn byte_tokenizer() -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &fixture::Shape::default()).unwrap();
        Model::load(&ModelSource::Folder(folder.path().into())).unwrap().tokenizer()
    }

    fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
        let mut stream = tokenizer.text_stream();
        let mut pieces: Vec<String> =
            tokens.iter().filter_map(|token| stream.push(*token).unwrap()).collect();
        pieces.extend(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn a_character_comes_whole_with_its_last_byte() {
        let tokenizer = byte_tokenizer();
        let tokens = tokenizer.encode("aé€😀b", false).unwrap();
        assert_eq!(tokens.len(), 1 + 2 + 3 + 4 + 1);
        assert_eq!(pieces(&tokenizer, &tokens), ["a", "é", "€", "😀", "b"]);
        assert_eq!(pieces(&tokenizer, &tokens[..9]), ["a", "é", "€", "\u{fffd}"]);
    }

    #[test]
    fn special_tokens_are_no_text() {
        let tokenizer = byte_tokenizer();
        let tokens = tokenizer.encode("<|user|>a<|end|><|end|>b", false).unwrap();
        assert_eq!(tokens.len(), 5);
        assert_eq!(pieces(&tokenizer, &tokens), ["a", "b"]);
    }

    #[test]
    fn the_demo_models_pieces_join_to_the_text() {
        let tokenizer = Model::load(&ModelSource::Demo).unwrap().tokenizer();
        let text = "PagedAttention stores “keys” – naïvely 😀.\n\n  Blocks, of fixed size!";
        assert_eq!(pieces(&tokenizer, &tokenizer.encode(text, true).unwrap()).concat(), text);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_comes_in_whole_pieces(texts in prop::collection::vec("\\PC{0,40}", 8)) {
            let tokenizer = byte_tokenizer();
            for text in texts {
                let pieces = pieces(&tokenizer, &tokenizer.encode(&text, false).unwrap());
                prop_assert_eq!(pieces.concat(), text.clone());
                let is_half = |piece: &&String| piece.contains(super::REPLACEMENT);
                let halves = pieces.iter().filter(is_half).count();
                prop_assert!(halves == 0 || text.contains(super::REPLACEMENT), "{:?}", pieces);
            }
        }

        #[test]
        fn any_bytes_read_as_decoded_at_once(bytes in prop::collection::vec(0u32..261, 0..60)) {
            let tokenizer = byte_tokenizer();
            prop_assert_eq!(pieces(&tokenizer, &bytes).concat(), tokenizer.decode(&bytes).unwrap());
        }
    }
}
