//! What happened to one job, for its spans and its record.

/// What a job met, from its submission to its removal. All zero for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Nanoseconds from its arrival until it was admitted for the first time, or removed.
    pub queued: u64,
    /// Nanoseconds that it waited after preemptions.
    pub requeued: u64,
    /// Tokens of the prompt that were found in the prefix cache when it was first admitted.
    pub cached_tokens: usize,
    /// Chunks in which its prompt was read, and read again after preemptions.
    pub chunks: u32,
    /// Times that its blocks were taken away.
    pub preemptions: u32,
    /// Tokens that were computed again because their blocks had been taken away.
    pub recomputed_tokens: usize,
    /// Forward passes it took part in.
    pub steps: u32,
    /// Sequences in the largest of these, itself included.
    pub batch_max: usize,
    /// Sequences in all of these together: divided by `steps`, the mean.
    pub batch_sum: u64,
    /// Most blocks it held at a time, shared ones included.
    pub blocks_peak: usize,
}
