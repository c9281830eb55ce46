//! Sixteen floats at a time, by the best instructions that this processor has.
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

/// Operations on sixteen floats.
pub(crate) trait Simd: Copy {
    /// Sixteen floats in registers.
    type F: Copy;

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
    /// Whole numbers as floats.
    fn of_u8(self, from: &[u8; LANES]) -> Self::F;
    /// Bits 4 to 7 (`HIGH`) or 0 to 3 of each byte as floats.
    fn of_nibbles<const HIGH: bool>(self, from: &[u8; LANES]) -> Self::F;
    /// Half-precision numbers, finite ones, from their bits.
    fn of_f16(self, from: &[u16; LANES]) -> Self::F;
    /// bfloat16 numbers from their bits.
    fn of_bf16(self, from: &[u16; LANES]) -> Self::F;
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
    fn of_u8(self, from: &[u8; LANES]) -> Self::F {
        from.map(f32::from)
    }

    #[cfg_attr(target_arch = "x86_64", inline(never))]
    #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
    fn of_nibbles<const HIGH: bool>(self, from: &[u8; LANES]) -> Self::F {
        from.map(|byte| f32::from(if HIGH { byte >> 4 } else { byte & 15 }))
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
    use std::arch::x86_64::{__m128i, __m256};

    use super::{F16_SCALE, LANES, Simd, bytemuck};

    /// AVX2 with fused multiply-add.
    #[derive(Clone, Copy)]
    pub(super) struct Avx2(pub(super) pulp::x86::V3);

    #[derive(Clone, Copy)]
    pub(crate) struct Two(__m256, __m256);

    impl Avx2 {
        #[inline(always)]
        fn each(self, a: Two, b: Two, f: impl Fn(__m256, __m256) -> __m256) -> Two {
            Two(f(a.0, b.0), f(a.1, b.1))
        }
    }

    impl Simd for Avx2 {
        type F = Two;

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
        fn of_u8(self, from: &[u8; LANES]) -> Two {
            let (avx, avx2, sse2) = (self.0.avx, self.0.avx2, self.0.sse2);
            let bytes = bytemuck::cast(*from);
            let float = |bytes| avx._mm256_cvtepi32_ps(avx2._mm256_cvtepu8_epi32(bytes));
            Two(float(bytes), float(sse2._mm_srli_si128::<8>(bytes)))
        }

        #[inline(always)]
        fn of_nibbles<const HIGH: bool>(self, from: &[u8; LANES]) -> Two {
            let sse2 = self.0.sse2;
            let bytes: __m128i = bytemuck::cast(*from);
            let moved = if HIGH { sse2._mm_srli_epi16::<4>(bytes) } else { bytes };
            let nibbles = sse2._mm_and_si128(moved, sse2._mm_set1_epi8(15));
            self.of_u8(&bytemuck::cast(nibbles))
        }

        #[inline(always)]
        fn of_f16(self, from: &[u16; LANES]) -> Two {
            let (avx, avx2) = (self.0.avx, self.0.avx2);
            let float = |bits| {
                let bits = avx2._mm256_cvtepu16_epi32(bits);
                let magnitude = avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x7fff));
                let magnitude = bytemuck::cast(avx2._mm256_slli_epi32::<13>(magnitude));
                let magnitude = avx._mm256_mul_ps(magnitude, avx._mm256_set1_ps(F16_SCALE));
                let sign = avx2._mm256_and_si256(bits, avx._mm256_set1_epi32(0x8000));
                avx._mm256_or_ps(magnitude, bytemuck::cast(avx2._mm256_slli_epi32::<16>(sign)))
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
    }
}

#[cfg(target_arch = "x86_64")]
use avx2::Avx2;
