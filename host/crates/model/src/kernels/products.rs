//! Products of rounded activations with quantised weights.
//!
//! The products of a group of columns are added up as whole numbers, without loss whatever the order,
//! and become a float once: so few rows take the weights as they lie in memory, many a piece of them
//! that was unpacked into the first-level cache, and both get the same bits. Floats are added up group
//! by group in the order of the columns.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use super::quantised::{Line, Quantised};
use super::rounded::{self, CHUNK, Rounded, Tile};
use super::simd::{Kernel, LANES, Lanes, Simd};

/// Groups in a chunk of columns, at most.
const GROUPS: usize = CHUNK / 16;

/// Rows that are multiplied with an unpacked piece of all panels before the next rows' turn: what
/// stays in the second-level cache.
/// A multiple of six, the rows of a tile.
const BLOCK: usize = 96;

/// Rows below which weights are unpacked in registers.
const FEW: usize = 3;

/// Numbers of two columns, `[LANES, 2]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Pairs(pub(crate) [i16; 2 * LANES]);

/// Some panels and all rows.
pub(crate) struct Share<'a> {
    pub(crate) x: &'a Rounded,
    pub(crate) weights: &'a Quantised,
    pub(crate) inputs: usize,
    /// The first panel of `sums`.
    pub(crate) first: usize,
    /// `[panels, rows]`; zeros.
    pub(crate) sums: &'a mut [[f32; LANES]],
}

impl Kernel for Share<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, weights, inputs, first, sums } = self;
        let rows = x.rows();
        let packing = weights.packing();
        let group = packing.group();
        let mut unpacked = [Pairs([0; 2 * LANES]); CHUNK / 2];
        let (mut scales, mut offsets) = ([Lanes::ZERO; GROUPS], [Lanes::ZERO; GROUPS]);
        for block in (0..rows).step_by(BLOCK) {
            let block = block..rows.min(block + BLOCK);
            for (at, sums) in sums.chunks_exact_mut(rows).enumerate() {
                let (panel, sums) = (first + at, &mut sums[block.clone()]);
                for from in (0..inputs).step_by(CHUNK) {
                    let count = CHUNK.min(inputs - from);
                    let scales = &mut scales[..count / group];
                    weights.scales(simd, panel, from / group, scales);
                    let offsets = match packing.has_offsets() || packing.has_middle() {
                        true => &mut offsets[..count / group],
                        false => &mut [],
                    };
                    weights.offsets(simd, panel, from / group, offsets);
                    let codes = weights.codes(panel, from, count);
                    let piece = Piece { eights: group / 8, from, scales, offsets };
                    let rows = (x, block.start);
                    match (sums.len() < FEW, packing.has_nibbles()) {
                        (true, true) => piece.few(simd, rows, Nibbles(codes), sums),
                        (true, false) => piece.few(simd, rows, Bytes(codes), sums),
                        (false, nibbles) => {
                            let unpacked = &mut unpacked[..count / 2];
                            match nibbles {
                                true => unpack(simd, Nibbles(codes), unpacked),
                                false => unpack(simd, Bytes(codes), unpacked),
                            }
                            piece.many(simd, rows, Unpacked(unpacked), sums);
                        }
                    }
                }
            }
        }
    }
}

/// Weights by eight columns.
trait Codes: Copy {
    /// Some of it: `count` times eight columns.
    fn part(self, from: usize, count: usize) -> Self;

    /// Columns `at * 8` to `at * 8 + 7`, two by two.
    fn eight<S: Simd>(self, simd: S, at: usize) -> [S::P; 4];
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [Line]);

impl Codes for Bytes<'_> {
    #[inline(always)]
    fn part(self, from: usize, count: usize) -> Self {
        Self(&self.0[from * 2..from * 2 + count * 2])
    }

    #[inline(always)]
    fn eight<S: Simd>(self, simd: S, at: usize) -> [S::P; 4] {
        let (first, second) = (&self.0[at * 2].0, &self.0[at * 2 + 1].0);
        let (first, second) = (first.as_chunks().0, second.as_chunks().0);
        [
            simd.pairs_of_bytes(&first[0]),
            simd.pairs_of_bytes(&first[1]),
            simd.pairs_of_bytes(&second[0]),
            simd.pairs_of_bytes(&second[1]),
        ]
    }
}

#[derive(Clone, Copy)]
struct Nibbles<'a>(&'a [Line]);

impl Codes for Nibbles<'_> {
    #[inline(always)]
    fn part(self, from: usize, count: usize) -> Self {
        Self(&self.0[from..from + count])
    }

    #[inline(always)]
    fn eight<S: Simd>(self, simd: S, at: usize) -> [S::P; 4] {
        simd.pairs_of_nibbles(&self.0[at].0)
    }
}

