//! Metrics and logs of other programs, which pass through as they were sent.

use serde::{Deserialize, Serialize};

use crate::time::UnixNanos;

/// What OpenTelemetry calls a signal, traces aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Metrics.
    Metrics,
    /// Logs.
    Logs,
}

impl Signal {
    /// Its name in paths and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// A request of metrics or logs. Nobody looks into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// What it is of.
    pub signal: Signal,
    /// Whose it is, where that is known.
    pub tenant: Option<String>,
    /// When it arrived.
    pub arrived: UnixNanos,
    /// The request in protobuf.
    #[serde(with = "crate::value::as_base64")]
    pub request: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stored_and_read_back() {
        let passed = Passed {
            signal: Signal::Logs,
            tenant: Some("acme".to_owned()),
            arrived: UnixNanos(7),
            request: (0..=255).collect(),
        };
        let stored = serde_json::to_string(&passed).unwrap();
        assert!(
            stored.starts_with(r#"{"signal":"logs","tenant":"acme","arrived":7,"request":"AAEC"#)
        );
        assert_eq!(serde_json::from_str::<Passed>(&stored).unwrap(), passed);
        assert!(serde_json::from_str::<Passed>(&stored.replace("AAEC", "!AEC")).is_err());
    }
}
