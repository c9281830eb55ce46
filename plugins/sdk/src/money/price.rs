//! Prices as people write them: "$0.15/M", "1.25 USD per 1M tokens", "€2/h".

use super::{
    Currency, MoneyError, OutOfRange, Pico, amount::PICOS_PER_UNIT, decimal::Decimal, ratio::Ratio,
};
use std::{marker::PhantomData, str::FromStr};

/// An exact price of one unit of `P`, in picos as a fraction.
///
/// ```
/// use tollgate_plugin::money::{DeviceTime, Price};
///
/// let input: Price = "$0.15/M".parse()?;
/// assert_eq!(input.times(1200)?.to_string(), "0.00018");
///
/// let rate: Price<DeviceTime> = "$2/h".parse()?;
/// assert_eq!(rate.times(90_000_000_000)?.to_string(), "0.05"); // 90 seconds, in nanoseconds
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// What is read: an amount as a plain decimal, with a sign (`$ € £ ¥`) or an ISO code before or after it, or neither;
/// then `/` or `per`; then the unit. For tokens and requests a unit is a count (`1000`, `k`, `1k`, `M`, `1M`, `million`, `B`),
/// a noun (`token`, `request`), or both; for tokens the noun may be left out. For time and energy it is a noun
/// (`h`, `device-hour`, `s`, `kWh`) with an optional count. A lower-case `m` is refused, since it could be either.
#[derive(Debug)]
pub struct Price<P: Per = Token> {
    per_unit: Ratio,
    currency: Option<Currency>,
    unit: PhantomData<fn() -> P>,
}

impl<P: Per> Price<P> {
    /// The price of a quantity, rounded once: to the nearest pico, halves to even. The quantity counts the base
    /// unit of `P`, which is what the contract counts: tokens, requests, nanoseconds, millijoules.
    ///
    /// # Errors
    /// If the amount does not fit.
    pub fn times(self, quantity: u64) -> Result<Pico, OutOfRange> {
        self.per_unit.times(quantity)
    }

    /// The currency, where the text named one.
    pub fn currency(self) -> Option<Currency> {
        self.currency
    }

    /// Whether everything is free at this price.
    pub fn is_free(self) -> bool {
        self.per_unit.is_zero()
    }
}

/// What a price is for.
pub trait Per {
    /// For messages: "a price per token".
    const NAME: &str;
    /// An example for messages.
    const EXAMPLE: &str;
    /// Nouns, and how many base units one of it is.
    const NOUNS: &[(&str, u64)];
    /// Whether `k`, `M` and `B` count these.
    const COUNTED: bool;
    /// Whether a count alone is a unit, without a noun.
    const BARE: bool;
}

/// Priced by the token.
#[derive(Debug)]
pub struct Token;
impl Per for Token {
    const NAME: &str = "token";
    const EXAMPLE: &str = "$0.15/M";
    const NOUNS: &[(&str, u64)] = &[("token", 1), ("tokens", 1), ("tok", 1), ("Tok", 1)];
    const COUNTED: bool = true;
    const BARE: bool = true;
}

/// Priced by the request.
#[derive(Debug)]
pub struct Request;
impl Per for Request {
    const NAME: &str = "request";
    const EXAMPLE: &str = "$0.01/request";
    const NOUNS: &[(&str, u64)] = &[("request", 1), ("requests", 1), ("call", 1), ("calls", 1)];
    const COUNTED: bool = true;
    const BARE: bool = false;
}

/// Priced by device time; the base unit is a nanosecond.
#[derive(Debug)]
pub struct DeviceTime;
impl Per for DeviceTime {
    const NAME: &str = "device time";
    const EXAMPLE: &str = "$2/h";
    const NOUNS: &[(&str, u64)] = &[
        ("s", SECOND),
        ("second", SECOND),
        ("seconds", SECOND),
        ("device-second", SECOND),
        ("GPU-second", SECOND),
        ("min", 60 * SECOND),
        ("minute", 60 * SECOND),
        ("h", 3600 * SECOND),
        ("hour", 3600 * SECOND),
        ("hours", 3600 * SECOND),
        ("device-hour", 3600 * SECOND),
        ("GPU-hour", 3600 * SECOND),
    ];
    const COUNTED: bool = false;
    const BARE: bool = false;
}
const SECOND: u64 = 1_000_000_000;

