//! The forward pass of a decoder (Llama and its relatives) over the tokens of many sequences at once.
//!
//! All tokens, whoever's they are, are the rows of one matrix for everything but attention, which
//! each sequence does over its own blocks of the [`KvStore`]. So weights are read once for all, and
//! nothing that is computed of one sequence depends on another ([`crate::kernels`]).

use rayon::prelude::*;

use crate::config::LlamaConfig;
use crate::kernels::attention::{self, Heads, Span};
use crate::kernels::linear::{self, Linear};
use crate::kernels::pointwise;
use crate::kv::{BLOCK_TOKENS, KvStore};
use crate::layers::{self, Weights};

/// Numbers below which threads cost more than they save.
const WORTH_SHARING: usize = 1 << 15;

/// A decoder that the kernels compute.
#[derive(Debug)]
pub(crate) struct Decoder {
    weights: Weights<Linear, Vec<f32>>,
}

type Layer = layers::Layer<Linear, Vec<f32>>;

/// Tokens of one sequence in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The sequence's blocks, by position; at least up to the last of `tokens`.
    pub blocks: &'a [u32],
    /// Position of the first token. All before it are in the blocks already.
    pub start: usize,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// What is to come of it.
    pub wanted: Wanted<'a>,
}

/// What is to come of a row, besides its keys and values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// The logits of what comes after the last token.
    pub logits: bool,
    /// The last layer's states of all tokens, normed.
    pub states: bool,
    /// How likely these tokens are, which follow the row's one by one, at most as many as it has;
    /// and as many of the likeliest in the place of each.
    pub following: Option<(&'a [u32], usize)>,
}

impl Wanted<'_> {
    /// Nothing.
    pub const NOTHING: Self = Self { logits: false, states: false, following: None };
    /// The logits of what comes after the last token.
    pub const LOGITS: Self = Self { logits: true, ..Self::NOTHING };
}

impl Decoder {
    pub(crate) fn new(weights: Weights<Linear, Vec<f32>>) -> Self {
        Self { weights }
    }

    pub(crate) fn config(&self) -> &LlamaConfig {
        &self.weights.config
    }

    /// Bytes of all matrices.
    pub(crate) fn bytes(&self) -> usize {
        let of = |layer: &Layer| {
            let Layer { query, key, value, output, gate, up, down, .. } = layer;
            [query, key, value, output, gate, up, down].map(Linear::bytes).iter().sum::<usize>()
        };
        let ends =
            self.weights.embeddings.bytes() + self.weights.head.as_ref().map_or(0, Linear::bytes);
        ends + self.weights.layers.iter().map(of).sum::<usize>()
    }

    /// The hidden states of all tokens (`[tokens, hidden]`, rows one after another), from which
    /// [`Decoder::logits`] are computed; their keys and values are in the store afterwards. The rows
    /// are sound: see [`crate::Model::forward_batch`].
    pub(crate) fn hidden_states(&self, store: &mut KvStore, rows: &[Row<'_>]) -> Vec<f32> {
        let tokens: Vec<u32> = rows.iter().flat_map(|row| row.tokens).copied().collect();
        let positions =
            rows.iter().flat_map(|row| (0..row.tokens.len()).map(|token| row.start + token));
        let places: Vec<(u32, usize)> = rows
            .iter()
            .flat_map(|row| (0..row.tokens.len()).map(|token| place(row, row.start + token)))
            .collect();
        let rope = self.weights.rope.angles(positions);
        let spans: Vec<Span<'_>> = rows
            .iter()
            .map(|row| Span { blocks: row.blocks, start: row.start, tokens: row.tokens.len() })
            .collect();
        let mut x = vec![0.0; tokens.len() * self.weights.config.hidden];
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(self.weights.config.hidden)) {
            self.weights.embeddings.row(*token as usize, x);
        }
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let normed = self.norm(&x, &layer.attention_norm);
            let attended = self.attention(&normed, layer, index, &rope, &places, &spans, store);
            pointwise::add(&mut x, &attended);
            let normed = self.norm(&x, &layer.feed_forward_norm);
            pointwise::add(&mut x, &feed_forward(&normed, layer));
        }
        x
    }

    /// The last layer's states, normed: `[tokens, hidden]`.
    pub(crate) fn normed(&self, hidden: &[f32]) -> Vec<f32> {
        self.norm(hidden, &self.weights.norm)
    }

    /// Logits (`[tokens, vocabulary]`) of hidden states (`[tokens, hidden]`).
    pub(crate) fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let normed = self.normed(hidden);
        self.weights.head.as_ref().unwrap_or(&self.weights.embeddings).forward(&normed)
    }

    #[expect(clippy::too_many_arguments, reason = "one layer's part of what a pass knows")]
    fn attention(
        &self,
        x: &[f32],
        layer: &Layer,
        index: usize,
        (cos, sin): &(Vec<f32>, Vec<f32>),
        places: &[(u32, usize)],
        spans: &[Span<'_>],
        store: &mut KvStore,
    ) -> Vec<f32> {
        let LlamaConfig { heads, kv_heads, head_dim, .. } = self.weights.config;
        let projections = [&layer.query, &layer.key, &layer.value];
        let [mut query, mut key, value] = linear::forward_all(projections, x);
        if let Some((queries, keys)) = &layer.head_norms {
            let eps = self.weights.config.norm_eps as f32;
            pointwise::rms_norm_in_place(&mut query, queries, eps);
            pointwise::rms_norm_in_place(&mut key, keys, eps);
        }
        pointwise::rotate(&mut query, heads, cos, sin, head_dim / 2);
        pointwise::rotate(&mut key, kv_heads, cos, sin, head_dim / 2);
        let width = kv_heads * head_dim;
        let written = key.chunks_exact(width).zip(value.chunks_exact(width));
        for (place, (key, value)) in places.iter().zip(written) {
            store.write(index, *place, key, value);
        }
        let heads = Heads {
            queries: heads,
            keys: kv_heads,
            dim: head_dim,
            window: self.weights.config.sliding_window.unwrap_or(usize::MAX),
        };
        layer.output.forward(&attention::attend(store, index, heads, spans, &query))
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        pointwise::rms_norm(x, weight, self.weights.config.norm_eps as f32)
    }
}

/// Block and place in it of a position.
fn place(row: &Row<'_>, position: usize) -> (u32, usize) {
    let block = row.blocks.get(position / BLOCK_TOKENS).copied().unwrap_or(u32::MAX);
    (block, position % BLOCK_TOKENS)
}

fn feed_forward(x: &[f32], layer: &Layer) -> Vec<f32> {
    let [mut gate, up] = linear::forward_all([&layer.gate, &layer.up], x);
    if gate.len() < WORTH_SHARING {
        pointwise::gated(&mut gate, &up);
    } else {
        let each = gate.len().div_ceil(rayon::current_num_threads()).max(1);
        let shares = gate.par_chunks_mut(each).zip(up.par_chunks(each));
        shares.for_each(|(gate, up)| pointwise::gated(gate, up));
    }
    layer.down.forward(&gate)
}
