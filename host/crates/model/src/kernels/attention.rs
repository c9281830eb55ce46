//! Attention of many sequences over their own blocks.
//!
//! Every query runs over the blocks it may see, in their order, and keeps the largest score so far,
//! the sum of weights and the weighted sum of values (Milakov and Gimelshein, 2018), so that no row
//! of scores is ever stored and the order of additions is the same for every way of cutting a prompt
//! up. Queries that share keys are multiplied together. Positions that were not written are not
//! read.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use rayon::prelude::*;

use super::panel::multiply;
use super::pointwise::exp;
use super::simd::{self, Kernel, LANES, Simd};
use crate::kv::{BLOCK_TOKENS, Block, KvStore};

/// Tokens of a sequence that one thread takes at a time.
const TILE: usize = 8;

/// The shape of attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    /// Key and value heads; divides `queries`.
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    /// Positions a token can look back, itself included.
    pub(crate) window: usize,
}

/// Consecutive tokens of one sequence, whose keys and values are in the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) blocks: &'a [u32],
    /// Position of the first token.
    pub(crate) start: usize,
    pub(crate) tokens: usize,
}

/// One thread's part.
struct Tile<'a> {
    /// Its first query, `[tokens, all heads]`.
    queries: &'a [f32],
    blocks: &'a [u32],
    start: usize,
    tokens: usize,
    head: usize,
    /// `[tokens, heads that share keys, dim]`.
    out: &'a mut [f32],
}

/// What every query (`[tokens, queries, dim]`, spans one after another) sees in layer `layer`, in the
/// same shape.
pub(crate) fn attend(
    store: &KvStore,
    layer: usize,
    heads: Heads,
    spans: &[Span<'_>],
    queries: &[f32],
) -> Vec<f32> {
    let (row, group) = (heads.queries * heads.dim, heads.queries / heads.keys);
    let mut parts = vec![0.0; queries.len()];
    let (mut left, mut tiles, mut first) = (parts.as_mut_slice(), Vec::new(), 0);
    for span in spans {
        for from in (0..span.tokens).step_by(TILE) {
            let tokens = TILE.min(span.tokens - from);
            let queries = &queries[(first + from) * row..(first + from + tokens) * row];
            for head in 0..heads.keys {
                let (out, rest) = left.split_at_mut(tokens * group * heads.dim);
                left = rest;
                let start = span.start + from;
                tiles.push(Tile { queries, blocks: span.blocks, start, tokens, head, out });
            }
        }
        first += span.tokens;
    }
    let run = |tile| simd::run(Run { tile, store, layer, heads });
    let seen: usize = tiles.iter().map(|tile| tile.tokens * (tile.start + tile.tokens)).sum();
    if seen * group * heads.dim < 1 << 16 {
        tiles.into_iter().for_each(run);
    } else {
        tiles.into_par_iter().for_each(run);
    }
    by_token(&parts, heads, spans)
}

/// From tiles to tokens with all heads.
fn by_token(parts: &[f32], heads: Heads, spans: &[Span<'_>]) -> Vec<f32> {
    let width = heads.queries / heads.keys * heads.dim;
    let mut out = vec![0.0; parts.len()];
    let (mut parts, mut rows) = (parts.chunks_exact(width), out.as_mut_slice());
    for span in spans {
        for from in (0..span.tokens).step_by(TILE) {
            let tokens = TILE.min(span.tokens - from);
            let (tile, rest) = rows.split_at_mut(tokens * heads.keys * width);
            rows = rest;
            for head in 0..heads.keys {
                for row in tile.chunks_exact_mut(heads.keys * width) {
                    let from = parts.next().unwrap_or_default();
                    row[head * width..(head + 1) * width].copy_from_slice(from);
                }
            }
        }
    }
    out
}

struct Run<'a> {
    tile: Tile<'a>,
    store: &'a KvStore,
    layer: usize,
    heads: Heads,
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let group = self.heads.queries / self.heads.keys;
        let rows = self.tile.tokens * group;
        let mut sums = vec![[0.0; LANES]; 6 * self.heads.dim.div_ceil(LANES)];
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                6.. => self.rows::<S, 6>(simd, row, &mut sums),
                4.. => self.rows::<S, 4>(simd, row, &mut sums),
                2.. => self.rows::<S, 2>(simd, row, &mut sums),
                _ => self.rows::<S, 1>(simd, row, &mut sums),
            };
        }
    }
}

