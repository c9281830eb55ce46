//! From matrices as files have them, row by row, to panels.

use super::simd::{LANES, Lanes};

/// Floats.
pub(crate) fn floats(matrix: &[f32], inputs: usize) -> Vec<Lanes> {
    panels(matrix, inputs, 0.0).map(Lanes).collect()
}

/// Numbers of two bytes.
pub(crate) fn halves(matrix: &[u16], inputs: usize) -> Vec<[u16; LANES]> {
    panels(matrix, inputs, 0).collect()
}

/// All columns of all panels; `fill` where the last panel has no row.
pub(crate) fn panels<T: Copy>(
    matrix: &[T],
    inputs: usize,
    fill: T,
) -> impl Iterator<Item = [T; LANES]> {
    matrix.chunks(inputs * LANES).flat_map(move |rows| {
        let at = move |row: usize, column: usize| rows.get(row * inputs + column).copied();
        (0..inputs).map(move |column| std::array::from_fn(|row| at(row, column).unwrap_or(fill)))
    })
}
