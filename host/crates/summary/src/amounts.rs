//! Sums of money, one for each currency.

use std::collections::BTreeMap;

use tollgate_domain::{Currency, Money};

use crate::error::SummaryError;

/// A sum for each currency, by its code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Money>);

impl Amounts {
    /// Adds an amount to the sum of its currency.
    ///
    /// # Errors
    /// [`SummaryError::Overflow`].
    pub fn add(&mut self, money: Money) -> Result<(), SummaryError> {
        let sum =
            self.0.entry(money.currency.code().to_owned()).or_insert(Money::new(0, money.currency));
        sum.pico = added(sum.pico, money.pico, money.currency)?;
        Ok(())
    }

    /// The sums, ordered by currency.
    pub fn iter(&self) -> impl Iterator<Item = Money> {
        self.0.values().copied()
    }

    /// The sum of one currency; none if nothing was added.
    #[must_use]
    pub fn get(&self, currency: Currency) -> Option<Money> {
        self.0.get(currency.code()).copied()
    }

    /// `1.5 USD + 2 EUR`, or a dash.
    #[must_use]
    pub fn text(&self) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        self.iter().map(|money| money.to_string()).collect::<Vec<_>>().join(" + ")
    }
}

/// A checked sum.
///
/// # Errors
/// [`SummaryError::Overflow`].
pub fn added(a: i128, b: i128, currency: Currency) -> Result<i128, SummaryError> {
    a.checked_add(b).ok_or_else(|| SummaryError::Overflow { currency: currency.code().to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_do_not_depend_on_the_order(mut picos in prop::collection::vec(any::<i64>(), 0..50)) {
            let sum = |picos: &[i64]| {
                let mut amounts = Amounts::default();
                for pico in picos {
                    amounts.add(Money::new(i128::from(*pico), Currency::USD)).unwrap();
                }
                amounts
            };
            let before = sum(&picos);
            picos.reverse();
            prop_assert_eq!(sum(&picos), before);
        }
    }
}
