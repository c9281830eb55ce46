//! GGUF's quantised weights in panels: whole numbers with a scale for each group of columns.
//!
//! The bits are GGUF's, so a weight is the number that the file says, but they lie as the kernels read
//! them, and what is spread over several places there (the fifth bit of Q5_K, the upper two of Q6_K)
//! is together here: Q5_K and Q6_K take a byte for each weight.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use rayon::prelude::*;

use super::panel::Columns;
use super::simd::{LANES, Simd};

/// Weights that share GGUF's largest unit, in all types that have one.
const SUPER: usize = 256;

/// How weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Q4_0,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// A packed matrix; what a packing has no use for is empty.
#[derive(Debug)]
pub(crate) struct Quantised {
    packing: Packing,
    inputs: usize,
    /// One column in each: Q8_0, Q5_K, Q6_K.
    bytes: Vec<[i8; LANES]>,
    /// Two columns in each, the even one in the lower four bits: Q4_0, Q4_K.
    nibbles: Vec<[u8; LANES]>,
    /// Scales in half precision, of each block.
    scales: Vec<[u16; LANES]>,
    /// What is subtracted, likewise: Q4_K, Q5_K.
    offsets: Vec<[u16; LANES]>,
    /// What the scale is multiplied with, of each group: the K types.
    group_scales: Vec<[i8; LANES]>,
    /// What the offset is multiplied with, likewise.
    group_offsets: Vec<[i8; LANES]>,
}

/// A block of one row, taken apart.
struct Block {
    codes: [i8; SUPER],
    scale: u16,
    offset: u16,
    group_scales: [i8; 16],
    group_offsets: [i8; 16],
}

impl Packing {
    /// Weights in a block of GGUF.
    pub(crate) fn block(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => SUPER,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Weights that share a scale.
    fn group(self) -> usize {
        if self == Self::Q6K { 16 } else { 32 }
    }

    fn has_nibbles(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q4K)
    }

    fn has_group_scales(self) -> bool {
        matches!(self, Self::Q4K | Self::Q5K | Self::Q6K)
    }

    fn has_offsets(self) -> bool {
        matches!(self, Self::Q4K | Self::Q5K)
    }
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
        let sized = |wanted: bool, each: usize| if wanted { panels * each } else { 0 };
        let (k, offsets, nibbles) =
            (packing.has_group_scales(), packing.has_offsets(), packing.has_nibbles());
        let mut packed = Self {
            packing,
            inputs,
            bytes: vec![[0; LANES]; sized(!nibbles, inputs)],
            nibbles: vec![[0; LANES]; sized(nibbles, inputs / 2)],
            scales: vec![[0; LANES]; sized(true, blocks)],
            offsets: vec![[0; LANES]; sized(offsets, blocks)],
            group_scales: vec![[0; LANES]; sized(k, groups)],
            group_offsets: vec![[0; LANES]; sized(offsets, groups)],
        };
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(panels);
        let mut bytes = packed.bytes.chunks_mut(inputs.max(1));
        let mut halves = packed.nibbles.chunks_mut((inputs / 2).max(1));
        let mut scales = packed.scales.chunks_mut(blocks.max(1));
        let mut minimums = packed.offsets.chunks_mut(blocks.max(1));
        let mut group_scales = packed.group_scales.chunks_mut(groups.max(1));
        let mut group_offsets = packed.group_offsets.chunks_mut(groups.max(1));
        for panel in 0..panels {
            parts.push(Part {
                rows: panel * LANES..outputs.min((panel + 1) * LANES),
                bytes: bytes.next().unwrap_or_default(),
                nibbles: halves.next().unwrap_or_default(),
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
}

/// What one panel is made of.
struct Part<'a> {
    rows: std::ops::Range<usize>,
    bytes: &'a mut [[i8; LANES]],
    nibbles: &'a mut [[u8; LANES]],
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
                    if packing.has_nibbles() {
                        let shift = if column % 2 == 0 { 0 } else { 4 };
                        self.nibbles[column / 2][lane] |= code.cast_unsigned() << shift;
                    } else {
                        self.bytes[column][lane] = *code;
                    }
                }
            }
        }
        Some(())
    }
}

