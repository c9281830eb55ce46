//! The tokenizer in a GGUF file, as `tokenizer.json` would have it.
//!
//! A file has a vocabulary and the name of a rule, not the rule. Byte-level vocabularies (`gpt2`) come
//! with their merges; of SentencePiece's (`llama`) these follow from the scores of the tokens: two
//! pieces are joined where the whole is a token, the one with the highest score first.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::ModelError;

/// What a vocabulary of SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens, by llama.cpp's numbers.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// `tokenizer.json` of a file that goes by this name.
pub(super) fn json(content: &mut Content, file: &str) -> Result<Vec<u8>, ModelError> {
    let text = |key: &str| {
        let value = content.metadata.get(&format!("tokenizer.ggml.{key}"))?;
        value.to_string().ok().map(String::as_str)
    };
    let unsupported = |what: String, instead: &str| {
        Err(ModelError::Unsupported { what, instead: instead.into() })
    };
    match text("model") {
        Some("gpt2") => {}
        Some("llama") => return Ok(SentencePiece::read(content, file)?.json()),
        other => {
            return unsupported(
                format!("tokenizer {other:?} in a GGUF file ({file})"),
                "byte-level BPE (\"gpt2\") and SentencePiece (\"llama\") are, and the same model as a \
                 folder with tokenizer.json",
            );
        }
    }
    let pre = text("pre").unwrap_or("none");
    let Some(split) = Split::named(pre) else {
        return unsupported(
            format!("pre-tokenizer `{pre}` in a GGUF file ({file})"),
            "`llama-bpe`, `qwen2`, `smollm` and `gpt-2` are, and the same model as a folder",
        );
    };
    let tokenizer = byte_level(content, split)
        .map_err(|error| ModelError::malformed(file, format!("tokenizer: {error}")))?;
    let json = tokenizer.to_string(false);
    json.map(String::into_bytes).map_err(|error| ModelError::Tokenizer(error.to_string()))
}

/// How text is cut before its pieces become tokens; GGUF gives it a name, not a rule.
#[derive(Clone, Copy)]
enum Split {
    Gpt2,
    Llama3,
    Qwen2,
    SmolLm,
}

impl Split {
    fn named(name: &str) -> Option<Self> {
        match name {
            "gpt-2" => Some(Self::Gpt2),
            "llama-bpe" | "llama-v3" | "llama3" => Some(Self::Llama3),
            "qwen2" => Some(Self::Qwen2),
            "smollm" => Some(Self::SmolLm),
            _ => None,
        }
    }
}

/// candle builds the tokenizer; it knows Qwen2's rule and Llama 3's, by another name, and takes every
/// rule it does not know for one that puts a space before the text.
fn byte_level(
    content: &mut Content,
    split: Split,
) -> Result<tokenizers::Tokenizer, candle_core::Error> {
    let mut set =
        |key: &str, value| content.metadata.insert(format!("tokenizer.ggml.{key}"), value);
    if matches!(split, Split::Llama3) {
        set("pre", Value::String("llama3".to_owned()));
        set("ignore_merges", Value::Bool(true));
    }
    let mut tokenizer = tokenizers::Tokenizer::from_gguf(content)?;
    let bytes = ByteLevel::new(false, true, true);
    match split {
        Split::Llama3 | Split::Qwen2 => {}
        Split::Gpt2 => {
            tokenizer.with_pre_tokenizer(Some(bytes));
        }
        Split::SmolLm => {
            let digits = Digits::new(true);
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![digits.into(), bytes.into()])));
        }
    }
    Ok(tokenizer)
}

/// A vocabulary of SentencePiece.
struct SentencePiece {
    tokens: Vec<String>,
    scores: Vec<f32>,
    /// By llama.cpp's numbers.
    kinds: Vec<u64>,
    unknown: usize,
    /// What stands before a text, and after it.
    begin: Option<usize>,
    end: Option<usize>,
    /// Whether a space comes before a text.
    space_first: bool,
}