impl Run<'_> {
    /// `R` queries from number `first` of the tile on, in the order of tokens and then heads.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        first: usize,
        sums: &mut [[f32; LANES]],
    ) -> usize {
        let Heads { queries, keys, dim, window } = self.heads;
        let (group, groups) = (queries / keys, dim.div_ceil(LANES));
        let position = |r: usize| self.tile.start + (first + r) / group;
        let query: [&[f32]; R] = std::array::from_fn(|r| {
            let (token, head) = ((first + r) / group, self.tile.head * group + (first + r) % group);
            &self.tile.queries[(token * queries + head) * dim..][..dim]
        });
        let oldest = |r: usize| (position(r) + 1).saturating_sub(window);
        let mut rows: [Row; R] = std::array::from_fn(|_| Row::default());
        let sums = &mut sums[..R * groups];
        sums.fill([0.0; LANES]);
        for block in oldest(0) / BLOCK_TOKENS..=position(R - 1) / BLOCK_TOKENS {
            let start = block * BLOCK_TOKENS;
            let number = self.tile.blocks[block];
            let Some(memory) = self.store.block(self.layer, number, self.tile.head) else {
                return R;
            };
            let mut scores = [[simd.splat(0.0)]; R];
            multiply::<S, _, R, 1>(simd, query, [memory.keys], (0, dim), &mut scores);
            let mut all = true;
            for (r, (row, scores)) in rows.iter_mut().zip(scores).enumerate() {
                row.from = oldest(r).saturating_sub(start).min(BLOCK_TOKENS);
                row.to = (position(r) + 1).saturating_sub(start).min(BLOCK_TOKENS);
                all &= row.from == 0 && row.to == BLOCK_TOKENS;
                simd.store(scores[0], &mut row.weights);
                row.weigh(simd, dim, &mut sums[r * groups..(r + 1) * groups]);
            }
            if all {
                add_values::<S, R>(simd, &rows, memory, sums);
            } else {
                for (row, sums) in rows.iter().zip(sums.chunks_exact_mut(groups)) {
                    add_values::<S, 1>(simd, std::array::from_ref(row), memory, sums);
                }
            }
        }
        for (r, (row, sums)) in rows.iter().zip(sums.chunks_exact(groups)).enumerate() {
            let out = &mut self.tile.out[(first + r) * dim..][..dim];
            for (out, sums) in out.chunks_mut(LANES).zip(sums) {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = sum / row.total;
                }
            }
        }
        R
    }
}

/// One query on its way over the blocks.
struct Row {
    /// The largest score so far.
    largest: f32,
    /// The sum of all weights so far.
    total: f32,
    /// Scores of a block, and then weights.
    weights: [f32; LANES],
    /// What it may see of the block.
    from: usize,
    to: usize,
}

impl Default for Row {
    fn default() -> Self {
        Self { largest: f32::NEG_INFINITY, total: 0.0, weights: [0.0; LANES], from: 0, to: 0 }
    }
}

impl Row {
    /// From scores of a block to weights, relative to the largest score so far.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, dim: usize, sums: &mut [[f32; LANES]]) {
        if self.from >= self.to {
            return;
        }
        let scale = 1.0 / (dim as f32).sqrt();
        for score in &mut self.weights {
            *score *= scale;
        }
        let largest = self.weights[self.from..self.to]
            .iter()
            .fold(self.largest, |largest, score| if *score > largest { *score } else { largest });
        if largest > self.largest {
            let shrink = exp(simd, self.largest - largest);
            self.total *= shrink;
            for sums in sums {
                let shrunk = simd.mul(simd.load(sums), simd.splat(shrink));
                simd.store(shrunk, sums);
            }
            self.largest = largest;
        }
        for weight in &mut self.weights {
            *weight = exp(simd, *weight - largest);
        }
        for weight in &self.weights[self.from..self.to] {
            self.total += weight;
        }
    }
}

/// Adds a block's values, as much of it as the rows may see, which is the same for all.
#[inline(always)]
fn add_values<S: Simd, const R: usize>(
    simd: S,
    rows: &[Row; R],
    memory: Block<'_>,
    sums: &mut [[f32; LANES]],
) {
    let groups = sums.len() / R;
    let seen = (rows[0].from, rows[0].to);
    let weights: [&[f32]; R] = std::array::from_fn(|r| rows[r].weights.as_slice());
    for (at, values) in memory.values.chunks_exact(BLOCK_TOKENS).enumerate() {
        let mut total = [[simd.splat(0.0)]; R];
        for (r, total) in total.iter_mut().enumerate() {
            *total = [simd.load(&sums[r * groups + at])];
        }
        multiply::<S, _, R, 1>(simd, weights, [values], seen, &mut total);
        for (r, total) in total.iter().enumerate() {
            simd.store(total[0], &mut sums[r * groups + at]);
        }
    }
}
