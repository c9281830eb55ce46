//! Activations as whole numbers of sixteen bits, for products with weights that are whole numbers too.
//!
//! Each 32 of a row share a scale, by which the largest of them becomes 32767. That keeps fifteen
//! bits, where other programs keep seven: what is lost is far less than what was lost of the weights,
//! and the instruction that multiplies numbers of sixteen bits takes them as they are. A row is
//! rounded by itself, so nothing depends on the rows beside it.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds follow from the shape, checked when it is made"
)]

use super::simd::{Kernel, Simd, run};

/// Columns that share a scale.
pub(crate) const GROUP: usize = 32;

const LARGEST: f32 = 32_767.0;

/// Below this all of a group count as 0: what they are divided by would be no number.
const SMALLEST: f32 = 1e-30;

/// Columns that are multiplied with all rows before the next ones.
pub(crate) const CHUNK: usize = 256;

/// Rows of rounded numbers, by chunks of columns and in them by tiles: of six rows, then at most one
/// of four, then of one. So memory is read from one end to the other, and what the rows of a tile have
/// at a place lies together, as it is multiplied together.
#[derive(Debug)]
pub(crate) struct Rounded {
    inputs: usize,
    rows: usize,
    /// Of each tile of a chunk `[columns / 2, rows of it]`.
    pairs: Vec<[i16; 2]>,
    /// Likewise, of each group of columns.
    units: Vec<Unit>,
}

/// What a group of a row is multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Unit {
    /// Not a number if a number in the group is none, or infinite.
    pub(crate) scale: f32,
    /// The sum of the group's numbers, times the scale.
    pub(crate) sum: f32,
}

/// `R` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile<'a, const R: usize> {
    pub(crate) pairs: &'a [[[i16; 2]; R]],
    pub(crate) units: &'a [[Unit; R]],
}

impl Rounded {
    /// Rounds rows of `inputs` numbers, a multiple of [`GROUP`].
    pub(crate) fn new(x: &[f32], inputs: usize) -> Self {
        run(Round(x, inputs))
    }

    /// Rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of the tile that row `row` is in.
    pub(crate) fn rows_of_tile(&self, row: usize) -> usize {
        rows_of_tile(self.rows, row)
    }

    /// The chunk of columns from `from` on of the `R` rows from `first` on, as many as the tile has.
    #[inline(always)]
    pub(crate) fn tile<const R: usize>(&self, first: usize, from: usize) -> Tile<'_, R> {
        let place = Place { rows: self.rows, inputs: self.inputs, from };
        Tile {
            pairs: self.pairs.get(place.of(first, R, 2)).unwrap_or_default().as_chunks().0,
            units: self.units.get(place.of(first, R, GROUP)).unwrap_or_default().as_chunks().0,
        }
    }
}

/// Where a chunk of columns lies.
#[derive(Clone, Copy)]
struct Place {
    rows: usize,
    inputs: usize,
    /// The first column of the chunk.
    from: usize,
}

impl Place {
    /// What `count` rows from `first` on have there, one for each `columns`.
    #[inline(always)]
    fn of(self, first: usize, count: usize, columns: usize) -> std::ops::Range<usize> {
        let each = CHUNK.min(self.inputs - self.from) / columns;
        let start = self.rows * (self.from / columns) + first * each;
        start..start + count * each
    }
}

fn rows_of_tile(rows: usize, row: usize) -> usize {
    let sixes = rows / 6 * 6;
    match (row < sixes, rows - sixes) {
        (true, _) => 6,
        (false, 4..) if row < sixes + 4 => 4,
        _ => 1,
    }
}

struct Round<'a>(&'a [f32], usize);

