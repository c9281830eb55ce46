//! GGUF's quantised weights in panels: whole numbers with a scale for each group of columns.
//!
//! The numbers are the file's, so a weight is what the file says, but they lie as the kernels read
//! them: sixteen rows side by side, two columns of a row next to each other, since that is what one
//! instruction multiplies and adds. What is spread over several places in a file (the fifth bit of
//! Q5_K, the upper two of Q6_K) is together here: Q5_K and Q6_K take a byte for each weight.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use rayon::prelude::*;

use super::block::{Block, Packing};
use super::simd::{LANES, Lanes, Simd, f16_to_f32};

/// Weights of several columns of a panel: 64 bytes, never across a cache line.
///
/// Bytes: four columns, the first two before the others, `[2, LANES, 2]`. Four bits each: eight
/// columns, `[LANES, 2]` numbers of sixteen bits, in each of which the lowest four bits are of the
/// first two columns, the next four of the next two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// A packed matrix; what a packing has no use for is empty.
#[derive(Debug)]
pub(crate) struct Quantised {
    packing: Packing,
    inputs: usize,
    codes: Vec<Line>,
    /// Scales in half precision, of each block.
    scales: Vec<[u16; LANES]>,
    /// What is subtracted, likewise: Q4_K, Q5_K.
    offsets: Vec<[u16; LANES]>,
    /// What the scale is multiplied with, of each group: the K types.
    group_scales: Vec<[i8; LANES]>,
    /// What the offset is multiplied with, likewise.
    group_offsets: Vec<[i8; LANES]>,
}

impl Quantised {
    /// Packs `outputs` rows of `inputs` weights, a multiple of the packing's block; `row` gives the
    /// bytes of one. `None` if a scale is no number, or a row is shorter than that.
    pub(crate) fn pack<'a>(
        packing: Packing,
        inputs: usize,
        outputs: usize,
        row: impl Fn(usize) -> Option<&'a [u8]> + Sync,
    ) -> Option<Self> {
        let panels = outputs.div_ceil(LANES);
        let (blocks, groups) = (inputs / packing.block(), inputs / packing.group());
        let lines = inputs / packing.line();
        let sized = |wanted: bool, each: usize| if wanted { panels * each } else { 0 };
        let (k, offsets) = (packing.has_group_scales(), packing.has_offsets());
        let mut packed = Self {
            packing,
            inputs,
            codes: vec![Line([0; 64]); panels * lines],
            scales: vec![[0; LANES]; sized(true, blocks)],
            offsets: vec![[0; LANES]; sized(offsets, blocks)],
            group_scales: vec![[0; LANES]; sized(k, groups)],
            group_offsets: vec![[0; LANES]; sized(offsets, groups)],
        };
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(panels);
        let mut codes = packed.codes.chunks_mut(lines.max(1));
        let mut scales = packed.scales.chunks_mut(blocks.max(1));
        let mut minimums = packed.offsets.chunks_mut(blocks.max(1));
        let mut group_scales = packed.group_scales.chunks_mut(groups.max(1));
        let mut group_offsets = packed.group_offsets.chunks_mut(groups.max(1));
        for panel in 0..panels {
            parts.push(Part {
                rows: panel * LANES..outputs.min((panel + 1) * LANES),
                codes: codes.next().unwrap_or_default(),
                scales: scales.next().unwrap_or_default(),
                offsets: minimums.next().unwrap_or_default(),
                group_scales: group_scales.next().unwrap_or_default(),
                group_offsets: group_offsets.next().unwrap_or_default(),
            });
        }
        let done = parts.into_par_iter().map(|part| part.fill(packing, blocks, &row));
        done.collect::<Option<Vec<()>>>()?;
        Some(packed)
    }

    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.codes.as_slice())
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.offsets.as_slice())
            + size_of_val(self.group_scales.as_slice())
            + size_of_val(self.group_offsets.as_slice())
    }

    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// The numbers of some columns of a panel, whole lines.
    pub(crate) fn codes(&self, panel: usize, from: usize, count: usize) -> &[Line] {
        let line = self.packing.line();
        &self.codes[(panel * self.inputs + from) / line..][..count / line]
    }

    /// The scales of some groups of a panel, from group `first` on, as many as `to` has room for.
    #[inline(always)]
    pub(crate) fn scales<S: Simd>(&self, simd: S, panel: usize, first: usize, to: &mut [Lanes]) {
        let whole = simd.splat(1.0);
        self.units(simd, panel, first, (&self.scales, &self.group_scales, whole), to);
    }

    /// What is added to a weight of each of the groups, likewise; nothing where a packing has no
    /// such thing.
    #[inline(always)]
    pub(crate) fn offsets<S: Simd>(&self, simd: S, panel: usize, first: usize, to: &mut [Lanes]) {
        if self.packing == Packing::Q4_0 {
            self.units(simd, panel, first, (&self.scales, &[], simd.splat(-8.0)), to);
        } else {
            let less = simd.splat(-1.0);
            self.units(simd, panel, first, (&self.offsets, &self.group_offsets, less), to);
        }
    }

    /// Each group's unit: what its block has, what it has itself if it has something, and a factor.
    #[inline(always)]
    fn units<S: Simd>(
        &self,
        simd: S,
        panel: usize,
        first: usize,
        (blocks, groups, factor): (&[[u16; LANES]], &[[i8; LANES]], S::F),
        to: &mut [Lanes],
    ) {
        if to.is_empty() {
            return;
        }
        let group = self.packing.group();
        let each = self.packing.block() / group;
        let blocks = &blocks[panel * (self.inputs / self.packing.block()) + first / each..];
        let parts = to.chunks_mut(each).zip(blocks).enumerate();
        for (at, (to, block)) in parts {
            let unit = simd.mul(simd.of_f16(block), factor);
            if groups.is_empty() {
                to.iter_mut().for_each(|to| simd.store(unit, &mut to.0));
                continue;
            }
            let from = panel * (self.inputs / group) + first + at * each;
            for (to, own) in to.iter_mut().zip(&groups[from..]) {
                simd.store(simd.mul(simd.of_i8(own), unit), &mut to.0);
            }
        }
    }

    /// Row `row` as floats.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        let (panel, lane) = (row / LANES, row % LANES);
        let (block, group) = (self.packing.block(), self.packing.group());
        for (column, to) in to.iter_mut().enumerate() {
            let at = panel * (self.inputs / block) + column / block;
            let own = panel * (self.inputs / group) + column / group;
            let times = |units: &[[i8; LANES]]| units.get(own).map_or(1.0, |u| f32::from(u[lane]));
            let line = &self.codes(panel, column / block * block, block)
                [column % block / self.packing.line()];
            let (byte, shift) = self.packing.place(lane, column % self.packing.line());
            let code = match self.packing.has_nibbles() {
                true => f32::from(line.0[byte] >> shift & 15),
                false => f32::from(line.0[byte].cast_signed()),
            };
            let scale = f16_to_f32(self.scales[at][lane]) * times(&self.group_scales);
            let offset = match self.packing {
                Packing::Q4_0 => -8.0 * scale,
                Packing::Q4K | Packing::Q5K => {
                    -f16_to_f32(self.offsets[at][lane]) * times(&self.group_offsets)
                }
                Packing::Q8_0 | Packing::Q6K => 0.0,
            };
            *to = code * scale + offset;
        }
    }
}