impl SentencePiece {
    fn read(content: &Content, file: &str) -> Result<Self, ModelError> {
        let get = |key: &str| content.metadata.get(&format!("tokenizer.ggml.{key}"));
        let lacks = |key: &str| {
            ModelError::malformed(file, format!("lacks a usable `tokenizer.ggml.{key}`"))
        };
        let list =
            |key: &str| get(key).and_then(|value| value.to_vec().ok()).ok_or_else(|| lacks(key));
        let tokens = list("tokens")?.iter().map(|token| token.to_string().ok().cloned());
        let tokens: Vec<String> = tokens.collect::<Option<_>>().ok_or_else(|| lacks("tokens"))?;
        let scores = list("scores")?.iter().map(|score| score.to_f32().ok());
        let scores: Vec<f32> = scores.collect::<Option<_>>().ok_or_else(|| lacks("scores"))?;
        let kinds = list("token_type")?.iter().map(super::integer);
        let kinds: Vec<u64> = kinds.collect::<Option<_>>().ok_or_else(|| lacks("token_type"))?;
        if scores.len() != tokens.len() || kinds.len() != tokens.len() {
            return Err(lacks("scores` or `tokenizer.ggml.token_type"));
        }
        let id = |key: &str| {
            let id = get(key).and_then(super::integer).and_then(|id| usize::try_from(id).ok());
            id.filter(|id| *id < tokens.len())
        };
        let switch =
            |key: &str, usual: bool| get(key).and_then(|v| v.to_bool().ok()).unwrap_or(usual);
        let unknown = id("unknown_token_id").or_else(|| kinds.iter().position(|k| *k == UNKNOWN));
        Ok(Self {
            unknown: unknown.ok_or_else(|| lacks("unknown_token_id"))?,
            begin: id("bos_token_id").filter(|_| switch("add_bos_token", true)),
            end: id("eos_token_id").filter(|_| switch("add_eos_token", false)),
            space_first: switch("add_space_prefix", true),
            tokens,
            scores,
            kinds,
        })
    }

    fn json(&self) -> Vec<u8> {
        let numbered = || (0usize..).zip(&self.tokens).zip(&self.kinds);
        let named =
            numbered().filter(|((_, _), kind)| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind));
        let mut added = Vec::new();
        for ((id, token), kind) in named {
            added.push(json!({
                "id": id, "content": token, "special": *kind != USER_DEFINED, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            }));
        }
        let vocabulary: HashMap<&str, usize> =
            (0usize..).zip(&self.tokens).map(|(id, token)| (token.as_str(), id)).collect();
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let first = json!({"type": "Prepend", "prepend": SPACE});
        let normalizers = if self.space_first { vec![first, spaces] } else { vec![spaces] };
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.space_first {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let value = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": self.around(),
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": self.tokens.get(self.unknown),
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocabulary, "merges": self.merges(&vocabulary),
            },
        });
        value.to_string().into_bytes()
    }

    /// Every pair of tokens that together are one, in the order in which they are joined.
    fn merges<'a>(&'a self, vocabulary: &HashMap<&str, usize>) -> Vec<(&'a str, &'a str)> {
        // Gemma's runs of spaces are tokens of their own, and made of shorter ones like any other.
        let joins = |kind: &u64| [NORMAL, USER_DEFINED].contains(kind);
        let plain = |text: &str| {
            let id = vocabulary.get(text)?;
            self.kinds.get(*id).filter(|kind| joins(kind)).map(|_| *id)
        };
        let mut merges = Vec::new();
        let all = self.tokens.iter().zip(&self.scores).zip(&self.kinds);
        for ((token, score), _) in all.filter(|(_, kind)| joins(kind)) {
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(before), Some(after)) = (plain(left), plain(right)) {
                    merges.push((*score, (before, after), (left, right)));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        merges.into_iter().map(|(_, _, pair)| pair).collect()
    }

    /// What stands around a text.
    fn around(&self) -> serde_json::Value {
        let name = |id: &usize| self.tokens.get(*id).map_or("", String::as_str);
        let special = |id: &usize| json!({"SpecialToken": {"id": name(id), "type_id": 0}});
        let text = |which: &str| json!({"Sequence": {"id": which, "type_id": 0}});
        let with = |texts: &[&str]| -> Vec<serde_json::Value> {
            let texts = texts.iter().map(|which| text(which));
            self.begin
                .iter()
                .map(special)
                .chain(texts)
                .chain(self.end.iter().map(special))
                .collect()
        };
        let tokens = self.begin.iter().chain(&self.end).map(|id| {
            (name(id).to_owned(), json!({"id": name(id), "ids": [id], "tokens": [name(id)]}))
        });
        let tokens: serde_json::Map<String, serde_json::Value> = tokens.collect();
        json!({
            "type": "TemplateProcessing", "single": with(&["A"]), "pair": with(&["A", "B"]),
            "special_tokens": tokens,
        })
    }
}