impl Block {
    /// As ggml lays it out (`ggml-common.h`); `bytes` are a whole block.
    fn take_apart(packing: Packing, bytes: &[u8]) -> Self {
        let mut block = Self {
            codes: [0; SUPER],
            scale: 0,
            offset: 0,
            group_scales: [0; 16],
            group_offsets: [0; 16],
        };
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        match packing {
            Packing::Q8_0 => {
                block.scale = half(0);
                for (code, byte) in block.codes.iter_mut().zip(&bytes[2..]) {
                    *code = byte.cast_signed();
                }
            }
            Packing::Q4_0 => {
                block.scale = half(0);
                for (at, byte) in bytes[2..].iter().enumerate() {
                    block.codes[at] = (byte & 15).cast_signed();
                    block.codes[at + 16] = (byte >> 4).cast_signed();
                }
            }
            Packing::Q4K | Packing::Q5K => {
                (block.scale, block.offset) = (half(0), half(2));
                block.six_bits(&bytes[4..16]);
                let low = &bytes[packing.bytes() - 128..];
                for (at, code) in block.codes.iter_mut().enumerate() {
                    let byte = low[at / 64 * 32 + at % 32];
                    let nibble = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
                    let fifth = match packing {
                        Packing::Q5K => bytes[16 + at % 32] >> (at / 32) & 1,
                        _ => 0,
                    };
                    *code = (nibble | fifth << 4).cast_signed();
                }
            }
            Packing::Q6K => {
                block.scale = half(208);
                for (scale, byte) in block.group_scales.iter_mut().zip(&bytes[192..208]) {
                    *scale = byte.cast_signed();
                }
                for (at, code) in block.codes.iter_mut().enumerate() {
                    let (half, at) = (at / 128, at % 128);
                    let low = bytes[half * 64 + at % 64] >> (at / 64 * 4) & 15;
                    let high = bytes[128 + half * 32 + at % 32] >> (at / 32 * 2) & 3;
                    *code = (low | high << 4).cast_signed() - 32;
                }
            }
        }
        block
    }

    /// Eight scales and eight offsets of six bits in twelve bytes.
    fn six_bits(&mut self, bytes: &[u8]) {
        for group in 0..8 {
            let (scale, offset) = if group < 4 {
                (bytes[group] & 63, bytes[group + 4] & 63)
            } else {
                let byte = bytes[group + 4];
                let (upper_scale, upper_offset) = (bytes[group - 4] >> 6, bytes[group] >> 6);
                (byte & 15 | upper_scale << 4, byte >> 4 | upper_offset << 4)
            };
            self.group_scales[group] = scale.cast_signed();
            self.group_offsets[group] = offset.cast_signed();
        }
    }
}

/// The kernels take no other scales.
fn is_finite(half: u16) -> bool {
    half & 0x7c00 != 0x7c00
}

/// Q8_0: a number is a byte times a scale.
#[derive(Clone, Copy)]
pub(crate) struct Q8<'a> {
    bytes: &'a [[i8; LANES]],
    scales: &'a [[u16; LANES]],
}

/// Q4_0: a number is four bits, less 8, times a scale.
#[derive(Clone, Copy)]
pub(crate) struct Q4<'a> {
    nibbles: &'a [[u8; LANES]],
    scales: &'a [[u16; LANES]],
}

/// Scales and offsets of the K types.
#[derive(Clone, Copy)]
struct Groups<'a> {
    scales: &'a [[u16; LANES]],
    offsets: &'a [[u16; LANES]],
    group_scales: &'a [[i8; LANES]],
    group_offsets: &'a [[i8; LANES]],
}

/// Q4_K: four bits times a scale, less an offset.
#[derive(Clone, Copy)]
pub(crate) struct Q4K<'a>(&'a [[u8; LANES]], Groups<'a>);

/// Q5_K: likewise, of five bits.
#[derive(Clone, Copy)]
pub(crate) struct Q5K<'a>(&'a [[i8; LANES]], Groups<'a>);

/// Q6_K: a byte times a scale.
#[derive(Clone, Copy)]
pub(crate) struct Q6K<'a>(&'a [[i8; LANES]], Groups<'a>);

