//! Putting a cost together.

use crate::{
    bindings::cost_model::exports::tollgate::plugin::cost_model::{
        CostKind, CostLine, Priced, UnpricedReason,
    },
    money::{Currency, OutOfRange, Per, Percent, Pico, Price},
};

/// The lines of one cost, as they are added up.
///
/// The first fault sticks: after it nothing more is added, and [`Cost::finish`] answers `failed` with its message. So a
/// model reads as a list of what is charged, and an amount that does not fit can still never turn into a wrong one.
///
/// ```
/// use tollgate_plugin::{Cost, CostKind, money::Price};
/// let input: Price = "$0.15/M".parse()?;
/// let mut cost = Cost::new();
/// cost.line(CostKind::Input, 1200, input);
/// assert_eq!(cost.total()?.to_string(), "0.00018");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    lines: Vec<CostLine>,
    fault: Option<String>,
}

impl Cost {
    /// No lines yet.
    pub fn new() -> Self {
        Self { lines: Vec::with_capacity(4), fault: None }
    }

    /// Charges a quantity at a price: one line, rounded once.
    pub fn line<P: Per>(&mut self, kind: CostKind, quantity: u64, price: Price<P>) {
        self.push(kind, quantity, price.times(quantity));
    }

    /// Adds a line whose amount is known; negative for a credit.
    pub fn amount(&mut self, kind: CostKind, quantity: u64, amount: Pico) {
        self.push(kind, quantity, Ok(amount));
    }

    /// Takes a part of the lines so far off, as a line of its own.
    pub fn discount(&mut self, percent: Percent) {
        let part = self.total().and_then(|total| percent.of(total)).and_then(Pico::negated);
        self.push(CostKind::Discount, 0, part);
    }

    /// Adds a part of the lines so far on top, as a line of its own.
    pub fn markup(&mut self, percent: Percent) {
        let part = self.total().and_then(|total| percent.of(total));
        self.push(CostKind::Markup, 0, part);
    }

    /// Gives up on this item with a message.
    pub fn fail(&mut self, message: impl Into<String>) {
        self.fault.get_or_insert_with(|| message.into());
    }

    /// The sum of the lines so far.
    ///
    /// # Errors
    /// If it does not fit in one amount.
    pub fn total(&self) -> Result<Pico, OutOfRange> {
        let sum: i128 = self.lines.iter().map(|line| i128::from(line.amount)).sum();
        i64::try_from(sum).map(Pico::new).map_err(|_| OutOfRange)
    }

    /// The answer of a cost model.
    pub fn finish(self) -> Priced {
        match self.fault {
            Some(message) => Priced::Failed(message),
            None => Priced::Cost(self.lines),
        }
    }

    fn push(&mut self, kind: CostKind, quantity: u64, amount: Result<Pico, OutOfRange>) {
        if self.fault.is_some() {
            return;
        }
        match amount {
            Ok(amount) => self.lines.push(CostLine { kind, quantity, amount: amount.get() }),
            Err(error) => self.fail(format!("{error}: {quantity} of {kind:?}")),
        }
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Cost> for Priced {
    fn from(cost: Cost) -> Self {
        cost.finish()
    }
}

impl From<UnpricedReason> for Priced {
    fn from(reason: UnpricedReason) -> Self {
        Self::Unpriced(reason)
    }
}

impl Currency {
    /// Checks that a price was not written in another currency than this one; prices that name none pass.
    ///
    /// # Errors
    /// With a message that names both.
    pub fn check<P: Per>(self, price: Price<P>) -> Result<(), String> {
        match price.currency() {
            Some(other) if other != self => {
                Err(format!("the price is in {other}, the plugin's currency is {self}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discounts_are_lines_and_faults_stick() {
        let mut cost = Cost::new();
        cost.line(CostKind::Input, 1000, "$1/M".parse::<Price>().unwrap());
        cost.discount("10%".parse().unwrap());
        cost.markup("50%".parse().unwrap());
        assert_eq!(cost.total().unwrap().to_string(), "0.00135");
        assert!(matches!(cost.clone().finish(), Priced::Cost(lines) if lines.len() == 3));

        cost.line(CostKind::Output, u64::MAX, "$1/token".parse::<Price>().unwrap());
        cost.line(CostKind::Output, 1, "$1/token".parse::<Price>().unwrap());
        assert!(
            matches!(cost.finish(), Priced::Failed(message) if message.contains("out of range: 18446744073709551615"))
        );
    }
}
