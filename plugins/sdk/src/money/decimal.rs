//! Plain decimal numbers, read exactly.

use super::MoneyError;

/// Digits a number may have, the ones before and after the point together. It keeps every product below in 128 bits.
const MOST_DIGITS: usize = 24;

/// A number without sign: `coefficient / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) coefficient: u128,
    pub(super) scale: u32,
}

impl Decimal {
    /// Reads digits with at most one point between them. No sign, exponent or grouping: "1,500" means two different
    /// numbers in two countries.
    pub(super) fn parse(text: &str) -> Result<Self, MoneyError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(fault(text)),
            None => (text, ""),
        };
        if whole.is_empty() || whole.len() + fraction.len() > MOST_DIGITS {
            return Err(fault(text));
        }
        let mut coefficient = 0_u128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(fault(text));
            }
            // At most 24 digits, so this stays far inside 128 bits.
            coefficient = coefficient * 10 + u128::from(byte - b'0');
        }
        let scale = u32::try_from(fraction.len()).map_err(|_| fault(text))?;
        Ok(Self { coefficient, scale })
    }

    /// `10^scale`; fits, since the scale is bounded by the number of digits.
    pub(super) fn divisor(self) -> u128 {
        10_u128.pow(self.scale)
    }
}

fn fault(text: &str) -> MoneyError {
    MoneyError::new(format!(
        "`{text}` is not a plain decimal number such as 0.15 (at most {MOST_DIGITS} digits, no sign, grouping or exponent)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_decimals_only() {
        let read = |text| Decimal::parse(text).map(|d| (d.coefficient, d.scale)).ok();
        assert_eq!(read("0.15"), Some((15, 2)));
        assert_eq!(read("12"), Some((12, 0)));
        assert_eq!(read("00.500"), Some((500, 3)));
        for wrong in [
            "",
            ".5",
            "5.",
            "1,5",
            "1e3",
            "-1",
            "+1",
            "1.2.3",
            "٣",
            "1_0",
            "9999999999999999999999999",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
