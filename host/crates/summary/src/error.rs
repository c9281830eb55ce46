//! Why there is no sum.

/// Why there is no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SummaryError {
    /// A sum left the range of money.
    #[error(
        "the amounts in {currency} add up to more than can be counted; narrow the period or the tenant"
    )]
    Overflow {
        /// Of which currency.
        currency: String,
    },
    /// There are more groups than anyone could read.
    #[error("there are more than {0} groups; group by less, or narrow the period or the tenant")]
    Groups(usize),
}