impl Packing {
    /// Columns in a [`Line`].
    pub(crate) fn line(self) -> usize {
        if self.has_nibbles() { 8 } else { 4 }
    }

    /// Where in a line the number of row `lane` and column `column` of the line is: the byte, and
    /// where in it.
    fn place(self, lane: usize, column: usize) -> (usize, u32) {
        let (pair, odd) = (column / 2, column % 2);
        match self.has_nibbles() {
            true => ((lane * 2 + odd) * 2 + pair / 2, if pair % 2 == 0 { 0 } else { 4 }),
            false => (pair * 2 * LANES + lane * 2 + odd, 0),
        }
    }
}

/// What one panel is made of.
struct Part<'a> {
    rows: std::ops::Range<usize>,
    codes: &'a mut [Line],
    scales: &'a mut [[u16; LANES]],
    offsets: &'a mut [[u16; LANES]],
    group_scales: &'a mut [[i8; LANES]],
    group_offsets: &'a mut [[i8; LANES]],
}

impl Part<'_> {
    fn fill<'r>(
        self,
        packing: Packing,
        blocks: usize,
        row: &impl Fn(usize) -> Option<&'r [u8]>,
    ) -> Option<()> {
        let (size, groups) = (packing.block(), packing.block() / packing.group());
        for (lane, number) in self.rows.enumerate() {
            let bytes = row(number)?.get(..blocks * packing.bytes())?;
            for (at, bytes) in bytes.chunks_exact(packing.bytes()).enumerate() {
                let block = Block::take_apart(packing, bytes);
                if !is_finite(block.scale) || !is_finite(block.offset) {
                    return None;
                }
                self.scales[at][lane] = block.scale;
                if packing.has_offsets() {
                    self.offsets[at][lane] = block.offset;
                }
                for group in 0..groups {
                    if packing.has_group_scales() {
                        self.group_scales[at * groups + group][lane] = block.group_scales[group];
                    }
                    if packing.has_offsets() {
                        self.group_offsets[at * groups + group][lane] = block.group_offsets[group];
                    }
                }
                for (column, code) in block.codes[..size].iter().enumerate() {
                    let column = at * size + column;
                    let (byte, shift) = packing.place(lane, column % packing.line());
                    self.codes[column / packing.line()].0[byte] |= code.cast_unsigned() << shift;
                }
            }
        }
        Some(())
    }
}

/// The kernels take no other scales.
fn is_finite(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}
