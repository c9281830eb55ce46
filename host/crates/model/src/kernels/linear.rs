//! Matrices of weights and their products with the activations of many tokens.
//!
//! Weights are packed when they are loaded ([`super::panel`]); the work is shared out by panels, so
//! each weight is read once for every [`BLOCK`] tokens and by one thread.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use rayon::prelude::*;

use super::panel::{Bf16, Columns, F16, multiply, unpack};
use super::products;
use super::quantised::Quantised;
use super::rounded::Rounded;
use super::simd::{self, Kernel, LANES, Lanes, Simd};

/// Columns that are multiplied before the next rows' turn: what stays in the first-level cache.
const CHUNK: usize = 256;

/// Tokens whose activations stay in the second-level cache.
const BLOCK: usize = 96;

/// Multiplications below which threads cost more than they save.
const WORTH_SHARING: usize = 1 << 17;

/// Shares of each thread: the more, the less one that is held up holds up the others.
const SHARES: usize = 4;

/// A matrix of `outputs` rows and `inputs` columns, and what is added to its products.
#[derive(Debug)]
pub(crate) struct Linear {
    inputs: usize,
    outputs: usize,
    weights: Weights,
    bias: Option<Vec<f32>>,
}

/// All panels, one after another; rows that fill up the last one are 0.
#[derive(Debug)]
pub(crate) enum Weights {
    F32(Vec<Lanes>),
    F16(Vec<[u16; LANES]>),
    Bf16(Vec<[u16; LANES]>),
    Quantised(Quantised),
}

impl Linear {
    /// From weights that were packed for this shape.
    pub(crate) fn new(inputs: usize, outputs: usize, weights: Weights) -> Self {
        Self { inputs, outputs, weights, bias: None }
    }

    /// Adds `bias`, one number per output, to every product.
    pub(crate) fn with_bias(mut self, bias: Vec<f32>) -> Self {
        debug_assert_eq!(bias.len(), self.outputs);
        self.bias = Some(bias);
        self
    }

    /// Bytes that the weights take.
    pub(crate) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::F32(all) => size_of_val(all.as_slice()),
            Weights::F16(all) | Weights::Bf16(all) => size_of_val(all.as_slice()),
            Weights::Quantised(all) => all.bytes(),
        }
    }

    /// Row `row` as floats: an embedding.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        let (number, lane) = (row / LANES, row % LANES);
        let panel = (number * self.inputs, (number + 1) * self.inputs);
        match &self.weights {
            Weights::F32(all) => pick(&all[panel.0..panel.1], lane, to),
            Weights::F16(all) => pick(F16(&all[panel.0..panel.1]), lane, to),
            Weights::Bf16(all) => pick(Bf16(&all[panel.0..panel.1]), lane, to),
            Weights::Quantised(all) => all.row(row, to),
        }
    }

    /// The products of each row of `x` (`[tokens, inputs]`) with the matrix, `[tokens, outputs]`.
    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let [out] = forward_all([self], x);
        out
    }

    /// The products of all rows with the panels from `first` on, `[panels, tokens]`.
    fn share(&self, x: &Rows<'_>, first: usize, sums: &mut [[f32; LANES]]) {
        let (n, tokens) = (self.inputs, x.tokens);
        match &self.weights {
            Weights::F32(all) => {
                let panel = |panel| &all[panel * n..(panel + 1) * n];
                simd::run(Share { x: x.floats, inputs: n, tokens, panel: &panel, first, sums });
            }
            Weights::F16(all) => {
                let panel = |panel| F16(&all[panel * n..(panel + 1) * n]);
                simd::run(Share { x: x.floats, inputs: n, tokens, panel: &panel, first, sums });
            }
            Weights::Bf16(all) => {
                let panel = |panel| Bf16(&all[panel * n..(panel + 1) * n]);
                simd::run(Share { x: x.floats, inputs: n, tokens, panel: &panel, first, sums });
            }
            Weights::Quantised(weights) => {
                if let Some(x) = &x.rounded {
                    simd::run(products::Share { x, weights, inputs: n, first, sums });
                }
            }
        }
    }

    /// From panels of all tokens to tokens with all outputs, from token `first` on.
    fn by_token(&self, sums: &[[f32; LANES]], first: usize, out: &mut [f32]) {
        let tokens = sums.len() / self.outputs.div_ceil(LANES);
        for (token, out) in out.chunks_exact_mut(self.outputs).enumerate() {
            for (panel, out) in out.chunks_mut(LANES).enumerate() {
                out.copy_from_slice(&sums[panel * tokens + first + token][..out.len()]);
            }
            if let Some(bias) = &self.bias {
                out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
            }
        }
    }
}

