//! Exact money: whole pico-units (10^-12 of a currency's major unit) in 128 bits.
//!
//! No arithmetic here touches a float. [`Money::to_f64`] exists only for the telemetry fields
//! whose conventions ask for a double.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Decimal digits of a pico-unit.
const DIGITS: usize = 12;

/// Room for the longest decimal.
const DECIMAL_BYTES: usize = 48;

/// Pico-units in one major unit.
pub const PICO_PER_UNIT: i128 = 1_000_000_000_000;

/// ISO 4217 code, three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// US dollar.
    pub const USD: Self = Self(*b"USD");

    /// Reads a code. Only the form is checked, so that a currency minted tomorrow works.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        let bytes: [u8; 3] = code.as_bytes().try_into().ok()?;
        bytes.iter().all(u8::is_ascii_uppercase).then_some(Self(bytes))
    }

    /// The three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        // Always ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl TryFrom<String> for Currency {
    type Error = String;

    fn try_from(code: String) -> Result<Self, Self::Error> {
        Self::parse(&code)
            .ok_or_else(|| format!("{code:?} is not an ISO 4217 code such as \"USD\""))
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.code().to_owned()
    }
}

/// An exact amount of one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Money {
    /// Pico-units; negative for a credit.
    pub pico: i128,
    /// Of which currency.
    pub currency: Currency,
}

impl Money {
    /// `pico` pico-units of `currency`.
    #[must_use]
    pub fn new(pico: i128, currency: Currency) -> Self {
        Self { pico, currency }
    }

    /// The exact decimal number of major units, shortest form: `0.0000036`, `-1.5`, `0`.
    #[must_use]
    pub fn decimal(&self) -> String {
        let magnitude = self.pico.unsigned_abs();
        let unit = PICO_PER_UNIT.unsigned_abs();
        // What fits 64 bits, as nearly all does, is divided in a fraction of the time.
        let (whole, part) = match (u64::try_from(magnitude), u64::try_from(unit)) {
            (Ok(magnitude), Ok(unit)) => {
                (u128::from(magnitude / unit), u128::from(magnitude % unit))
            }
            _ => (magnitude / unit, magnitude % unit),
        };
        let mut decimal = String::with_capacity(DECIMAL_BYTES);
        if self.pico < 0 {
            decimal.push('-');
        }
        decimal.push_str(itoa::Buffer::new().format(whole));
        if part != 0 {
            // With a whole unit before it, whose digit becomes the point, it has all its zeros.
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(unit + part).strip_prefix('1').unwrap_or_default();
            decimal.push('.');
            decimal.push_str(digits.trim_end_matches('0'));
        }
        decimal
    }

    /// Reads what [`Money::decimal`] writes, and any plain decimal of at most twelve places.
    #[must_use]
    pub fn parse_decimal(text: &str, currency: Currency) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || part.len() > DIGITS || !all_digits(whole) || !all_digits(part) {
            return None;
        }
        // With the sign from the start: the smallest number has no positive counterpart.
        let sign = if negative { -1 } else { 1 };
        let whole: i128 = whole.parse().ok()?;
        let part: i128 = format!("{part:0<DIGITS$}").parse().ok()?;
        let pico = whole.checked_mul(sign * PICO_PER_UNIT)?.checked_add(sign * part)?;
        Some(Self::new(pico, currency))
    }

    /// The nearest double, for fields whose convention is a double. Never calculate with it.
    #[must_use]
    pub fn to_f64(&self) -> f64 {
        // Parsing the exact decimal rounds once; dividing two converted integers would round twice.
        self.decimal().parse().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.decimal(), self.currency)
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    amount: String,
    currency: Currency,
}

impl Serialize for Money {
    /// As `{"amount": "0.0000036", "currency": "USD"}`: a string, since JSON numbers are doubles
    /// to most readers.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written { amount: self.decimal(), currency: self.currency }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Self::parse_decimal(&written.amount, written.currency).ok_or_else(|| {
            serde::de::Error::custom(format!("{:?} is not a decimal amount", written.amount))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usd(pico: i128) -> Money {
        Money::new(pico, Currency::USD)
    }

    #[test]
    fn decimals_are_exact_and_shortest() {
        let cases: [(i128, &str); 8] = [
            (i128::MIN, "-170141183460469231731687303.715884105728"),
            (0, "0"),
            (1, "0.000000000001"),
            (3_600_000, "0.0000036"),
            (1_500_000_000_000, "1.5"),
            (-1, "-0.000000000001"),
            (-2_000_000_000_000, "-2"),
            (i128::from(i64::MAX), "9223372.036854775807"),
        ];
        for (pico, text) in cases {
            assert_eq!(usd(pico).decimal(), text);
        }
    }

    #[test]
    fn what_is_not_a_plain_decimal_is_refused() {
        for text in ["", ".5", "1e-6", "+1", "1.0000000000001", "0x1", "--1", "1,5", " 1"] {
            assert_eq!(Money::parse_decimal(text, Currency::USD), None, "{text:?}");
        }
        for code in ["usd", "US", "USDX", "U$D"] {
            assert_eq!(Currency::parse(code), None, "{code:?}");
        }
    }

    proptest! {
        #[test]
        fn decimal_reads_back(pico in any::<i128>()) {
            let money = usd(pico);
            prop_assert_eq!(Money::parse_decimal(&money.decimal(), Currency::USD), Some(money));
        }
    }
}
