//! What can go wrong with telemetry. Nothing here ever fails a request.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An exporter that cannot start, or did not finish.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// A setting makes no sense.
    #[error("{name} is {value:?}: {problem}")]
    Setting {
        /// The setting or variable.
        name: String,
        /// What it holds.
        value: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot open {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process writes to the same span file.
    #[error("{} is in use by another process: give each gateway a file of its own", path.display())]
    FileInUse {
        /// Which file.
        path: PathBuf,
    },
    /// The client of an OTLP receiver cannot be built.
    #[error("cannot export by OTLP to {endpoint}")]
    Client {
        /// Where to.
        endpoint: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system gave no thread.
    #[error("cannot start the thread of exporter {exporter}: {source}")]
    Thread {
        /// Which exporter.
        exporter: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An exporter was closed before it had delivered everything.
    #[error("exporter {exporter} ran out of time with {left} spans undelivered")]
    Unfinished {
        /// Which exporter.
        exporter: &'static str,
        /// How many spans it had left.
        left: u64,
    },
}

/// Classes of [`TelemetryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TelemetryErrorKind {
    /// The operator has to change a setting.
    Configuration,
    /// The machine refused: a file, a thread.
    System,
    /// Spans were left behind.
    Unfinished,
}

impl TelemetryError {
    /// Which class it belongs to.
    #[must_use]
    pub fn kind(&self) -> TelemetryErrorKind {
        match self {
            Self::Setting { .. } | Self::FileInUse { .. } | Self::Client { .. } => {
                TelemetryErrorKind::Configuration
            }
            Self::File { .. } | Self::Thread { .. } => TelemetryErrorKind::System,
            Self::Unfinished { .. } => TelemetryErrorKind::Unfinished,
        }
    }
}
