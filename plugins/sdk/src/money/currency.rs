//! ISO 4217 codes.

use super::MoneyError;
use std::{fmt, str::FromStr};

/// A currency by its ISO 4217 code, three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// United States dollar.
    pub const USD: Self = Self(*b"USD");
    /// Euro.
    pub const EUR: Self = Self(*b"EUR");
    /// Pound sterling.
    pub const GBP: Self = Self(*b"GBP");
    /// Yen.
    pub const JPY: Self = Self(*b"JPY");

    /// The code.
    pub fn code(&self) -> &str {
        // Three ASCII letters by construction.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// What a sign in front of an amount stands for: `$`, `€`, `£`, `¥`. Other currencies are written by code.
    pub(super) fn from_sign(sign: char) -> Option<Self> {
        match sign {
            '$' => Some(Self::USD),
            '€' => Some(Self::EUR),
            '£' => Some(Self::GBP),
            '¥' => Some(Self::JPY),
            _ => None,
        }
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(MoneyError::new(format!("`{text}` is not an ISO 4217 code such as USD"))),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

super::deserialize_from_text!(Currency, "\"USD\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_upper_case_letters() {
        assert_eq!("CHF".parse::<Currency>().unwrap().to_string(), "CHF");
        for wrong in ["", "usd", "USD ", "US", "DOLLAR", "€"] {
            assert!(wrong.parse::<Currency>().is_err(), "{wrong}");
        }
    }
}
