//! Exact money: prices as written by people, amounts as the contract counts them.
//!
//! No float appears anywhere. A [`Price`] is a fraction, kept exactly however odd its unit is ("$2/h" is 5/9 of a pico
//! per nanosecond), and it is rounded once, when it is multiplied by a quantity and becomes the amount of one cost line:
//! to the nearest pico, halves to even. Everything is checked: a value that does not fit is an error, never a wrapped
//! number and never a panic.

mod amount;
mod currency;
mod decimal;
mod percent;
mod price;
mod ratio;

pub use amount::Pico;
pub use currency::Currency;
pub use percent::Percent;
pub use price::{DeviceTime, Energy, Per, Price, Request, Token};

use serde::de::Visitor;
use std::{fmt, marker::PhantomData, str::FromStr};

/// Why a text is not money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoneyError(String);

impl MoneyError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for MoneyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MoneyError {}

/// An amount beyond what one cost line can hold: about 9.2 million units of the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the amount is out of range")
    }
}

impl std::error::Error for OutOfRange {}

/// Lets a type that is written as text stand in a configuration; the error carries the parser's own words.
macro_rules! deserialize_from_text {
    ($type:ty, $expected:expr $(, $generic:ident: $bound:ident)?) => {
        impl<'de $(, $generic: $bound)?> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::money::FromText($expected, std::marker::PhantomData))
            }
        }
    };
}
pub(crate) use deserialize_from_text;

/// Reads a `T` from text; the string says what is expected, for a value that is no text at all.
pub(crate) struct FromText<T>(pub(crate) &'static str, pub(crate) PhantomData<fn() -> T>);

impl<T: FromStr<Err = MoneyError>> Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text such as {}", self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}
