//! On what terms a request was let in, or which limit kept it out.

use serde::{Deserialize, Serialize};

/// What keys, limits and budgets said of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Id of the API key, which is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The limit that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitApplied>,
    /// How limits were kept while the store that is shared could not be asked: `open`, `closed` or
    /// `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Budgets of which more is spent than their soft threshold, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub soft_budgets: Vec<String>,
}

impl Admission {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitApplied {
    /// Whose limit: `key`, `tenant` or `model`.
    pub scope: String,
    /// Of what: `requests`, `tokens`, `concurrent` or `budget`.
    pub what: String,
    /// How much is allowed, in words: `60 a minute`, `12.5 USD a day`.
    pub limit: String,
}
