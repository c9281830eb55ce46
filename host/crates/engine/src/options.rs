//! How much the engine takes on.

use tollgate_model::{BLOCK_TOKENS, Model, Passes};
use tollgate_scheduler::SchedulerOptions;

/// What is given to keys and values where the operator does not say, at most.
const MOST_BY_DEFAULT: usize = 2 << 30;

/// After so many nanoseconds without an admission a priority counts as one higher.
const AGING: u64 = 1_000_000_000;

/// The operator's limits.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sequences that share forward passes; at least 1.
    pub max_running: usize,
    /// Requests that may wait; one more is refused. At least 1: every request waits for a moment.
    pub max_queued: usize,
    /// Bytes for keys and values, which are never exceeded. If it is not said: enough for
    /// `max_running` whole contexts, but at most 2 GiB.
    pub kv_memory: Option<usize>,
    /// Most tokens of one forward pass: the more, the sooner long prompts are read; the fewer, the
    /// shorter others' next tokens have to wait for that. At least `max_running`.
    pub max_step_tokens: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_running: 8, max_queued: 256, kv_memory: None, max_step_tokens: 256 }
    }
}

impl EngineOptions {
    /// As far as a model can make use of them: one that computes a sequence at a time runs one, and one
    /// that reads a text at once does so in one pass.
    pub(crate) fn held_to(mut self, model: &Model) -> Self {
        let info = model.info();
        if info.passes != Passes::Shared {
            self.max_running = 1;
        }
        if info.passes == Passes::Whole {
            self.max_step_tokens = self.max_step_tokens.max(info.context_length);
        }
        self
    }

    pub(crate) fn kv_bytes(&self, model: &Model) -> usize {
        self.kv_memory.unwrap_or_else(|| {
            let block = model.kv_block_bytes();
            let context = model.info().context_length.div_ceil(BLOCK_TOKENS).saturating_mul(block);
            context.saturating_mul(self.max_running.max(1)).min(MOST_BY_DEFAULT.max(block))
        })
    }

    pub(crate) fn limits(&self, blocks: usize) -> SchedulerOptions {
        let max_running = self.max_running.max(1);
        SchedulerOptions {
            block_tokens: BLOCK_TOKENS,
            blocks,
            max_step_tokens: self.max_step_tokens.max(max_running),
            max_running,
            // The handles count those that have never run, and refuse; here are preempted ones too.
            max_queued: self.max_queued.max(1).saturating_add(max_running),
            aging: AGING,
        }
    }
}
