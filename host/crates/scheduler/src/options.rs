//! The operator's limits.

use std::fmt;

/// How much the scheduler takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// Tokens whose keys and values fit into one block; at least 1.
    pub block_tokens: usize,
    /// Blocks there are: the limit of KV memory, which is held. 1 to `u32::MAX`.
    pub blocks: usize,
    /// Most tokens of one forward pass; at least `max_running`, so that no prompt stands still because others decode.
    pub max_step_tokens: usize,
    /// Most sequences that hold blocks at a time; at least 1.
    pub max_running: usize,
    /// Most jobs that wait when another is submitted; at least 1. Preempted ones wait besides.
    pub max_queued: usize,
    /// Nanoseconds after which a priority that nobody was admitted from counts as one higher; at least 1.
    pub aging: u64,
}

/// Why options do not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// This one is zero.
    Zero(&'static str),
    /// More blocks than have numbers.
    TooManyBlocks,
    /// Fewer tokens in a step than sequences that may decode in it.
    StepTooSmall,
}

impl SchedulerOptions {
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let sizes = [
            ("block_tokens", self.block_tokens),
            ("blocks", self.blocks),
            ("max_running", self.max_running),
            ("max_queued", self.max_queued),
            ("aging", usize::from(self.aging != 0)),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(OptionsError::Zero(name));
        }
        if u32::try_from(self.blocks).is_err() {
            return Err(OptionsError::TooManyBlocks);
        }
        if self.max_step_tokens < self.max_running {
            return Err(OptionsError::StepTooSmall);
        }
        Ok(())
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(name) => write!(f, "{name} is 0"),
            Self::TooManyBlocks => f.write_str("there are more blocks than numbers for them"),
            Self::StepTooSmall => f.write_str("max_step_tokens is less than max_running"),
        }
    }
}

impl std::error::Error for OptionsError {}
