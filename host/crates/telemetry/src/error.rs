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
    #[error("cannot export by OTLP to {endpoint}: {problem}")]
    Client {
        /// Where to.
        endpoint: String,
        /// Why, with all causes.
        problem: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system gave no thread.
    #[error("cannot start the thread of exporter {exporter}: {source}")]
    Thread {
        /// Which exporter.
        exporter: String,
        /// Why.
        source: io::Error,
    },
    /// Two exporters have one name, and so one cursor.
    #[error("two exporters are named {exporter}: give each a name of its own")]
    NamedTwice {
        /// The name.
        exporter: String,
    },
    /// An exporter was closed before it had ended what it does behind the scenes.
    #[error("exporter {exporter} ran out of time {left}; the next start goes on with it")]
    Unfinished {
        /// Which exporter.
        exporter: String,
        /// What it was doing.
        left: &'static str,
    },
}

/// Classes of [`TelemetryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TelemetryErrorKind {
    /// The operator has to change a setting.
    Configuration,
    /// The machine refused: a file, a thread.
    System,
    /// Something is left for the next start.
    Unfinished,
}

impl TelemetryError {
    /// Which class it belongs to.
    #[must_use]
    pub fn kind(&self) -> TelemetryErrorKind {
        match self {
            Self::Setting { .. }
            | Self::FileInUse { .. }
            | Self::NamedTwice { .. }
            | Self::Client { .. } => TelemetryErrorKind::Configuration,
            Self::File { .. } | Self::Thread { .. } => TelemetryErrorKind::System,
            Self::Unfinished { .. } => TelemetryErrorKind::Unfinished,
        }
    }
}