/// The products of each row of `x` with each of the matrices, which have as many inputs: threads part
/// and meet once for all.
pub(crate) fn forward_all<const N: usize>(all: [&Linear; N], x: &[f32]) -> [Vec<f32>; N] {
    let inputs = all.first().map_or(1, |linear| linear.inputs);
    debug_assert!(all.iter().all(|linear| linear.inputs == inputs));
    let quantised = all.iter().any(|linear| matches!(linear.weights, Weights::Quantised(_)));
    let rounded = quantised.then(|| Rounded::new(x, inputs));
    let rows = Rows { floats: x, rounded, tokens: x.len() / inputs };
    let mut sums = all.map(|l| vec![[0.0; LANES]; l.outputs.div_ceil(LANES) * rows.tokens]);
    let mut out = all.map(|linear| vec![0.0; rows.tokens * linear.outputs]);
    let panels: usize = all.iter().map(|linear| linear.outputs.div_ceil(LANES)).sum();
    let threads = rayon::current_num_threads();
    if threads == 1 || rows.tokens * inputs * panels * LANES < WORTH_SHARING {
        for ((linear, sums), out) in all.into_iter().zip(&mut sums).zip(&mut out) {
            linear.share(&rows, 0, sums);
            linear.by_token(sums, 0, out);
        }
        return out;
    }
    // A multiple of the panels that one token is multiplied with at once.
    let each = panels.div_ceil(threads * SHARES).next_multiple_of(4);
    let shares = all.into_iter().zip(&mut sums).flat_map(|(linear, sums)| {
        let shares = sums.chunks_mut((each * rows.tokens).max(1)).enumerate();
        shares.map(move |(at, sums)| (linear, at * each, sums))
    });
    let shares: Vec<_> = shares.collect();
    shares.into_par_iter().for_each(|(linear, first, sums)| linear.share(&rows, first, sums));
    let tokens = rows.tokens.div_ceil(threads);
    for ((linear, sums), out) in all.into_iter().zip(&sums).zip(&mut out) {
        if out.len() < WORTH_SHARING {
            linear.by_token(sums, 0, out);
            continue;
        }
        let shares = out.par_chunks_mut((tokens * linear.outputs).max(1)).enumerate();
        shares.for_each(|(at, out)| linear.by_token(sums, at * tokens, out));
    }
    out
}

/// What is multiplied, and the same rounded if there are weights that want it.
struct Rows<'a> {
    floats: &'a [f32],
    rounded: Option<Rounded>,
    tokens: usize,
}

/// One lane of a panel.
fn pick<C: Columns>(panel: C, lane: usize, to: &mut [f32]) {
    struct Pick<'a, C>(C, usize, &'a mut [f32]);
    impl<C: Columns> Kernel for Pick<'_, C> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let mut floats = [Lanes::ZERO; CHUNK];
            for (chunk, to) in self.2.chunks_mut(CHUNK).enumerate() {
                let floats = &mut floats[..to.len()];
                unpack(simd, self.0, chunk * CHUNK, floats);
                to.iter_mut().zip(floats).for_each(|(to, column)| *to = column.0[self.1]);
            }
        }
    }
    simd::run(Pick(panel, lane, to));
}

/// Some panels and all tokens.
struct Share<'a, P> {
    x: &'a [f32],
    inputs: usize,
    tokens: usize,
    panel: &'a P,
    /// The first panel of `sums`.
    first: usize,
    /// `[panels, tokens]`.
    sums: &'a mut [[f32; LANES]],
}

impl<C: Columns, P: Fn(usize) -> C> Kernel for Share<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // As many sums as fit into the registers, since a sum has to wait for the one before.
        match self.tokens {
            1 => self.few::<S, 1, 4>(simd),
            2 => self.few::<S, 2, 2>(simd),
            _ => self.many(simd),
        }
    }
}

