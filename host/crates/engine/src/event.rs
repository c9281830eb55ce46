//! What happens to a request, as its stream tells it.

use std::time::{Duration, Instant};

use tollgate_domain::record::FinishReason;
use tollgate_model::{ModelError, TokenLogprobs};

/// What happens to a request, in this order; `Ended` is always the last, and the only one of a
/// request that is cancelled before it starts.
#[derive(Debug)]
pub enum Event {
    /// It left the queue.
    Started {
        /// When.
        at: Instant,
    },
    /// The model has read the prompt.
    Prefilled {
        /// How likely each of its tokens was but the first, if that was asked.
        prompt: Vec<TokenLogprobs>,
        /// When.
        at: Instant,
    },
    /// More text; whole characters, never part of a stop string.
    Text {
        /// The text, not empty.
        text: String,
        /// Tokens sampled so far.
        output_tokens: u32,
        /// How likely the tokens since the last text were, if the options ask. A text may end within
        /// a token, and a token may have no text.
        logprobs: Vec<TokenLogprobs>,
        /// When it was ready.
        at: Instant,
    },
    /// It is over.
    Ended {
        /// How.
        end: End,
        /// Tokens sampled; the one that ended the text counts, as it does with vLLM.
        output_tokens: u32,
        /// How likely the tokens after the last text were, the one that ended it included.
        logprobs: Vec<TokenLogprobs>,
        /// Its part, by tokens, of the time that the device took for the passes it was in.
        device_time: Duration,
        /// What else it met.
        facts: Facts,
        /// When.
        at: Instant,
    },
}

/// How a generation ended.
#[derive(Debug)]
pub enum End {
    /// The text is whole.
    Finished(FinishReason),
    /// The vector of a text that was to be embedded.
    Embedded(Vec<f32>),
    /// It was cancelled.
    Cancelled,
    /// The model failed.
    Failed(EngineError),
}

/// How the model failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It reported an error.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A pass that it shared with others reported an error.
    #[error("the forward pass failed: {0}")]
    Pass(String),
    /// It panicked, which is a bug; the engine goes on with other requests.
    #[error("the model panicked: {0}")]
    Panic(String),
}

/// What a request met on its way. All zero for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Time from its submission until it first left the queue, or was given up.
    pub queued: Duration,
    /// Time that it waited again after preemptions.
    pub requeued: Duration,
    /// Tokens of the prompt whose keys and values were there already.
    pub cached_tokens: u32,
    /// Pieces in which its prompt was read, and read again after preemptions.
    pub chunks: u32,
    /// Times that its memory was given to others.
    pub preemptions: u32,
    /// Tokens that were computed again because of that.
    pub recomputed_tokens: u32,
    /// Forward passes it was in.
    pub passes: u32,
    /// Sequences in the largest of these, itself included.
    pub batch_max: u32,
    /// Sequences in all of these together.
    pub batch_sum: u64,
    /// Most KV blocks it held at a time, shared ones included.
    pub kv_blocks_peak: u32,
    /// Its part of the device time of the passes it was in, in millionths.
    pub device_share_ppm: u32,
    /// Device time of these passes, everybody's.
    pub pass_time: Duration,
}

impl Facts {
    /// Sequences in a pass that it was in, itself included, on average; 0 if it was in none.
    #[must_use]
    pub fn batch_mean(&self) -> f64 {
        if self.passes == 0 { 0.0 } else { self.batch_sum as f64 / f64::from(self.passes) }
    }

    pub(crate) fn new(met: &tollgate_scheduler::Facts, part: Duration, passes: Duration) -> Self {
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let share = part.as_nanos().saturating_mul(1_000_000).checked_div(passes.as_nanos());
        Self {
            queued: Duration::from_nanos(met.queued),
            requeued: Duration::from_nanos(met.requeued),
            cached_tokens: narrow(met.cached_tokens),
            chunks: met.chunks,
            preemptions: met.preemptions,
            recomputed_tokens: narrow(met.recomputed_tokens),
            passes: met.steps,
            batch_max: narrow(met.batch_max),
            batch_sum: met.batch_sum,
            kv_blocks_peak: narrow(met.blocks_peak),
            device_share_ppm: share.map_or(0, |share| u32::try_from(share).unwrap_or(1_000_000)),
            pass_time: passes,
        }
    }
}