impl Quantised {
    pub(crate) fn packing(&self) -> Packing {
        self.packing
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.bytes.as_slice())
            + size_of_val(self.nibbles.as_slice())
            + size_of_val(self.scales.as_slice())
            + size_of_val(self.offsets.as_slice())
            + size_of_val(self.group_scales.as_slice())
            + size_of_val(self.group_offsets.as_slice())
    }

    pub(crate) fn q8(&self, panel: usize) -> Q8<'_> {
        let bytes = piece(&self.bytes, panel, self.inputs);
        Q8 { bytes, scales: piece(&self.scales, panel, self.inputs / 32) }
    }

    pub(crate) fn q4(&self, panel: usize) -> Q4<'_> {
        let nibbles = piece(&self.nibbles, panel, self.inputs / 2);
        Q4 { nibbles, scales: piece(&self.scales, panel, self.inputs / 32) }
    }

    pub(crate) fn q4k(&self, panel: usize) -> Q4K<'_> {
        Q4K(piece(&self.nibbles, panel, self.inputs / 2), self.groups(panel))
    }

    pub(crate) fn q5k(&self, panel: usize) -> Q5K<'_> {
        Q5K(piece(&self.bytes, panel, self.inputs), self.groups(panel))
    }

    pub(crate) fn q6k(&self, panel: usize) -> Q6K<'_> {
        Q6K(piece(&self.bytes, panel, self.inputs), self.groups(panel))
    }

    fn groups(&self, panel: usize) -> Groups<'_> {
        let groups = self.inputs / self.packing.group();
        let (blocks, offsets) = (self.inputs / SUPER, self.packing.has_offsets());
        Groups {
            scales: piece(&self.scales, panel, blocks),
            offsets: if offsets { piece(&self.offsets, panel, blocks) } else { &[] },
            group_scales: piece(&self.group_scales, panel, groups),
            group_offsets: if offsets { piece(&self.group_offsets, panel, groups) } else { &[] },
        }
    }
}

fn piece<T>(all: &[T], panel: usize, each: usize) -> &[T] {
    &all[panel * each..(panel + 1) * each]
}

impl<'a> Groups<'a> {
    #[inline(always)]
    fn scale<S: Simd>(self, simd: S, group: usize, in_block: usize) -> S::F {
        let scale = simd.of_f16(&self.scales[group / in_block]);
        simd.mul(simd.of_i8(&self.group_scales[group]), scale)
    }

    #[inline(always)]
    fn offset<S: Simd>(self, simd: S, group: usize, in_block: usize) -> S::F {
        let offset = simd.of_f16(&self.offsets[group / in_block]);
        let offset = simd.mul(simd.of_i8(&self.group_offsets[group]), offset);
        simd.mul(offset, simd.splat(-1.0))
    }
}

/// Four bits of a column.
#[inline(always)]
fn nibbles<S: Simd, const ODD: bool>(simd: S, all: &[[u8; LANES]], column: usize) -> S::F {
    simd.of_nibbles::<ODD>(&all[column / 2])
}

impl Columns for Q8<'_> {
    const GROUP: usize = 32;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self { bytes: &self.bytes[from..from + count], ..self }
    }

    #[inline(always)]
    fn group<S: Simd>(self, simd: S, group: usize) -> [S::F; 2] {
        [simd.of_f16(&self.scales[group]), simd.splat(0.0)]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F {
        simd.mul(simd.of_i8(&self.bytes[column]), group[0])
    }
}

impl Columns for Q4<'_> {
    const GROUP: usize = 32;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self { nibbles: &self.nibbles[from / 2..from / 2 + count / 2], ..self }
    }

    #[inline(always)]
    fn group<S: Simd>(self, simd: S, group: usize) -> [S::F; 2] {
        let scale = simd.of_f16(&self.scales[group]);
        [scale, simd.mul(scale, simd.splat(-8.0))]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F {
        simd.mul_add(nibbles::<S, ODD>(simd, self.nibbles, column), group[0], group[1])
    }
}

impl Columns for Q4K<'_> {
    const GROUP: usize = 32;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self(&self.0[from / 2..from / 2 + count / 2], self.1)
    }

    #[inline(always)]
    fn group<S: Simd>(self, simd: S, group: usize) -> [S::F; 2] {
        [self.1.scale(simd, group, 8), self.1.offset(simd, group, 8)]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F {
        simd.mul_add(nibbles::<S, ODD>(simd, self.0, column), group[0], group[1])
    }
}

impl Columns for Q5K<'_> {
    const GROUP: usize = 32;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self(&self.0[from..from + count], self.1)
    }

    #[inline(always)]
    fn group<S: Simd>(self, simd: S, group: usize) -> [S::F; 2] {
        [self.1.scale(simd, group, 8), self.1.offset(simd, group, 8)]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F {
        simd.mul_add(simd.of_i8(&self.0[column]), group[0], group[1])
    }
}

impl Columns for Q6K<'_> {
    const GROUP: usize = 16;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self(&self.0[from..from + count], self.1)
    }

    #[inline(always)]
    fn group<S: Simd>(self, simd: S, group: usize) -> [S::F; 2] {
        [self.1.scale(simd, group, 16), simd.splat(0.0)]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F {
        simd.mul(simd.of_i8(&self.0[column]), group[0])
    }
}
