//! One sequence by itself, with memory of its own: for tools and tests. The engine has many in one
//! store.

use crate::decoder::{Row, Wanted};
use crate::kv::{BLOCK_TOKENS, KvStore};
use crate::{Model, ModelError};

/// One sequence of tokens being read and written. Dropping it frees its keys and values.
#[derive(Debug)]
pub struct Sequence {
    store: KvStore,
    blocks: Vec<u32>,
    length: usize,
}

impl Model {
    /// A new, empty sequence, which can become as long as the context. Memory is taken as it grows.
    ///
    /// # Errors
    /// [`ModelError::KvMemory`] if the system has not as much.
    pub fn start_sequence(&self) -> Result<Sequence, ModelError> {
        let blocks = self.info().context_length.div_ceil(BLOCK_TOKENS);
        let store = self.kv_store(blocks.saturating_mul(self.kv_block_bytes()))?;
        let blocks = (0..).take(blocks).collect();
        Ok(Sequence { store, blocks, length: 0 })
    }

    /// Reads `tokens` after what the sequence already holds and returns the logits (one per token
    /// of the vocabulary) for what comes next. A whole prompt, a part of one, or the token just
    /// sampled: it is the same call.
    ///
    /// # Errors
    /// [`ModelError::ContextExceeded`] when they do not fit, [`ModelError::Input`] for no token or
    /// one outside the vocabulary; the sequence is then as it was.
    pub fn forward(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let Sequence { store, blocks, length } = sequence;
        let row = Row { blocks, start: *length, tokens, wanted: Wanted::LOGITS };
        let computed = self.forward_batch(store, &[row])?;
        *length += tokens.len();
        Ok(computed.into_iter().find_map(|row| row.logits).unwrap_or_default())
    }

    /// Like [`Model::forward`], but returns the logits at every position: for tests and perplexity.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_all(
        &self,
        sequence: &mut Sequence,
        tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let Sequence { store, blocks, length } = sequence;
        let row = Row { blocks, start: *length, tokens, wanted: Wanted::NOTHING };
        let logits = self.forward_all_of(store, row)?;
        *length += tokens.len();
        Ok(logits)
    }
}

impl Sequence {
    /// Tokens read so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}
