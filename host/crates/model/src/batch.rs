//! What a pass of the decoder gives each of its rows: logits, states, or how likely its tokens were.

use crate::TokenLogprobs;
use crate::decoder::{Decoder, Row};
use crate::kv::KvStore;
use crate::model::Computed;
use crate::sample::told;

/// Tokens whose logits are computed at once where they are only looked at: what bounds the memory
/// for those of a long prompt.
const LOOKED_AT: usize = 16;

impl Decoder {
    /// One pass over rows that are sound: see [`crate::Model::forward_batch`].
    pub(crate) fn compute(&self, store: &mut KvStore, rows: &[Row<'_>]) -> Vec<Computed> {
        let states = self.hidden_states(store, rows);
        let hidden = self.config().hidden;
        let mut rest = states.as_slice();
        let mut last = Vec::new();
        let mut computed = Vec::with_capacity(rows.len());
        for row in rows {
            let (states, others) =
                rest.split_at_checked(row.tokens.len() * hidden).unwrap_or_default();
            rest = others;
            if row.wanted.logits {
                last.extend(states.chunks_exact(hidden).last().into_iter().flatten());
            }
            computed.push(Computed {
                logits: None,
                states: if row.wanted.states { self.normed(states) } else { Vec::new() },
                following: self.following(states, row.wanted.following),
            });
        }
        let logits = self.logits(&last);
        let mut logits = logits.chunks_exact(self.config().vocabulary);
        for (computed, row) in computed.iter_mut().zip(rows) {
            computed.logits =
                if row.wanted.logits { logits.next().map(<[f32]>::to_vec) } else { None };
        }
        computed
    }

    /// The logits at every position of one row.
    pub(crate) fn compute_all(&self, store: &mut KvStore, row: &Row<'_>) -> Vec<Vec<f32>> {
        let logits = self.logits(&self.hidden_states(store, std::slice::from_ref(row)));
        logits.chunks_exact(self.config().vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// How likely tokens are after those that have these states, up to the first of which no number
    /// tells.
    fn following(&self, states: &[f32], wanted: Option<(&[u32], usize)>) -> Vec<TokenLogprobs> {
        let Some((tokens, top)) = wanted else { return Vec::new() };
        let hidden = self.config().hidden;
        let mut all = Vec::with_capacity(tokens.len());
        let pieces = states.chunks(LOOKED_AT * hidden).zip(tokens.chunks(LOOKED_AT));
        for (states, tokens) in pieces {
            let states = states.get(..tokens.len() * hidden).unwrap_or(states);
            let mut logits = self.logits(states);
            let each = logits.chunks_exact_mut(self.config().vocabulary);
            for (logits, token) in each.zip(tokens) {
                let Ok(told) = told(logits, *token, top) else { return all };
                all.push(told);
            }
        }
        all
    }
}