impl<C: Columns, P: Fn(usize) -> C> Share<'_, P> {
    /// `R` tokens, `N` panels at a time: weights become floats in registers.
    #[inline(always)]
    fn few<S: Simd, const R: usize, const N: usize>(self, simd: S) {
        let mut rows = self.x.chunks_exact(self.inputs);
        let x: [&[f32]; R] = std::array::from_fn(|_| rows.next().unwrap_or_default());
        let all = (0, self.inputs);
        let mut panel = self.first;
        for sums in self.sums.chunks_mut(R * N) {
            if sums.len() == R * N {
                let panels = std::array::from_fn(|at| (self.panel)(panel + at));
                let mut total = [[simd.splat(0.0); N]; R];
                multiply::<S, C, R, N>(simd, x, panels, all, &mut total);
                for (at, to) in sums.iter_mut().enumerate() {
                    simd.store(total[at % R][at / R], to);
                }
                panel += N;
                continue;
            }
            for sums in sums.chunks_exact_mut(R) {
                let mut total = [[simd.splat(0.0)]; R];
                multiply::<S, C, R, 1>(simd, x, [(self.panel)(panel)], all, &mut total);
                for (total, to) in total.iter().zip(sums) {
                    simd.store(total[0], to);
                }
                panel += 1;
            }
        }
    }

    /// Several tokens: a piece of a panel becomes floats, and then all tokens use it.
    #[inline(always)]
    fn many<S: Simd>(self, simd: S) {
        let Self { x, inputs, tokens, panel, first, sums } = self;
        let mut floats = [Lanes::ZERO; CHUNK];
        for block in (0..tokens).step_by(BLOCK) {
            let block = block..tokens.min(block + BLOCK);
            for (at, sums) in sums.chunks_exact_mut(tokens).enumerate() {
                let (columns, sums) = (panel(first + at), &mut sums[block.clone()]);
                let x = &x[block.start * inputs..block.end * inputs];
                for from in (0..inputs).step_by(CHUNK) {
                    let count = CHUNK.min(inputs - from);
                    let floats = match columns.floats(from, count) {
                        Some(floats) => floats,
                        None => {
                            let floats = &mut floats[..count];
                            unpack(simd, columns, from, floats);
                            floats
                        }
                    };
                    // By itself, so that it is compiled once and not for every packing.
                    simd::run(Columnwise { x, inputs, from, columns: floats, sums });
                }
            }
        }
    }
}

/// Adds the products of some columns, from `from` on, to the sums of all rows of `x`.
struct Columnwise<'a> {
    x: &'a [f32],
    inputs: usize,
    from: usize,
    columns: &'a [Lanes],
    sums: &'a mut [[f32; LANES]],
}

impl Kernel for Columnwise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, inputs, from, columns, sums } = self;
        let mut x = x.chunks_exact(inputs).map(|row| &row[from..]);
        let mut next = || x.next().unwrap_or_default();
        let (sixes, rest) = sums.as_chunks_mut::<6>();
        for sums in sixes {
            tile::<S, 6>(simd, std::array::from_fn(|_| next()), columns, sums);
        }
        let (fours, rest) = rest.as_chunks_mut::<4>();
        for sums in fours {
            tile::<S, 4>(simd, std::array::from_fn(|_| next()), columns, sums);
        }
        let (twos, rest) = rest.as_chunks_mut::<2>();
        for sums in twos {
            tile::<S, 2>(simd, std::array::from_fn(|_| next()), columns, sums);
        }
        for sums in rest {
            tile::<S, 1>(simd, [next()], columns, std::array::from_mut(sums));
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    x: [&[f32]; R],
    columns: &[Lanes],
    sums: &mut [[f32; LANES]; R],
) {
    let mut total = [[simd.splat(0.0)]; R];
    for (total, sums) in total.iter_mut().zip(&*sums) {
        *total = [simd.load(sums)];
    }
    multiply::<S, &[Lanes], R, 1>(simd, x, [columns], (0, columns.len()), &mut total);
    for (total, to) in total.iter().zip(sums) {
        simd.store(total[0], to);
    }
}
