//! The plan of one forward pass.

use crate::block_pool::BlockId;
use crate::sequence::JobId;

/// What one forward pass computes, and what changed to make it possible. Position `p` of a sequence has its keys and values
/// in block `blocks[p / block_tokens]` at place `p % block_tokens`, there for each position before those of this step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Jobs that went back to the queue because memory ran out; they are not in this step.
    pub preempted: Vec<JobId>,
    /// Jobs that left the queue, in this order.
    pub admitted: Vec<Admission>,
    /// Every sequence that has all but its last sampled token computed, in the order of admission.
    pub decodes: Vec<Decode>,
    /// Pieces of prompts, in the order of admission.
    pub prefills: Vec<Prefill>,
}

/// A job that left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Which.
    pub id: JobId,
    /// Positions from the start that need not be computed; always fewer than there are tokens.
    pub cached_tokens: usize,
    /// Whether it was here before and was preempted.
    pub again: bool,
}

/// One token of a sequence; the next is sampled from its logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decode {
    /// Whose.
    pub id: JobId,
    /// Where the token stands, counted from 0.
    pub position: usize,
    /// The token, which was sampled last.
    pub token: u32,
    /// The sequence's blocks, at least up to `position`.
    pub blocks: Vec<BlockId>,
}

/// A piece of a prompt, or of prompt and answer of a sequence that was preempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefill {
    /// Whose.
    pub id: JobId,
    /// Position of the first token.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: Vec<u32>,
    /// Whether it is the last piece: the next token is sampled from the logits of its last position.
    pub samples: bool,
    /// The sequence's blocks, at least up to the last of `tokens`.
    pub blocks: Vec<BlockId>,
}

impl Step {
    /// Sequences in the pass.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.decodes.len() + self.prefills.len()
    }

    /// Tokens in the pass.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.decodes.len() + self.prefills.iter().map(|piece| piece.tokens.len()).sum::<usize>()
    }
}
