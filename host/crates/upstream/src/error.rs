//! What can go wrong between here and an answer.

use std::path::PathBuf;
use std::time::Duration;

use tollgate_domain::text::one_line;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration is wrong; one line that names the key and its place.
    #[error("{}: {problem}", path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The key, its place and what is wrong.
        problem: String,
    },
    /// The request cannot be sent to any backend of this kind: what it asks for has no translation, or it is not JSON.
    #[error("{message}")]
    Request {
        /// The parameter at fault.
        parameter: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// No connection was made.
    #[error("cannot connect: {problem}")]
    Connect {
        /// Why.
        problem: String,
    },
    /// The connection was lost, or did not speak HTTP.
    #[error("the connection was lost: {problem}")]
    Lost {
        /// How.
        problem: String,
    },
    /// Nothing came for too long before the first byte.
    #[error("no answer within {0:?}")]
    NoFirstByte(Duration),
    /// Nothing came for too long after the first byte.
    #[error("nothing came for {0:?} in the middle of the answer")]
    Idle(Duration),
    /// The answer is not what it says it is.
    #[error("the answer is not {expected}")]
    Garbage {
        /// What it should have been.
        expected: &'static str,
    },
    /// An event or an answer is larger than what is taken.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// Most bytes.
        limit: usize,
    },
    /// A stream ended before its end.
    #[error("the stream ended in the middle")]
    CutOff,
    /// The upstream answered with a status that is worth another try.
    #[error("the upstream answered {0}")]
    Status(u16),
}

/// What kind of error, for metrics and `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// A file is missing or wrong.
    Configuration,
    /// The request itself.
    Request,
    /// No connection.
    Connect,
    /// Connection lost.
    Lost,
    /// Too slow, before or after the first byte.
    Timeout,
    /// Not the protocol, or too large.
    Protocol,
    /// A status that says "not now".
    Status,
}

impl UpstreamErrorKind {
    /// Its name on spans and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Request => "invalid_request",
            Self::Connect => "connect",
            Self::Lost => "connection_lost",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Status => "status",
        }
    }
}

impl UpstreamError {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> UpstreamErrorKind {
        match self {
            Self::Unreadable { .. } | Self::Configuration { .. } => {
                UpstreamErrorKind::Configuration
            }
            Self::Request { .. } => UpstreamErrorKind::Request,
            Self::Connect { .. } => UpstreamErrorKind::Connect,
            Self::Lost { .. } | Self::CutOff => UpstreamErrorKind::Lost,
            Self::NoFirstByte(_) | Self::Idle(_) => UpstreamErrorKind::Timeout,
            Self::Garbage { .. } | Self::TooLarge { .. } => UpstreamErrorKind::Protocol,
            Self::Status(_) => UpstreamErrorKind::Status,
        }
    }

    /// A request with a parameter that cannot be sent on.
    pub(crate) fn parameter(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Request { parameter: Some(name.into()), message: message.into() }
    }
}

/// An error and its causes, as one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    one_line(&line, 512)
}
