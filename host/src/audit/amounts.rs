//! Decimals as others write them.

use tollgate_domain::{Currency, Money};

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAnAmount {
    /// It is no decimal number.
    Malformed,
    /// It has more than twelve decimal places that matter.
    TooFine,
    /// It is out of range.
    TooLarge,
}

/// Reads an amount as invoices have it: `1.5`, `-0.25`, `$1,234.50`, `1.2e-05`. Exact: no float on the way. With
/// `rounded` what is finer than a pico-unit is rounded to the nearest one, ties to even.
pub(super) fn parse(text: &str, currency: Currency, rounded: bool) -> Result<Money, NotAnAmount> {
    let (negative, text) = sign(text.trim());
    let text = text.strip_prefix(['$', '€', '£', '¥']).unwrap_or(text).trim_start();
    let (again, text) = if negative { (false, text) } else { sign(text) };
    let negative = negative || again;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = ungrouped(whole).ok_or(NotAnAmount::Malformed)?;
    if (whole.is_empty() && part.is_empty()) || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotAnAmount::Malformed);
    }
    let digits = whole + part;
    // The value is `digits` times ten to the power of this many, in pico-units.
    let places = i32::try_from(part.len()).map_err(|_| NotAnAmount::TooFine)?;
    let shift = exponent.saturating_sub(places).saturating_add(12);
    let pico = scaled(digits.trim_start_matches('0'), shift, rounded)?;
    Ok(Money::new(if negative { -pico } else { pico }, currency))
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn exponent_of(text: &str) -> Result<i32, NotAnAmount> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NotAnAmount::Malformed);
    }
    text.parse().map_err(|_| NotAnAmount::Malformed)
}

/// Digits without the commas between thousands, which stand there in every place or in none.
fn ungrouped(whole: &str) -> Option<String> {
    let mut groups = whole.split(',');
    let first = groups.next()?;
    let grouped = whole.contains(',');
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fine = digits(first)
        && (!grouped || (1..=3).contains(&first.len()))
        && groups.all(|group| group.len() == 3 && digits(group));
    fine.then(|| whole.replace(',', ""))
}

/// `digits` times ten to the power of `shift`, whole.
fn scaled(digits: &str, shift: i32, rounded: bool) -> Result<i128, NotAnAmount> {
    if digits.is_empty() {
        return Ok(0);
    }
    if shift >= 0 {
        let zeros = usize::try_from(shift).map_err(|_| NotAnAmount::TooLarge)?;
        if zeros > 38 {
            return Err(NotAnAmount::TooLarge);
        }
        return format!("{digits}{}", "0".repeat(zeros)).parse().map_err(|_| NotAnAmount::TooLarge);
    }
    let cut = usize::try_from(shift.unsigned_abs()).map_err(|_| NotAnAmount::TooFine)?;
    let (kept, lost) =
        digits.split_at_checked(digits.len().saturating_sub(cut)).unwrap_or(("", digits));
    let whole: i128 =
        if kept.is_empty() { 0 } else { kept.parse().map_err(|_| NotAnAmount::TooLarge)? };
    if lost.bytes().all(|b| b == b'0') {
        return Ok(whole);
    }
    if !rounded {
        return Err(NotAnAmount::TooFine);
    }
    // Fewer digits than places: the first of those cut off is a zero.
    let half = match lost.split_at_checked(1) {
        Some((first, rest)) if lost.len() == cut => match first.cmp("5") {
            std::cmp::Ordering::Equal if rest.bytes().all(|b| b == b'0') => whole % 2 == 1,
            order => order.is_ge(),
        },
        _ => false,
    };
    whole.checked_add(i128::from(half)).ok_or(NotAnAmount::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, rounded: bool) -> Result<String, NotAnAmount> {
        parse(text, Currency::USD, rounded).map(|money| money.decimal())
    }

    #[test]
    fn amounts_are_read_as_invoices_have_them() {
        for (text, expected) in [
            ("0", "0"),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("5.", "5"),
            (" -0.25 ", "-0.25"),
            ("+3", "3"),
            ("$1,234.50", "1234.5"),
            ("-$1.00", "-1"),
            ("$-1.00", "-1"),
            ("1,234,567", "1234567"),
            ("1.2e-05", "0.000012"),
            ("12E3", "12000"),
            ("0.1230000000000000000000", "0.123"),
            ("0e9999", "0"),
            ("0.000000000001", "0.000000000001"),
        ] {
            assert_eq!(read(text, false).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "", "-", ".", "1,23", "1,2345", "12,34.5", "1.2.3", "1 2", "--1", "NaN", "0x1", "1e",
            "1e-", "1e99999", "١",
        ] {
            assert_eq!(read(text, true), Err(NotAnAmount::Malformed), "{text}");
        }
        for text in ["1e40", "1e9999", "9999999999999999999999999999"] {
            assert_eq!(read(text, true), Err(NotAnAmount::TooLarge), "{text}");
        }
    }

    #[test]
    fn what_is_finer_than_a_pico_unit_is_rounded_if_that_is_allowed() {
        for (text, rounded) in [
            ("1.2340000000000001e-05", "0.00001234"),
            ("0.0000000000005", "0"),
            ("0.0000000000015", "0.000000000002"),
            ("0.0000000000025", "0.000000000002"),
            ("0.00000000000250001", "0.000000000003"),
            ("0.00000000000049", "0"),
            ("-0.0000000000006", "-0.000000000001"),
            ("1e-9999", "0"),
        ] {
            assert_eq!(read(text, false), Err(NotAnAmount::TooFine), "{text}");
            assert_eq!(read(text, true).as_deref(), Ok(rounded), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_we_write_we_read(pico in -10_i128.pow(30)..10_i128.pow(30)) {
            let money = Money::new(pico, Currency::USD);
            prop_assert_eq!(parse(&money.decimal(), Currency::USD, false), Ok(money));
            let shifted = format!("{pico}e-12");
            prop_assert_eq!(parse(&shifted, Currency::USD, false), Ok(money));
        }

        #[test]
        fn reading_never_panics(text in "\\PC{0,40}|[-+$0-9.,eE]{0,60}") {
            let _ = parse(&text, Currency::USD, true);
        }
    }
}
