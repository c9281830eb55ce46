//! Which plugin did what, and what went wrong when one failed.

use serde::{Deserialize, Serialize};

/// One exact build of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// Its own name for itself: `tollgate/cost-per-token`.
    pub name: String,
    /// Its semantic version.
    pub version: String,
    /// SHA-256 of the component file, 64 hex digits.
    pub digest: String,
}

/// Why a plugin gave no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It executed a trapping instruction or aborted.
    Trap,
    /// It ran past its deadline.
    Deadline,
    /// It asked for more memory, tables or instances than it may have.
    Memory,
    /// It recursed past its stack.
    Stack,
    /// It handed back more than the host takes.
    ResultTooLarge,
    /// It answered a batch with the wrong number of answers.
    WrongLength,
    /// It answered outside the contract: an index out of range, an undeclared key, bad text.
    InvalidAnswer,
    /// Its amounts do not add up within the range of money.
    Overflow,
    /// It reported an error of its own.
    Reported,
    /// No instance of it could be started.
    Unavailable,
    /// It was not asked: it has failed too often lately.
    BreakerOpen,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Stack,
        Self::ResultTooLarge,
        Self::WrongLength,
        Self::InvalidAnswer,
        Self::Overflow,
        Self::Reported,
        Self::Unavailable,
        Self::BreakerOpen,
    ];

    /// Its name on spans and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::ResultTooLarge => "result_too_large",
            Self::WrongLength => "wrong_length",
            Self::InvalidAnswer => "invalid_answer",
            Self::Overflow => "overflow",
            Self::Reported => "reported",
            Self::Unavailable => "unavailable",
            Self::BreakerOpen => "breaker_open",
        }
    }
}

/// One failure of one plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginFault {
    /// Which plugin.
    pub plugin: PluginIdentity,
    /// What kind of failure.
    pub kind: FaultKind,
    /// For people: what happened, in one line.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_at_its_own_place() {
        for (place, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.name());
        }
    }
}
