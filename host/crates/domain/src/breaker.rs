//! How a breaker stands, whatever it keeps from being asked: a plugin, or another server.

use std::time::Duration;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// What is behind it is asked.
    #[default]
    Closed,
    /// It is not asked.
    Open {
        /// For so long; what is asked next decides.
        wait: Duration,
    },
    /// The pause is over, and one call decides.
    HalfOpen,
}

impl BreakerState {
    /// The names of all states.
    pub const NAMES: [&str; 3] = ["closed", "open", "half_open"];

    /// Its name in metrics and in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        let [closed, open, half_open] = Self::NAMES;
        match self {
            Self::Closed => closed,
            Self::Open { .. } => open,
            Self::HalfOpen => half_open,
        }
    }
}
