//! Sixteen numbers at a time, by the best instructions that this processor has.
//!
//! A kernel is written once over [`Simd`] and chosen when it runs by [`run`]. Everything here is
//! inlined into it, since instructions beyond the baseline exist only there.

use pulp::bytemuck;

/// Floats in one [`Simd::F`], and rows of weights in one panel.
pub(crate) const LANES: usize = 16;

/// Sixteen floats in memory, never across a cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [f32; LANES]);

impl Lanes {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);
}

/// Operations on sixteen numbers.
pub(crate) trait Simd: Copy {
    /// Sixteen floats in registers.
    type F: Copy;
    /// Sixteen whole numbers of 32 bits.
    type I: Copy;
    /// Sixteen pairs of whole numbers of sixteen bits.
    type P: Copy;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, value: Self::F, to: &mut [f32; LANES]);
    /// `a * b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// As [`Simd::mul_add`], of one number.
    fn mul_add_one(self, a: f32, b: f32, c: f32) -> f32;
    /// Whole numbers as floats.
    fn of_i8(self, from: &[i8; LANES]) -> Self::F;
    /// Half-precision numbers, finite ones, from their bits.
    fn of_f16(self, from: &[u16; LANES]) -> Self::F;
    /// bfloat16 numbers from their bits.
    fn of_bf16(self, from: &[u16; LANES]) -> Self::F;

    /// The same whole number sixteen times.
    fn whole(self, value: i32) -> Self::I;
    /// Whole numbers as floats, rounded.
    fn of_whole(self, value: Self::I) -> Self::F;
    /// `[LANES, 2]` bytes.
    fn pairs_of_bytes(self, from: &[u8; 2 * LANES]) -> Self::P;
    /// `[LANES, 2]` times four numbers of four bits, the lowest bits first.
    fn pairs_of_nibbles(self, from: &[u8; 4 * LANES]) -> [Self::P; 4];
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> Self::P;
    fn store_pairs(self, value: Self::P, to: &mut [i16; 2 * LANES]);
    /// Adds each pair's product with `x` to the pair's sum, which has room for it.
    fn add_products(self, pairs: Self::P, x: [i16; 2], sum: Self::I) -> Self::I;
}

/// What [`run`] runs.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the best instructions there are.
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        struct With<K>(K, pulp::x86::V3);
        impl<K: Kernel> pulp::NullaryFnOnce for With<K> {
            type Output = K::Output;
            #[inline(always)]
            fn call(self) -> K::Output {
                self.0.run(Avx2(self.1))
            }
        }
        return v3.vectorize(With(kernel, v3));
    }
    kernel.run(Portable)
}

