//! The pieces of an answer that the model in this process makes.

use tollgate_domain::record::FinishReason;
use tollgate_engine::{TokenLogprobs, Tokenizer};

/// More of one choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Which choice, counted from 0.
    pub choice: usize,
    /// Whole characters, never part of a stop string; empty where only tokens or the end are told.
    pub text: String,
    /// The tokens since the last piece, if they are asked for. A text may end within a token, and a
    /// token may have no text.
    pub tokens: Vec<TokenTold>,
    /// The tokens of the prompt, if it is asked how likely they were.
    pub prompt: Vec<TokenTold>,
    /// The vector of the text, where it was to be embedded.
    pub embedding: Option<Vec<f32>>,
    /// Why the choice ends; this is its last piece then.
    pub finish_reason: Option<FinishReason>,
}

/// A token and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenTold {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it stands for; part of a character perhaps.
    pub bytes: Box<[u8]>,
    /// Whether it marks something, such as the end, and is not in the text.
    pub special: bool,
    /// The natural logarithm of its probability; none of the first token of all.
    pub logprob: Option<f32>,
    /// Its place among all tokens by how likely they were: 1 for the likeliest.
    pub rank: u32,
    /// The likeliest tokens in its place, the likeliest first.
    pub top: Vec<TokenLikely>,
}

/// A token that might have been.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLikely {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it stands for.
    pub bytes: Box<[u8]>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
}

impl TokenTold {
    /// A token that nothing comes before.
    pub(crate) fn first(id: u32, tokenizer: &Tokenizer) -> Self {
        let token = tokenizer.token(id);
        let (bytes, special) = (token.bytes, token.special);
        Self { id, bytes, special, logprob: None, rank: 1, top: Vec::new() }
    }

    pub(crate) fn new(told: &TokenLogprobs, tokenizer: &Tokenizer) -> Self {
        let token = tokenizer.token(told.token);
        let likely = |(token, logprob): &(u32, f32)| TokenLikely {
            id: *token,
            bytes: tokenizer.token(*token).bytes,
            logprob: *logprob,
        };
        Self {
            id: told.token,
            bytes: token.bytes,
            special: token.special,
            logprob: Some(told.logprob),
            rank: told.rank,
            top: told.top.iter().map(likely).collect(),
        }
    }
}