impl Kernel for Round<'_> {
    type Output = Rounded;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Rounded {
        let Self(x, inputs) = self;
        let rows = x.len() / inputs;
        let mut pairs = vec![[0; 2]; x.len() / 2];
        let mut units = vec![Unit::default(); x.len() / GROUP];
        let mut row = 0;
        while row < rows {
            let count = rows_of_tile(rows, row);
            for (at, x) in x[row * inputs..(row + count) * inputs].chunks(inputs).enumerate() {
                for from in (0..inputs).step_by(CHUNK) {
                    let place = Place { rows, inputs, from };
                    let pairs = pairs[place.of(row, count, 2)].chunks_exact_mut(GROUP / 2 * count);
                    let units = units[place.of(row, count, GROUP)].chunks_exact_mut(count);
                    let groups = x[from..].as_chunks().0;
                    for (x, (pairs, units)) in groups.iter().zip(pairs.zip(units)) {
                        let (rounded, unit) = round(simd, x);
                        let from = rounded.as_chunks().0;
                        for (to, from) in pairs.iter_mut().skip(at).step_by(count).zip(from) {
                            *to = *from;
                        }
                        units[at] = unit;
                    }
                }
            }
            row += count;
        }
        Rounded { inputs, rows, pairs, units }
    }
}

/// One group of one row.
#[inline(always)]
fn round<S: Simd>(simd: S, group: &[f32; GROUP]) -> ([i16; GROUP], Unit) {
    /// Added to a number, it leaves the nearest whole one in the lowest bits.
    const ROUNDS: f32 = 12_582_912.0;
    let mut rounded = [0i16; GROUP];
    // As bits, what is infinite or no number is larger than all others.
    let bits = group.iter().fold(0, |bits, x| x.abs().to_bits().max(bits));
    let largest = f32::from_bits(bits);
    if !(largest >= SMALLEST && largest.is_finite()) {
        let none = if largest < SMALLEST { 0.0 } else { f32::NAN };
        return (rounded, Unit { scale: none, sum: none });
    }
    let by = LARGEST / largest;
    let mut sum = 0i32;
    for (x, to) in group.iter().zip(&mut rounded) {
        let whole = simd.mul_add_one(*x, by, ROUNDS).to_bits().cast_signed();
        let whole = whole.wrapping_sub(ROUNDS.to_bits().cast_signed());
        sum = sum.wrapping_add(whole);
        *to = whole as i16;
    }
    let scale = largest / LARGEST;
    (rounded, Unit { scale, sum: sum as f32 * scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounded_number_is_near_and_what_is_no_number_stays_none() {
        let mut x: Vec<f32> = (0..3 * 32).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        x[..32].fill(1e-35);
        let rounded = Rounded::new(&x, 96);
        let row = rounded.tile::<1>(0, 0);
        for (at, x) in x.iter().enumerate().skip(32) {
            let back = f32::from(row.pairs[at / 2][0][at % 2]) * row.units[at / 32][0].scale;
            assert!((back - x).abs() <= 9.0 / 65_534.0 * 1.001, "{x} {back}");
        }
        assert_eq!(row.units[0][0], Unit { scale: 0.0, sum: 0.0 });
        let sum: f32 = x[64..].iter().sum();
        assert!((row.units[2][0].sum - sum).abs() < 32.0 * 9.0 / 65_534.0);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[40] = odd;
            let rounded = Rounded::new(&x, 96);
            let units = rounded.tile::<1>(0, 0).units;
            assert!(units[1][0].scale.is_nan() && units[1][0].sum.is_nan());
            assert!(!units[2][0].scale.is_nan());
        }
    }

    #[test]
    fn a_row_is_the_same_in_every_tile() {
        let x: Vec<f32> = (0..11 * 64).map(|i| (i as f32 * 0.73).sin() * 3.0).collect();
        let all = Rounded::new(&x, 64);
        assert_eq!([0, 5, 6, 9, 10].map(|row| all.rows_of_tile(row)), [6, 6, 4, 4, 1]);
        let (six, four) = (all.tile::<6>(0, 0), all.tile::<4>(6, 0));
        for (row, x) in x.chunks(64).enumerate() {
            let alone = Rounded::new(x, 64);
            let alone = alone.tile::<1>(0, 0);
            for pair in 0..32 {
                let here = match row {
                    0..6 => six.pairs[pair][row],
                    6..10 => four.pairs[pair][row - 6],
                    _ => all.tile::<1>(10, 0).pairs[pair][0],
                };
                assert_eq!(here, alone.pairs[pair][0]);
            }
            if row < 6 {
                assert_eq!(
                    [six.units[0][row], six.units[1][row]],
                    [alone.units[0][0], alone.units[1][0]]
                );
            }
        }
    }
}
