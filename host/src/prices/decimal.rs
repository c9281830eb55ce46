//! Numbers of JSON as exact decimals, and as prices per million.

/// Digits that the price table's plugin reads at most.
const MOST_DIGITS: usize = 24;
/// Beyond this nobody means a price; it keeps a hostile exponent from making a long text.
const LARGEST_EXPONENT: i32 = 100;

/// Why a text is no price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPrice {
    /// It is no number.
    NoNumber,
    /// It is below zero.
    Negative,
    /// It has more digits than a price may have.
    TooManyDigits,
}

/// A price for one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Price {
    /// Without leading zeros; empty for zero.
    digits: String,
    /// The power of ten that the digits are multiplied by.
    exponent: i32,
}

impl Price {
    /// From a number as it stands in a file, such as `1.25e-05`. No digit is lost.
    pub(super) fn read(text: &str) -> Result<Self, NoPrice> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, exponent.parse::<i32>().map_err(|_| NoPrice::NoNumber)?)
            }
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoPrice::NoNumber);
        }
        let scale = i32::try_from(fraction.len()).map_err(|_| NoPrice::TooManyDigits)?;
        let digits = digits.trim_start_matches('0');
        let significant = digits.trim_end_matches('0');
        if significant.is_empty() {
            return Ok(Self { digits: String::new(), exponent: 0 });
        }
        if negative {
            return Err(NoPrice::Negative);
        }
        let zeros = i32::try_from(digits.len().saturating_sub(significant.len()));
        let zeros = zeros.map_err(|_| NoPrice::TooManyDigits)?;
        let exponent = exponent.saturating_sub(scale).saturating_add(zeros);
        if exponent.abs() > LARGEST_EXPONENT {
            return Err(NoPrice::TooManyDigits);
        }
        Ok(Self { digits: significant.to_owned(), exponent })
    }

    /// Whether it is nothing.
    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// As dollars for a million, such as `$12.5/M`.
    pub(super) fn per_million(&self) -> Result<String, NoPrice> {
        const MILLION: i32 = 6;
        let exponent = self.exponent.saturating_add(MILLION);
        let count = |n: i32| usize::try_from(n).unwrap_or_default();
        let text = if self.is_zero() {
            "0".to_owned()
        } else if exponent >= 0 {
            format!("{}{}", self.digits, "0".repeat(count(exponent)))
        } else {
            let below = count(exponent.saturating_neg());
            let padded = format!("{:0>width$}", self.digits, width = below.saturating_add(1));
            let (whole, fraction) = padded.split_at(padded.len().saturating_sub(below));
            format!("{whole}.{fraction}")
        };
        if text.bytes().filter(u8::is_ascii_digit).count() > MOST_DIGITS {
            return Err(NoPrice::TooManyDigits);
        }
        Ok(format!("${text}/M"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Result<String, NoPrice> {
        Price::read(text).and_then(|price| price.per_million())
    }

    #[test]
    fn every_way_to_write_a_number() {
        for (text, price) in [
            ("1.25e-05", "$12.5/M"),
            ("2e-06", "$2/M"),
            ("0.000002", "$2/M"),
            ("2.4E-7", "$0.24/M"),
            ("3.0000000000000004e-07", "$0.30000000000000004/M"),
            ("5.46875e-07", "$0.546875/M"),
            ("0.0", "$0/M"),
            ("-0.0", "$0/M"),
            ("0e9", "$0/M"),
            ("1", "$1000000/M"),
            ("1e3", "$1000000000/M"),
            ("1.50", "$1500000/M"),
            ("1e-12", "$0.000001/M"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(price), "{text}");
        }
        for (text, error) in [
            ("", NoPrice::NoNumber),
            ("null", NoPrice::NoNumber),
            ("1.2.3", NoPrice::NoNumber),
            ("e5", NoPrice::NoNumber),
            (".5", NoPrice::NoNumber),
            ("1e", NoPrice::NoNumber),
            ("1e99999999999", NoPrice::NoNumber),
            ("0x10", NoPrice::NoNumber),
            ("-1e-06", NoPrice::Negative),
            ("1e-2000000000", NoPrice::TooManyDigits),
            ("1e2000000000", NoPrice::TooManyDigits),
            ("1e-40", NoPrice::TooManyDigits),
            ("0.1234567890123456789012345678901", NoPrice::TooManyDigits),
        ] {
            assert_eq!(shown(text), Err(error), "{text}");
        }
    }

    proptest! {
        /// What is written means the same number: compared as whole numbers, which lose nothing.
        #[test]
        fn no_digit_is_lost(whole in 0_u64..1000, micros in 0_u64..1_000_000, down in 0_i32..7) {
            let text = format!("{whole}.{micros:06}e-{down}");
            let price = shown(&text).unwrap();
            let number = price.strip_prefix('$').and_then(|price| price.strip_suffix("/M")).unwrap();
            let (a, b) = number.split_once('.').unwrap_or((number, ""));
            prop_assert!(b.len() <= 12);
            let in_picos: u128 = format!("{a}{b:0<12}").parse().unwrap();
            // Twelve places, and a million for each one: 6 places of the fraction, `down` of the exponent.
            let wanted = u128::from(whole * 1_000_000 + micros) * 10_u128.pow(u32::try_from(12 - down).unwrap());
            prop_assert_eq!(in_picos, wanted);
        }

        #[test]
        fn nothing_panics(text in ".*", number in "-?[0-9]{0,40}\\.?[0-9]{0,40}(e-?[0-9]{0,12})?") {
            let _ = (shown(&text), shown(&number));
        }
    }
}
