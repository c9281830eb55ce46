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
    /// Why the choice ends; this is its last piece then.
    pub finish_reason: Option<FinishReason>,
}

/// A token and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenTold {
    /// What it stands for; part of a character perhaps.
    pub bytes: Box<[u8]>,
    /// Whether it marks something, such as the end, and is not in the text.
    pub special: bool,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place and theirs, the likeliest first.
    pub top: Vec<(Box<[u8]>, f32)>,
}

impl TokenTold {
    pub(crate) fn new(told: &TokenLogprobs, tokenizer: &Tokenizer) -> Self {
        let token = tokenizer.token(told.token);
        let likely = |(token, logprob): &(u32, f32)| (tokenizer.token(*token).bytes, *logprob);
        Self {
            bytes: token.bytes,
            special: token.special,
            logprob: told.logprob,
            top: told.top.iter().map(likely).collect(),
        }
    }
}