/// What every processor has; compilers make vectors of it. On x86 it is for processors of before 2013,
/// and kept small rather than fast.
#[derive(Clone, Copy)]
struct Portable;

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    type P = [i16; 2 * LANES];

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn store(self, value: Self::F, to: &mut [f32; LANES]) {
        *to = value;
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn mul_add(self, a: Self::F, b: Self::F, mut c: Self::F) -> Self::F {
        for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
            *c = self.mul_add_one(a, b, *c);
        }
        c
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn mul(self, mut a: Self::F, b: Self::F) -> Self::F {
        a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
        a
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn mul_add_one(self, a: f32, b: f32, c: f32) -> f32 {
        // On x86 without the instruction it would be a call of a function.
        if cfg!(target_arch = "x86_64") { a * b + c } else { a.mul_add(b, c) }
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn of_i8(self, from: &[i8; LANES]) -> Self::F {
        from.map(f32::from)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn of_f16(self, from: &[u16; LANES]) -> Self::F {
        from.map(f16_to_f32)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn of_bf16(self, from: &[u16; LANES]) -> Self::F {
        from.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn whole(self, value: i32) -> Self::I {
        [value; LANES]
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn of_whole(self, value: Self::I) -> Self::F {
        value.map(|whole| whole as f32)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn pairs_of_bytes(self, from: &[u8; 2 * LANES]) -> Self::P {
        from.map(|byte| i16::from(byte.cast_signed()))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn pairs_of_nibbles(self, from: &[u8; 4 * LANES]) -> [Self::P; 4] {
        let words: [[u8; 2]; 2 * LANES] = bytemuck::cast(*from);
        let words = words.map(u16::from_le_bytes);
        [0, 4, 8, 12].map(|shift| words.map(|word| (word >> shift & 15).cast_signed()))
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn load_pairs(self, from: &[i16; 2 * LANES]) -> Self::P {
        *from
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn store_pairs(self, value: Self::P, to: &mut [i16; 2 * LANES]) {
        *to = value;
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn add_products(self, pairs: Self::P, x: [i16; 2], mut sum: Self::I) -> Self::I {
        let [first, second] = x.map(i32::from);
        for (sum, [one, two]) in sum.iter_mut().zip(pairs.as_chunks().0) {
            *sum = sum.wrapping_add(i32::from(*one) * first + i32::from(*two) * second);
        }
        sum
    }
}

/// 2^112: the difference between the exponents' biases.
const F16_SCALE: f32 = f32::from_bits((112 + 127) << 23);

/// A finite half-precision number from its bits, small ones without a leading 1 included.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * F16_SCALE;
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{__m256, __m256i};

    use super::{F16_SCALE, LANES, Simd, bytemuck};

    /// AVX2 with fused multiply-add.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(pub(super) pulp::x86::V3);

    #[derive(Clone, Copy)]
    pub(crate) struct Two(__m256, __m256);

    /// Whole numbers of 32 bits, or pairs of sixteen.
    #[derive(Clone, Copy)]
    pub(crate) struct Wholes(__m256i, __m256i);

    impl Avx2 {
        #[inline(always)]
        fn each(self, a: Two, b: Two, f: impl Fn(__m256, __m256) -> __m256) -> Two {
            Two(f(a.0, b.0), f(a.1, b.1))
        }
    }

    impl Simd for Avx2 {
        type F = Two;
        type I = Wholes;
        type P = Wholes;

        #[inline(always)]
        fn splat(self, value: f32) -> Two {
            let all = self.0.avx._mm256_set1_ps(value);
            Two(all, all)
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Two {
            let [low, high]: [[f32; 8]; 2] = bytemuck::cast(*from);
            Two(pulp::cast(low), pulp::cast(high))
        }

        #[inline(always)]
        fn store(self, value: Two, to: &mut [f32; LANES]) {
            let halves: [[f32; 8]; 2] = [pulp::cast(value.0), pulp::cast(value.1)];
            *to = bytemuck::cast(halves);
        }

        #[inline(always)]
        fn mul_add(self, a: Two, b: Two, c: Two) -> Two {
            let fma = self.0.fma;
            Two(fma._mm256_fmadd_ps(a.0, b.0, c.0), fma._mm256_fmadd_ps(a.1, b.1, c.1))
        }

        #[inline(always)]
        fn mul(self, a: Two, b: Two) -> Two {
            self.each(a, b, |a, b| self.0.avx._mm256_mul_ps(a, b))
        }

        #[inline(always)]
        fn mul_add_one(self, a: f32, b: f32, c: f32) -> f32 {
            // One instruction, since the whole kernel is compiled for processors that have it.
            a.mul_add(b, c)
        }

        #[inline(always)]
        fn of_i8(self, from: &[i8; LANES]) -> Two {
            let (avx, avx2, sse2) = (self.0.avx, self.0.avx2, self.0.sse2);
            let bytes = bytemuck::cast(*from);
            let float = |bytes| avx._mm256_cvtepi32_ps(avx2._mm256_cvtepi8_epi32(bytes));
            Two(float(bytes), float(sse2._mm_srli_si128::<8>(bytes)))
        }

        #[inline(always)]
        fn of_f16(self, from: &[u16; LANES]) -> Two {
            let (avx, avx2) = (self.0.avx, self.0.avx2);
            // The sign is spread over the upper bits and stays in the highest.
            let float = |bits| {
                let bits = avx2._mm256_slli_epi32::<13>(avx2._mm256_cvtepi16_epi32(bits));
                let mask = avx._mm256_set1_epi32(0x8fff_e000_u32.cast_signed());
                let small = bytemuck::cast(avx2._mm256_and_si256(bits, mask));
                avx._mm256_mul_ps(small, avx._mm256_set1_ps(F16_SCALE))
            };
            let [low, high]: [[u16; 8]; 2] = bytemuck::cast(*from);
            Two(float(bytemuck::cast(low)), float(bytemuck::cast(high)))
        }

        #[inline(always)]
        fn of_bf16(self, from: &[u16; LANES]) -> Two {
            let avx2 = self.0.avx2;
            let float = |bits| {
                bytemuck::cast(avx2._mm256_slli_epi32::<16>(avx2._mm256_cvtepu16_epi32(bits)))
            };
            let [low, high]: [[u16; 8]; 2] = bytemuck::cast(*from);
            Two(float(bytemuck::cast(low)), float(bytemuck::cast(high)))
        }

        #[inline(always)]
        fn whole(self, value: i32) -> Wholes {
            let all = self.0.avx._mm256_set1_epi32(value);
            Wholes(all, all)
        }

        #[inline(always)]
        fn of_whole(self, value: Wholes) -> Two {
            let avx = self.0.avx;
            Two(avx._mm256_cvtepi32_ps(value.0), avx._mm256_cvtepi32_ps(value.1))
        }

        #[inline(always)]
        fn pairs_of_bytes(self, from: &[u8; 2 * LANES]) -> Wholes {
            let [low, high]: [[u8; 16]; 2] = bytemuck::cast(*from);
            let avx2 = self.0.avx2;
            let wide = |bytes| avx2._mm256_cvtepi8_epi16(bytes);
            Wholes(wide(bytemuck::cast(low)), wide(bytemuck::cast(high)))
        }

        #[inline(always)]
        fn pairs_of_nibbles(self, from: &[u8; 4 * LANES]) -> [Wholes; 4] {
            let [low, high]: [[u8; 32]; 2] = bytemuck::cast(*from);
            let (low, high) = (bytemuck::cast(low), bytemuck::cast(high));
            let (avx, avx2) = (self.0.avx, self.0.avx2);
            let mask = avx._mm256_set1_epi16(15);
            let and = |words| avx2._mm256_and_si256(words, mask);
            [
                Wholes(and(low), and(high)),
                Wholes(
                    and(avx2._mm256_srli_epi16::<4>(low)),
                    and(avx2._mm256_srli_epi16::<4>(high)),
                ),
                Wholes(
                    and(avx2._mm256_srli_epi16::<8>(low)),
                    and(avx2._mm256_srli_epi16::<8>(high)),
                ),
                Wholes(avx2._mm256_srli_epi16::<12>(low), avx2._mm256_srli_epi16::<12>(high)),
            ]
        }

        #[inline(always)]
        fn load_pairs(self, from: &[i16; 2 * LANES]) -> Wholes {
            let [low, high]: [[i16; 16]; 2] = bytemuck::cast(*from);
            Wholes(bytemuck::cast(low), bytemuck::cast(high))
        }

        #[inline(always)]
        fn store_pairs(self, value: Wholes, to: &mut [i16; 2 * LANES]) {
            let halves: [[i16; 16]; 2] = [bytemuck::cast(value.0), bytemuck::cast(value.1)];
            *to = bytemuck::cast(halves);
        }

        #[inline(always)]
        fn add_products(self, pairs: Wholes, x: [i16; 2], sum: Wholes) -> Wholes {
            let x = self.0.avx._mm256_set1_epi32(bytemuck::cast(x));
            let avx2 = self.0.avx2;
            let low = avx2._mm256_madd_epi16(pairs.0, x);
            let high = avx2._mm256_madd_epi16(pairs.1, x);
            Wholes(avx2._mm256_add_epi32(sum.0, low), avx2._mm256_add_epi32(sum.1, high))
        }
    }
}

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
