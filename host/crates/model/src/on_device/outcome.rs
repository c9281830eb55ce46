//! What a pass on a device gives each of its rows: logits, states, or how likely its tokens were.

use candle_core::{DType, Result, Tensor};

use super::{DeviceDecoder, KvTensors, at};
use crate::decoder::Row;
use crate::model::Computed;
use crate::sample::told;
use crate::{ModelError, TokenLogprobs};

/// Tokens whose logits are computed at once where they are only looked at: what bounds the memory
/// for those of a long prompt.
const LOOKED_AT: usize = 64;

impl DeviceDecoder {
    /// One pass over rows that are sound: see [`crate::Model::forward_batch`].
    pub(crate) fn compute(
        &self,
        memory: &KvTensors,
        rows: &[Row<'_>],
    ) -> std::result::Result<Vec<Computed>, ModelError> {
        self.pass(memory, rows).map_err(|error| at(&self.name, error.into()))
    }

    /// The logits at every position of one row.
    pub(crate) fn compute_all(
        &self,
        memory: &KvTensors,
        row: &Row<'_>,
    ) -> std::result::Result<Vec<Vec<f32>>, ModelError> {
        self.all_logits(memory, row).map_err(|error| at(&self.name, error.into()))
    }

    fn pass(&self, memory: &KvTensors, rows: &[Row<'_>]) -> Result<Vec<Computed>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let plan = self.plan(memory, rows)?;
        let states = self.hidden_states(memory, &plan)?;
        let mut computed = Vec::with_capacity(rows.len());
        let mut last = Vec::new();
        for (row, start) in rows.iter().zip(&plan.starts) {
            if row.wanted.logits {
                last.push((start + row.tokens.len()).saturating_sub(1) as u32);
            }
            let mut of_row = Computed::default();
            if row.wanted.states || row.wanted.following.is_some() {
                let normed = states.narrow(0, *start, row.tokens.len())?;
                let normed = self.norm(&normed, &self.norm)?;
                if row.wanted.states {
                    of_row.states = normed.flatten_all()?.to_vec1()?;
                }
                of_row.following = self.following(&normed, row.wanted.following)?;
            }
            computed.push(of_row);
        }
        let mut logits = self.last_logits(&states, last)?.into_iter();
        for (computed, row) in computed.iter_mut().zip(rows) {
            computed.logits = if row.wanted.logits { logits.next() } else { None };
        }
        // What a pass costs is its time: it ends when the device is done.
        self.device.synchronize()?;
        Ok(computed)
    }

    fn all_logits(&self, memory: &KvTensors, row: &Row<'_>) -> Result<Vec<Vec<f32>>> {
        let plan = self.plan(memory, std::slice::from_ref(row))?;
        let states = self.hidden_states(memory, &plan)?;
        self.logits(&self.norm(&states, &self.norm)?)?.to_vec2()
    }

    /// The logits of some tokens.
    fn last_logits(&self, states: &Tensor, which: Vec<u32>) -> Result<Vec<Vec<f32>>> {
        if which.is_empty() {
            return Ok(Vec::new());
        }
        let count = which.len();
        let states = states.index_select(&Tensor::from_vec(which, count, &self.device)?, 0)?;
        self.logits(&self.norm(&states, &self.norm)?)?.to_dtype(DType::F32)?.to_vec2()
    }

    /// How likely tokens are after those that have these states, up to the first of which no number
    /// tells.
    fn following(
        &self,
        normed: &Tensor,
        wanted: Option<(&[u32], usize)>,
    ) -> Result<Vec<TokenLogprobs>> {
        let Some((tokens, top)) = wanted else { return Ok(Vec::new()) };
        let mut all = Vec::with_capacity(tokens.len());
        for (index, tokens) in tokens.chunks(LOOKED_AT).enumerate() {
            let states = normed.narrow(0, index * LOOKED_AT, tokens.len())?;
            let each: Vec<Vec<f32>> = self.logits(&states)?.to_vec2()?;
            for (mut logits, token) in each.into_iter().zip(tokens) {
                let Ok(told) = told(&mut logits, *token, top) else { return Ok(all) };
                all.push(told);
            }
        }
        Ok(all)
    }
}
