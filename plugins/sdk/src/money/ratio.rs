//! An exact fraction, and the one place where money is rounded.

use super::{OutOfRange, Pico};

/// A non-negative fraction in lowest terms. The denominator is never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// Reduces to lowest terms; `None` if the parts do not fit in 64 bits then, or the denominator is zero.
    pub(super) fn new(numerator: u128, denominator: u128) -> Option<Self> {
        let divisor = greatest_common_divisor(numerator, denominator);
        Some(Self {
            numerator: u64::try_from(numerator.checked_div(divisor)?).ok()?,
            denominator: u64::try_from(denominator.checked_div(divisor)?)
                .ok()
                .filter(|&d| d > 0)?,
        })
    }

    pub(super) fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// `self * quantity`, rounded to the nearest whole number, halves to even.
    pub(super) fn times(self, quantity: u64) -> Result<Pico, OutOfRange> {
        self.magnitude(quantity)
            .and_then(|m| i64::try_from(m).ok())
            .map(Pico::new)
            .ok_or(OutOfRange)
    }

    /// The same for an amount that may be negative. Half to even is symmetric, so the sign can be set aside.
    pub(super) fn times_amount(self, amount: Pico) -> Result<Pico, OutOfRange> {
        let magnitude = self.magnitude(amount.get().unsigned_abs()).ok_or(OutOfRange)?;
        let signed = if amount.get() < 0 {
            0_i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        };
        signed.map(Pico::new).ok_or(OutOfRange)
    }

    fn magnitude(self, quantity: u64) -> Option<u64> {
        // Prices per million tokens with up to six decimals are whole picos, and arithmetic in 128 bits is slow in
        // WebAssembly, so the two common cases come first.
        let product = product(self.numerator, quantity);
        if self.denominator == 1 {
            return product;
        }
        if let Some(product) = product {
            let (quotient, rest) = (product / self.denominator, product % self.denominator);
            return Some(quotient + u64::from(rounds_up(quotient, rest, self.denominator)));
        }
        let product = u128::from(self.numerator) * u128::from(quantity);
        let denominator = u128::from(self.denominator);
        let quotient = u64::try_from(product / denominator).ok()?;
        let rest = u64::try_from(product % denominator).ok()?;
        quotient.checked_add(u64::from(rounds_up(quotient, rest, self.denominator)))
    }
}

/// Halves of a word multiply without the 128 bits in which an overflow is looked for.
fn product(a: u64, b: u64) -> Option<u64> {
    if (a | b) >> 32 == 0 { Some(a * b) } else { a.checked_mul(b) }
}

/// Half to even: up when more than half is left over, or exactly half of an odd quotient.
fn rounds_up(quotient: u64, rest: u64, denominator: u64) -> bool {
    // `rest` is less than the denominator, so compare it with what is missing instead of doubling it.
    let missing = denominator - rest;
    rest > missing || (rest == missing && quotient % 2 == 1)
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_even() {
        let half = Ratio::new(1, 2).unwrap();
        let rounded: Vec<_> = (0..8).map(|n| half.times(n).unwrap().get()).collect();
        assert_eq!(rounded, [0, 0, 1, 2, 2, 2, 3, 4]);
        assert_eq!(half.times_amount(Pico::new(-3)), Ok(Pico::new(-2)));
        assert_eq!(half.times_amount(Pico::new(-5)), Ok(Pico::new(-2)));
        assert_eq!(half.times_amount(Pico::new(i64::MIN)), Ok(Pico::new(i64::MIN / 2)));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let one = Ratio::new(1, 1).unwrap();
        assert_eq!(one.times(i64::MAX as u64), Ok(Pico::new(i64::MAX)));
        assert_eq!(one.times(i64::MAX as u64 + 1), Err(OutOfRange));
        assert_eq!(one.times_amount(Pico::new(i64::MIN)), Ok(Pico::new(i64::MIN)));
        assert_eq!(Ratio::new(u128::MAX, 1), None);
        assert_eq!(Ratio::new(1, 0), None);
        assert_eq!(Ratio::new(0, 0), None);
    }

    proptest! {
        /// Against a definition that shares nothing with the code: the result is the even one of the nearest numbers.
        #[test]
        fn times_is_the_nearest_number(
            numerator in prop_oneof![0..1000_u64, any::<u64>()],
            denominator in prop_oneof![1..1000_u64, 1..u64::MAX],
            quantity in prop_oneof![0..1_000_000_u64, any::<u64>()],
        ) {
            let ratio = Ratio::new(numerator.into(), denominator.into()).unwrap();
            let exact_times_denominator = u128::from(numerator) * u128::from(quantity);
            let denominator = u128::from(denominator);
            match ratio.times(quantity) {
                Ok(amount) => {
                    let product = u128::try_from(amount.get()).unwrap() * denominator;
                    let distance = product.abs_diff(exact_times_denominator);
                    prop_assert!(distance <= denominator - distance, "more than half away");
                    if distance == denominator - distance {
                        prop_assert_eq!(amount.get() % 2, 0);
                    }
                }
                // The greatest amount plus a half still rounds to it (it is odd, so exactly a half does not).
                Err(OutOfRange) => prop_assert!(exact_times_denominator / denominator >= i64::MAX as u128),
            }
        }
    }
}
