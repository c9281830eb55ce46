//! Every way of writing a price, and its arithmetic against plain integers.

use super::*;
use proptest::prelude::*;

fn picos<P: Per>(text: &str, quantity: u64) -> i64 {
    let price: Price<P> = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    price.times(quantity).unwrap_or_else(|error| panic!("{text}: {error}")).get()
}

#[test]
fn ways_to_write_a_price_per_token() {
    for text in [
        "$0.15/M",
        "$0.15/1M",
        "$ 0.15 / 1M tokens",
        "0.15/M tokens",
        "0.15 USD/Mtok",
        "USD 0.15/MTok",
        "USD0.15 per 1000000 tokens",
        "$0.15 per 1M",
        "$0.15 per million tokens",
        "0.00015/1k",
        "0.00015 per thousand tokens",
        "0.00015/K",
        "€150/B",
        "0.00000015/token",
        "$0.0000003/2",
    ] {
        assert_eq!(picos::<Token>(text, 1), 150_000, "{text}");
    }
}

#[test]
fn currencies_are_kept() {
    let currency = |text: &str| text.parse::<Price>().unwrap().currency().map(|c| c.to_string());
    assert_eq!(currency("$1/M").as_deref(), Some("USD"));
    assert_eq!(currency("€1/M").as_deref(), Some("EUR"));
    assert_eq!(currency("1 CHF/M").as_deref(), Some("CHF"));
    assert_eq!(currency("SEK 1/M").as_deref(), Some("SEK"));
    assert_eq!(currency("1/M"), None);
}

#[test]
fn time_energy_and_requests() {
    assert_eq!(picos::<DeviceTime>("$2/h", 3_600_000_000_000), 2_000_000_000_000);
    assert_eq!(picos::<DeviceTime>("$2 per device-hour", 1_800_000_000_000), 1_000_000_000_000);
    assert_eq!(picos::<DeviceTime>("$0.0006/s", 1_000_000_000), 600_000_000);
    // 5/9 of a pico per nanosecond, rounded once.
    assert_eq!(picos::<DeviceTime>("$2/h", 1), 1);
    assert_eq!(picos::<DeviceTime>("$2/h", 9), 5);
    assert_eq!(picos::<Energy>("0.12 EUR/kWh", 3_600_000_000), 120_000_000_000);
    assert_eq!(picos::<Energy>("$0.12/kWh", 1), 33);
    assert_eq!(picos::<Request>("$0.01/request", 1), 10_000_000_000);
    assert_eq!(picos::<Request>("$5/1k requests", 3), 15_000_000_000);
}

#[test]
fn what_is_not_a_price_says_why() {
    for text in [
        "",
        "/",
        "$/M",
        "0.15",
        "$0.15",
        "0.15/m",
        "$-1/M",
        "1,5/M",
        "0.15/M apples",
        "$$1/M",
        "$1/0",
        "1/M/M",
        "$0.15/",
        "$1/h",
        "1e-6/token",
        "99999999999999999999999/token",
        "0.1 dollars/M",
    ] {
        let error = text.parse::<Price>().expect_err(text).to_string();
        assert!(error.contains('`'), "{text}: {error}");
    }
    assert!("$1/M".parse::<Price<DeviceTime>>().is_err());
    assert!("$1/M".parse::<Price<Request>>().is_err());
    assert!("$1/kwh".parse::<Price<Energy>>().is_err());
    let error = "$1/h".parse::<Price>().unwrap_err().to_string();
    assert_eq!(
        error,
        "`$1/h` is not a price per token: `h` is no unit of it; write it like $0.15/M"
    );
}

proptest! {
    /// Six decimals per million are whole picos per token, so the product is plain integer arithmetic.
    #[test]
    fn per_million_prices_multiply_exactly(micros in 0_u64..10_000_000_000, quantity in 0_u64..1_000_000_000) {
        let text = format!("${}.{:06}/M", micros / 1_000_000, micros % 1_000_000);
        let price: Price = text.parse().unwrap();
        let expected = i128::from(micros) * i128::from(quantity);
        prop_assert_eq!(price.times(quantity).map(Pico::get).ok(), i64::try_from(expected).ok());
    }

    /// Any unit: compared as fractions, the amount is at most half a pico from the exact product.
    #[test]
    fn any_unit_rounds_once(thousandths in 0_u64..1_000_000, unit in 1_u64..100_000, quantity in 0_u64..100_000) {
        let price: Price = format!("{}.{:03}/{unit}", thousandths / 1000, thousandths % 1000).parse().unwrap();
        let exact = i128::from(thousandths) * 1_000_000_000 * i128::from(quantity);
        if let Ok(amount) = price.times(quantity) {
            let off = (i128::from(amount.get()) * i128::from(unit) - exact).abs();
            prop_assert!(2 * off <= i128::from(unit));
        }
    }

    #[test]
    fn the_same_price_in_two_units_is_equal(micros in 0_u64..1_000_000_000) {
        let per_million: Price = format!("{}.{:06}/M", micros / 1_000_000, micros % 1_000_000).parse().unwrap();
        let per_thousand: Price = format!("{}.{:09}/1k", micros / 1_000_000_000, micros % 1_000_000_000).parse().unwrap();
        prop_assert_eq!(per_million, per_thousand);
    }

    #[test]
    fn reading_never_panics(text in "[$€£A-Z0-9 ./a-z-]{0,24}|\\PC{0,24}") {
        let _ = text.parse::<Price>();
        let _ = text.parse::<Price<DeviceTime>>();
        let _ = text.parse::<Price<Request>>();
    }
}
