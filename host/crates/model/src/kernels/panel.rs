//! Weights as they lie in memory: sixteen rows of a matrix side by side in a panel, column by column.
//!
//! So one column is one load, whatever its type, and a row's products are added up in the order of
//! the columns and in no other. Types that hold whole numbers with a scale for each group of columns
//! keep GGUF's bits; a weight becomes a float in a register, or in the first-level cache when many
//! tokens use it.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use super::simd::{LANES, Lanes, Simd};

/// The columns of one panel.
pub(crate) trait Columns: Copy {
    /// Columns that have what [`Columns::group`] makes in common; even.
    const GROUP: usize;

    /// Its columns from `from` on, as many as `count`; both even, or `from` the last one. Whoever takes
    /// a piece first saves a check at each column.
    fn piece(self, from: usize, count: usize) -> Self;

    /// Some columns, if they are floats in memory.
    fn floats(&self, _from: usize, _count: usize) -> Option<&[Lanes]> {
        None
    }

    /// Scale and offset of a group; floats have none.
    #[inline(always)]
    fn group<S: Simd>(self, simd: S, _group: usize) -> [S::F; 2] {
        [simd.splat(0.0); 2]
    }

    /// Column `column`, which is even or, with `ODD`, odd; and what [`Columns::group`] made for it.
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, group: [S::F; 2]) -> S::F;
}

/// Floats have no groups: more columns than there are.
const FLOATS: usize = 1 << 40;

/// Floats as they are.
impl Columns for &[Lanes] {
    const GROUP: usize = FLOATS;

    #[inline(always)]
    fn floats(&self, from: usize, count: usize) -> Option<&[Lanes]> {
        self.get(from..from + count)
    }

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        &self[from..from + count]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, _: [S::F; 2]) -> S::F {
        simd.load(&self[column].0)
    }
}

/// Floats as they are.
impl Columns for &[[f32; LANES]] {
    const GROUP: usize = FLOATS;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        &self[from..from + count]
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, _: [S::F; 2]) -> S::F {
        simd.load(&self[column])
    }
}

/// Half precision.
#[derive(Clone, Copy)]
pub(crate) struct F16<'a>(pub(crate) &'a [[u16; LANES]]);

impl Columns for F16<'_> {
    const GROUP: usize = FLOATS;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self(&self.0[from..from + count])
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, _: [S::F; 2]) -> S::F {
        simd.of_f16(&self.0[column])
    }
}

/// bfloat16.
#[derive(Clone, Copy)]
pub(crate) struct Bf16<'a>(pub(crate) &'a [[u16; LANES]]);

impl Columns for Bf16<'_> {
    const GROUP: usize = FLOATS;

    #[inline(always)]
    fn piece(self, from: usize, count: usize) -> Self {
        Self(&self.0[from..from + count])
    }

    #[inline(always)]
    fn column<S: Simd, const ODD: bool>(self, simd: S, column: usize, _: [S::F; 2]) -> S::F {
        simd.of_bf16(&self.0[column])
    }
}

/// Columns that are multiplied without a check in between; divides every [`Columns::GROUP`].
const PIECE: usize = 16;

/// Adds the products of `R` rows of `x` and the columns `from..to` of `P` panels to `sums`. `from` is
/// the start of a group, or of anything for floats, and `x` are whole rows.
///
/// No closures here: one that is not inlined is compiled for processors without the instructions.
#[inline(always)]
pub(crate) fn multiply<S: Simd, C: Columns, const R: usize, const P: usize>(
    simd: S,
    x: [&[f32]; R],
    panels: [C; P],
    (from, to): (usize, usize),
    sums: &mut [[S::F; P]; R],
) {
    let mut start = from;
    while start < to {
        let end = to.min(start.saturating_add(C::GROUP));
        let mut groups = [[simd.splat(0.0); 2]; P];
        for (group, panel) in groups.iter_mut().zip(panels) {
            *group = panel.group(simd, start / C::GROUP);
        }
        while start < end {
            let count = PIECE.min(end - start);
            let (mut x, mut panels) = (x, panels);
            if count == PIECE {
                for row in &mut x {
                    *row = &row[start..start + PIECE];
                }
                for panel in &mut panels {
                    *panel = panel.piece(start, PIECE);
                }
                for pair in 0..PIECE / 2 {
                    step::<S, C, R, P, false>(simd, &x, &panels, pair * 2, &groups, sums);
                    step::<S, C, R, P, true>(simd, &x, &panels, pair * 2 + 1, &groups, sums);
                }
            } else {
                // Floats: the others' groups are whole pieces.
                for column in start..end {
                    step::<S, C, R, P, false>(simd, &x, &panels, column, &groups, sums);
                }
            }
            start += count;
        }
    }
}

#[inline(always)]
fn step<S: Simd, C: Columns, const R: usize, const P: usize, const ODD: bool>(
    simd: S,
    x: &[&[f32]; R],
    panels: &[C; P],
    column: usize,
    groups: &[[S::F; 2]; P],
    sums: &mut [[S::F; P]; R],
) {
    let mut weights = [simd.splat(0.0); P];
    for ((weight, panel), group) in weights.iter_mut().zip(panels).zip(groups) {
        *weight = panel.column::<S, ODD>(simd, column, *group);
    }
    for (row, sums) in x.iter().zip(sums) {
        let value = simd.splat(row[column]);
        for (weight, sum) in weights.iter().zip(sums) {
            *sum = simd.mul_add(value, *weight, *sum);
        }
    }
}

/// Columns `from..` of a panel as floats, as many as `to` has room for.
#[inline(always)]
pub(crate) fn unpack<S: Simd, C: Columns>(simd: S, panel: C, from: usize, to: &mut [Lanes]) {
    let mut done = 0;
    while done < to.len() {
        let end = to.len().min(done.saturating_add(C::GROUP));
        let group = panel.group(simd, (from + done) / C::GROUP);
        while done < end {
            let even = panel.column::<S, false>(simd, from + done, group);
            simd.store(even, &mut to[done].0);
            if done + 1 < end {
                let odd = panel.column::<S, true>(simd, from + done + 1, group);
                simd.store(odd, &mut to[done + 1].0);
            }
            done += 2;
        }
    }
}