#[derive(Clone, Copy)]
struct Unpacked<'a>(&'a [Pairs]);

impl Codes for Unpacked<'_> {
    #[inline(always)]
    fn part(self, from: usize, count: usize) -> Self {
        Self(&self.0[from * 4..from * 4 + count * 4])
    }

    #[inline(always)]
    fn eight<S: Simd>(self, simd: S, at: usize) -> [S::P; 4] {
        let four = &self.0[at * 4..at * 4 + 4];
        [
            simd.load_pairs(&four[0].0),
            simd.load_pairs(&four[1].0),
            simd.load_pairs(&four[2].0),
            simd.load_pairs(&four[3].0),
        ]
    }
}

#[inline(always)]
fn unpack<S: Simd, C: Codes>(simd: S, codes: C, to: &mut [Pairs]) {
    for (at, to) in to.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [first, second, third, fourth] = codes.eight(simd, at);
        simd.store_pairs(first, &mut to[0].0);
        simd.store_pairs(second, &mut to[1].0);
        simd.store_pairs(third, &mut to[2].0);
        simd.store_pairs(fourth, &mut to[3].0);
    }
}

/// Columns of a panel from `from` on, but for the weights themselves.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// Eights of columns in a group.
    eights: usize,
    from: usize,
    scales: &'a [Lanes],
    /// Empty where a packing has none.
    offsets: &'a [Lanes],
}

impl Piece<'_> {
    #[inline(always)]
    fn few<S: Simd, C: Codes>(
        self,
        simd: S,
        (x, first): (&Rounded, usize),
        codes: C,
        sums: &mut [[f32; LANES]],
    ) {
        for (at, sums) in sums.iter_mut().enumerate() {
            self.add::<S, C, 1>(
                simd,
                x.tile(first + at, self.from),
                codes,
                std::array::from_mut(sums),
            );
        }
    }

    #[inline(always)]
    fn many<S: Simd>(
        self,
        simd: S,
        (x, first): (&Rounded, usize),
        codes: Unpacked<'_>,
        sums: &mut [[f32; LANES]],
    ) {
        let mut row = 0;
        while row < sums.len() {
            let (at, left) = (first + row, &mut sums[row..]);
            let rows = x.rows_of_tile(at);
            match rows {
                6 => self.add::<S, _, 6>(simd, x.tile(at, self.from), codes, array(left)),
                4 => self.add::<S, _, 4>(simd, x.tile(at, self.from), codes, array(left)),
                _ => self.add::<S, _, 1>(simd, x.tile(at, self.from), codes, array(left)),
            }
            row += rows;
        }
    }

    /// Adds the products of `R` rows.
    #[inline(always)]
    fn add<S: Simd, C: Codes, const R: usize>(
        self,
        simd: S,
        x: Tile<'_, R>,
        codes: C,
        sums: &mut [[f32; LANES]; R],
    ) {
        let (eights, units) = (self.eights, self.eights * 8);
        for (group, scale) in self.scales.iter().enumerate() {
            let start = group * units;
            let pairs = &x.pairs[start / 2..start / 2 + eights * 4];
            let pairs = &pairs.as_chunks::<4>().0[..eights];
            let codes = codes.part(group * eights, eights);
            let mut whole = [simd.whole(0); R];
            for (eight, x) in pairs.iter().enumerate() {
                let weights = codes.eight(simd, eight);
                for (weights, x) in weights.iter().zip(x) {
                    for (whole, x) in whole.iter_mut().zip(x) {
                        *whole = simd.add_products(*weights, *x, *whole);
                    }
                }
            }
            let scale = simd.load(&scale.0);
            let offset = self.offsets.get(group).map(|offset| simd.load(&offset.0));
            let units = &x.units[start / rounded::GROUP];
            for ((whole, unit), sum) in whole.iter().zip(units).zip(&mut *sums) {
                let products = simd.mul(simd.of_whole(*whole), simd.splat(unit.scale));
                let mut total = simd.mul_add(products, scale, simd.load(sum));
                if let Some(offset) = offset {
                    total = simd.mul_add(simd.splat(unit.sum), offset, total);
                }
                simd.store(total, sum);
            }
        }
    }
}

/// The first `R` of sums that are as many as a tile has rows: blocks end where tiles do.
#[inline(always)]
fn array<const R: usize>(sums: &mut [[f32; LANES]]) -> &mut [[f32; LANES]; R] {
    &mut sums.as_chunks_mut().0[0]
}
