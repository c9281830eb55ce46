//! The call to another server: which one, when, and what was tried before it answered.

use serde::{Deserialize, Serialize};

use crate::time::{Interval, UnixNanos};

/// The call that answered, or the last one that did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamCall {
    /// The backend, as the configuration names it.
    pub backend: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// From the first attempt to the last byte.
    pub interval: Interval,
    /// Status of its answer, if one came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// `id` of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Attempts that failed before this one, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedAttempt>,
}

/// An attempt that brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// The backend that was asked.
    pub backend: String,
    /// When it had failed.
    pub at: UnixNanos,
    /// How.
    pub error: String,
}
