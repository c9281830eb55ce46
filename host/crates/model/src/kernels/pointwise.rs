//! What is computed of one token's numbers alone: norms, rotary positions, activations.

use super::simd::{self, Kernel, LANES, Simd};

/// e^x, within two units in the last place; what is no number stays none. Below -87 about 1e-38.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    /// Added to a number, it leaves the nearest whole one in the lowest bits.
    const ROUNDS: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // In this form a comparison with what is no number changes nothing.
    let x = if x < LOWEST { LOWEST } else { x };
    let x = if x > HIGHEST { HIGHEST } else { x };
    let rounded = simd.mul_add_one(x, std::f32::consts::LOG2_E, ROUNDS);
    let whole = rounded - ROUNDS;
    let rest = simd.mul_add_one(whole, -LN_2_HIGH, x);
    let rest = simd.mul_add_one(whole, -LN_2_LOW, rest);
    let mut sum = 0.0;
    for factor in SERIES {
        sum = simd.mul_add_one(sum, rest, factor);
    }
    let sum = simd.mul_add_one(sum, rest * rest, rest) + 1.0;
    let power = (rounded.to_bits() << 23).wrapping_add(127 << 23);
    sum * f32::from_bits(power)
}

/// Each row of `x`, as long as `weight`, divided by its root mean square and times `weight`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    rms_norm_in_place(&mut out, weight, eps);
    out
}

/// As [`rms_norm`], in place.
pub(crate) fn rms_norm_in_place(x: &mut [f32], weight: &[f32], eps: f32) {
    struct Norm<'a>(&'a mut [f32], &'a [f32], f32);
    impl Kernel for Norm<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for row in self.0.chunks_exact_mut(self.1.len()) {
                let scale = 1.0 / (squares(simd, row) / row.len() as f32 + self.2).sqrt();
                for (x, weight) in row.iter_mut().zip(self.1) {
                    *x = *x * scale * weight;
                }
            }
        }
    }
    simd::run(Norm(x, weight, eps));
}

/// The sum of the squares.
#[inline(always)]
fn squares<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<LANES>();
    let mut sums = simd.splat(0.0);
    for chunk in chunks {
        let chunk = simd.load(chunk);
        sums = simd.mul_add(chunk, chunk, sums);
    }
    let mut lanes = [0.0; LANES];
    simd.store(sums, &mut lanes);
    let rest: f32 = rest.iter().map(|x| x * x).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `silu(gate) * up`, written over `gate`.
pub(crate) fn gated(gate: &mut [f32], up: &[f32]) {
    struct Gated<'a>(&'a mut [f32], &'a [f32]);
    impl Kernel for Gated<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            for (gate, up) in self.0.iter_mut().zip(self.1) {
                *gate = *gate / (1.0 + exp(simd, -*gate)) * up;
            }
        }
    }
    simd::run(Gated(gate, up));
}

/// `x += more`.
pub(crate) fn add(x: &mut [f32], more: &[f32]) {
    x.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}

/// Turns each head of each row of `x` by its position's angles. `cos` and `sin` have half a head per
/// row; the first half of a head is turned with the second.
pub(crate) fn rotate(x: &mut [f32], heads: usize, cos: &[f32], sin: &[f32], half: usize) {
    let rows = x.chunks_exact_mut(heads * half * 2);
    for ((row, cos), sin) in rows.zip(cos.chunks_exact(half)).zip(sin.chunks_exact(half)) {
        for head in row.chunks_exact_mut(half * 2) {
            let (first, second) = head.split_at_mut(half);
            for (((first, second), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_and_keeps_what_is_no_number() {
        struct Exp(f32);
        impl Kernel for Exp {
            type Output = f32;
            fn run<S: Simd>(self, simd: S) -> f32 {
                exp(simd, self.0)
            }
        }
        for step in -8600..8700 {
            let x = step as f32 / 100.0;
            let (ours, exact) = (f64::from(simd::run(Exp(x))), f64::from(x).exp());
            assert!(((ours - exact) / exact).abs() < 3e-7, "{x}: {ours} {exact}");
        }
        assert_eq!(simd::run(Exp(0.0)), 1.0);
        assert!(simd::run(Exp(f32::NAN)).is_nan());
        assert!(simd::run(Exp(f32::NEG_INFINITY)) < 1e-37);
        assert!(simd::run(Exp(f32::INFINITY)) > 1e38);
    }

    #[test]
    fn a_norm_has_a_mean_square_of_one() {
        let x: Vec<f32> = (0..2 * 37).map(|i| (i as f32 * 0.7).sin() * 5.0).collect();
        for row in rms_norm(&x, &[1.0; 37], 0.0).chunks(37) {
            let mean = row.iter().map(|x| x * x).sum::<f32>() / 37.0;
            assert!((mean - 1.0).abs() < 1e-5, "{mean}");
        }
    }

    #[test]
    fn a_gate_is_silu() {
        let mut gate = [-30.0, -1.0, 0.0, 2.0, 50.0];
        gated(&mut gate, &[2.0; 5]);
        let silu = |x: f32| x / (1.0 + (-x).exp()) * 2.0;
        for (ours, x) in gate.iter().zip([-30.0, -1.0, 0.0, 2.0, 50.0]) {
            assert!((ours - silu(x)).abs() < 1e-5, "{x}");
        }
    }
}