/// Priced by energy; the base unit is a millijoule.
#[derive(Debug)]
pub struct Energy;
impl Per for Energy {
    const NAME: &str = "energy";
    const EXAMPLE: &str = "$0.12/kWh";
    const NOUNS: &[(&str, u64)] = &[
        ("kWh", 3_600_000_000),
        ("MWh", 3_600_000_000_000),
        ("Wh", 3_600_000),
        ("J", 1000),
        ("kJ", 1_000_000),
    ];
    const COUNTED: bool = false;
    const BARE: bool = false;
}

impl<P: Per> FromStr for Price<P> {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (amount, unit) =
            text.split_once('/').or_else(|| text.split_once(" per ")).ok_or_else(|| {
                MoneyError::new(format!("`{text}` has no unit; write it like {}", P::EXAMPLE))
            })?;
        let units = base_units::<P>(unit.trim()).ok_or_else(|| {
            MoneyError::new(format!(
                "`{text}` is not a price per {}: `{}` is no unit of it; write it like {}",
                P::NAME,
                unit.trim(),
                P::EXAMPLE
            ))
        })?;
        let (currency, number) = split_currency(amount.trim());
        let decimal = Decimal::parse(number)?;
        // 24 digits and 12 more are less than 2^120; the divisor can grow past 128 bits only with an absurd unit.
        let picos = decimal.coefficient * u128::from(PICOS_PER_UNIT);
        let per_unit =
            decimal.divisor().checked_mul(u128::from(units)).and_then(|d| Ratio::new(picos, d));
        let per_unit = per_unit.ok_or_else(|| {
            MoneyError::new(format!("`{text}` has too many digits to be kept exactly"))
        })?;
        Ok(Self { per_unit, currency, unit: PhantomData })
    }
}

/// How many base units a unit such as "1M tokens" is.
fn base_units<P: Per>(unit: &str) -> Option<u64> {
    let digits = unit.len() - unit.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, rest) = unit.split_at_checked(digits)?;
    let rest = rest.trim_start();
    let count: u64 = if count.is_empty() { 1 } else { count.parse().ok().filter(|&n| n > 0)? };
    let noun = |word: &str| P::NOUNS.iter().find(|(noun, _)| *noun == word).map(|&(_, size)| size);
    let bare = |word: &str| (P::BARE && word.is_empty()).then_some(1_u64);
    if let Some(size) = noun(rest) {
        return count.checked_mul(size);
    }
    if rest.is_empty() {
        return if digits > 0 && P::BARE { Some(count) } else { None };
    }
    if !P::COUNTED {
        return None;
    }
    COUNTS.iter().find_map(|(word, factor)| {
        let rest = rest.strip_prefix(word)?.trim_start();
        noun(rest).or_else(|| bare(rest))?.checked_mul(*factor)?.checked_mul(count)
    })
}

const COUNTS: [(&str, u64); 7] = [
    ("thousand", 1_000),
    ("k", 1_000),
    ("K", 1_000),
    ("million", 1_000_000),
    ("M", 1_000_000),
    ("billion", 1_000_000_000),
    ("B", 1_000_000_000),
];

/// Takes a sign or a code off an amount; what is left has to be a number.
fn split_currency(amount: &str) -> (Option<Currency>, &str) {
    if let Some((sign, number)) =
        amount.chars().next().zip(amount.get(amount.chars().next().map_or(0, char::len_utf8)..))
        && let Some(currency) = Currency::from_sign(sign)
    {
        return (Some(currency), number.trim_start());
    }
    let before = amount.get(..3).zip(amount.get(3..));
    let after = amount.len().checked_sub(3).and_then(|at| amount.get(at..).zip(amount.get(..at)));
    for (code, number) in before.into_iter().chain(after) {
        if let Ok(currency) = code.parse() {
            return (Some(currency), number.trim());
        }
    }
    (None, amount)
}

// By hand, since a derive would ask the same of `P`.
impl<P: Per> Clone for Price<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Per> Copy for Price<P> {}
impl<P: Per> PartialEq for Price<P> {
    fn eq(&self, other: &Self) -> bool {
        self.per_unit == other.per_unit && self.currency == other.currency
    }
}
impl<P: Per> Eq for Price<P> {}

super::deserialize_from_text!(Price<P>, P::EXAMPLE, P: Per);

#[cfg(test)]
#[path = "price_tests.rs"]
mod tests;
