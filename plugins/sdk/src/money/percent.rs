//! Discounts and markups.

use super::{MoneyError, OutOfRange, Pico, decimal::Decimal, ratio::Ratio};
use std::str::FromStr;

/// An exact percentage, not negative: `12.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Percent(Ratio);

impl Percent {
    /// That part of an amount, rounded to the nearest pico, halves to even.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn of(self, amount: Pico) -> Result<Pico, OutOfRange> {
        self.0.times_amount(amount)
    }
}

impl FromStr for Percent {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let fault = || MoneyError::new(format!("`{text}` is not a percentage such as 12.5%"));
        let number = text.strip_suffix('%').ok_or_else(fault)?;
        let decimal = Decimal::parse(number.trim_end())?;
        let denominator = decimal.divisor().checked_mul(100).ok_or_else(fault)?;
        Ratio::new(decimal.coefficient, denominator).map(Self).ok_or_else(fault)
    }
}

super::deserialize_from_text!(Percent, "\"12.5%\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_parts() {
        let part = |percent: &str, picos| {
            percent.parse::<Percent>().unwrap().of(Pico::new(picos)).unwrap().get()
        };
        assert_eq!(part("12.5%", 1000), 125);
        assert_eq!(part("12.5 %", -1000), -125);
        assert_eq!(part("50%", 3), 2);
        assert_eq!(part("0%", 3), 0);
        assert_eq!(part("150%", 2), 3);
        for wrong in ["10", "%", "-5%", "ten%", "0.1"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
    }
}
