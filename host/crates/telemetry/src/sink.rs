//! Where an exporter's batches go: standard output, a file, a receiver.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_domain::span::{Resource, Span};

use crate::console;
use crate::error::TelemetryError;
use crate::ndjson::{self, SpanFile};
use crate::otlp::Otlp;
use crate::settings::{ConsoleFormat, OtlpSettings};
use crate::worker::Worker;

/// How long a batch that the file does not take is retried.
const FILE_RETRIES: Duration = Duration::from_secs(30);

/// How long spans are gathered before they travel together.
const GATHER_OTLP: Duration = Duration::from_millis(200);

/// A batch was not taken.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened and what to do about it.
    pub(crate) message: String,
    /// Whether the same batch may be taken later.
    pub(crate) worth_a_retry: bool,
}

/// One of the places.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Standard output as trees.
    Tree { worker: Worker, colour: bool },
    /// Standard output as JSON lines.
    Json { worker: Worker, resource: Resource },
    /// A file.
    File { worker: Worker, resource: Resource, path: PathBuf },
    /// A receiver.
    Otlp(Box<Otlp>),
}

impl Sink {
    /// Standard output.
    pub(crate) fn console(
        format: ConsoleFormat,
        colour: bool,
        resource: Resource,
    ) -> Result<Self, TelemetryError> {
        let exporter = "console";
        let worker = Worker::start(exporter, |bytes| {
            let mut output = io::stdout().lock();
            output.write_all(bytes)?;
            output.flush()
        });
        let worker = worker.map_err(|source| TelemetryError::Thread { exporter, source })?;
        let colour = colour && io::IsTerminal::is_terminal(&io::stdout());
        Ok(match format {
            ConsoleFormat::Json => Self::Json { worker, resource },
            ConsoleFormat::Tree | ConsoleFormat::Off => Self::Tree { worker, colour },
        })
    }

    /// A file, opened now.
    pub(crate) fn ndjson(path: &Path, resource: Resource) -> Result<Self, TelemetryError> {
        let exporter = "ndjson";
        let mut file = SpanFile::open(path)?;
        let worker = Worker::start(exporter, move |lines| file.append(lines))
            .map_err(|source| TelemetryError::Thread { exporter, source })?;
        Ok(Self::File { worker, resource, path: path.to_owned() })
    }

    /// A receiver, which need not be up.
    pub(crate) fn otlp(
        settings: &OtlpSettings,
        resource: &Resource,
    ) -> Result<Self, TelemetryError> {
        Ok(Self::Otlp(Box::new(Otlp::new(settings, resource)?)))
    }

    /// How long to wait for company before a batch leaves.
    pub(crate) fn gathers_for(&self) -> Duration {
        match self {
            Self::Otlp(_) => GATHER_OTLP,
            Self::Tree { .. } | Self::Json { .. } | Self::File { .. } => Duration::ZERO,
        }
    }

    /// How long a batch is retried.
    pub(crate) fn retries_for(&self) -> Duration {
        match self {
            Self::Otlp(otlp) => otlp.retries_for(),
            Self::File { .. } => FILE_RETRIES,
            Self::Tree { .. } | Self::Json { .. } => Duration::ZERO,
        }
    }

    /// One attempt at one batch.
    pub(crate) async fn write(&self, batch: &[Span]) -> Result<(), Failure> {
        match self {
            Self::Tree { worker, colour } => {
                worker.write(console::trees(batch, *colour)).await.map_err(|e| no_console(&e))
            }
            Self::Json { worker, resource } => {
                worker.write(ndjson::lines(batch, resource)).await.map_err(|e| no_console(&e))
            }
            Self::File { worker, resource, path } => {
                let written = worker.write(ndjson::lines(batch, resource)).await;
                written.map_err(|error| no_file(path, &error))
            }
            Self::Otlp(otlp) => Box::pin(otlp.send(batch)).await,
        }
    }
}

/// Standard output that was closed does not come back.
fn no_console(error: &io::Error) -> Failure {
    Failure {
        message: format!("cannot write spans to standard output: {error}"),
        worth_a_retry: false,
    }
}

fn no_file(path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some disk space",
        io::ErrorKind::FileTooLarge => "move the file away and restart",
        _ => "check the disk and the file's permissions",
    };
    Failure {
        message: format!("cannot write spans to {}: {error}; {advice}", path.display()),
        worth_a_retry: true,
    }
}
