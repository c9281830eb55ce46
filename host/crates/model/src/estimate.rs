//! Token counts for models whose tokenizer is not here: OpenAI's encodings through tiktoken-rs.
//!
//! For OpenAI's own models the count of plain text is theirs; for every other model it is an
//! estimate and is to be marked as one wherever it is shown or priced.

use tiktoken_rs::tokenizer::{Tokenizer as Encoding, get_tokenizer};

/// An estimate of the tokens in `text` for the model of this name: by the encoding that OpenAI's
/// models of the name use, `cl100k_base` for any other. Text that looks like a special token counts
/// as text.
#[must_use]
pub fn count_tokens(model: &str, text: &str) -> u64 {
    let encoding = match get_tokenizer(model).unwrap_or(Encoding::Cl100kBase) {
        Encoding::O200kHarmony => tiktoken_rs::o200k_harmony_singleton(),
        Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
        Encoding::P50kBase => tiktoken_rs::p50k_base_singleton(),
        Encoding::P50kEdit => tiktoken_rs::p50k_edit_singleton(),
        Encoding::R50kBase | Encoding::Gpt2 => tiktoken_rs::r50k_base_singleton(),
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
    };
    encoding.count_ordinary(text) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_published_encodings() {
        let table = [
            ("gpt-4", "tiktoken is great!", 6),
            ("gpt-4o", "tiktoken is great!", 6),
            ("mistral-7b", "tiktoken is great!", 6),
            ("gpt-4o", "", 0),
            ("gpt-4o", "<|endoftext|>", 7),
        ];
        for (model, text, expected) in table {
            assert_eq!(count_tokens(model, text), expected, "{model}: {text}");
        }
    }
}
