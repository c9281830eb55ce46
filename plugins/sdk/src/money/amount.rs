//! An amount of money.

use super::{MoneyError, OutOfRange, decimal::Decimal};
use std::{fmt, str::FromStr};

/// Picos in one unit of the currency.
pub(super) const PICOS_PER_UNIT: u64 = 1_000_000_000_000;

/// An exact amount: 10^-12 of the currency's major unit, signed so that credits fit.
///
/// It is written and read as a plain decimal: `0.000000150000` dollars are `150000` picos and print as `0.00000015`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pico(i64);

impl Pico {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// From a number of picos.
    pub const fn new(picos: i64) -> Self {
        Self(picos)
    }

    /// The number of picos.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn plus(self, other: Self) -> Result<Self, OutOfRange> {
        self.0.checked_add(other.0).map(Self).ok_or(OutOfRange)
    }

    /// The same amount owed the other way.
    ///
    /// # Errors
    /// If it does not fit, which only the least amount does not.
    pub fn negated(self) -> Result<Self, OutOfRange> {
        self.0.checked_neg().map(Self).ok_or(OutOfRange)
    }
}

impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let (units, picos) = (magnitude / PICOS_PER_UNIT, magnitude % PICOS_PER_UNIT);
        let sign = if self.0 < 0 { "-" } else { "" };
        if picos == 0 {
            return f.pad(&format!("{sign}{units}"));
        }
        let fraction = format!("{picos:012}");
        f.pad(&format!("{sign}{units}.{}", fraction.trim_end_matches('0')))
    }
}

impl FromStr for Pico {
    type Err = MoneyError;

    /// Reads a decimal with an optional minus sign. More than twelve decimals are an error unless they are zeros.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let decimal = Decimal::parse(digits)?;
        let scaled = decimal.coefficient * u128::from(PICOS_PER_UNIT);
        if scaled % decimal.divisor() != 0 {
            return Err(MoneyError::new(format!("`{text}` is finer than a pico, twelve decimals")));
        }
        let magnitude = u64::try_from(scaled / decimal.divisor()).ok();
        magnitude
            .and_then(
                |m| if negative { 0_i64.checked_sub_unsigned(m) } else { i64::try_from(m).ok() },
            )
            .map(Self)
            .ok_or_else(|| MoneyError::new(format!("`{text}` is out of range")))
    }
}

super::deserialize_from_text!(Pico, "\"0.0001\"");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_exactly_and_without_padding() {
        for (picos, text) in [
            (0, "0"),
            (1, "0.000000000001"),
            (150_000, "0.00000015"),
            (-20_000_000, "-0.00002"),
            (3_000_000_000_000, "3"),
            (i64::MAX, "9223372.036854775807"),
            (i64::MIN, "-9223372.036854775808"),
        ] {
            assert_eq!(Pico::new(picos).to_string(), text);
        }
        assert_eq!("0.0000000000010".parse(), Ok(Pico::new(1)));
        assert!("0.0000000000001".parse::<Pico>().is_err());
        assert!("9223372.036854775808".parse::<Pico>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(picos: i64) {
            prop_assert_eq!(Pico::new(picos).to_string().parse(), Ok(Pico::new(picos)));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Pico>();
        }
    }
}
