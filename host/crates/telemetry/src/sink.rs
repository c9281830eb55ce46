//! Where an exporter's spans go: standard output, a file, a receiver.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use tollgate_domain::passed::Signal;
use tollgate_domain::span::{Resource, Span};

use crate::console;
use crate::error::TelemetryError;
use crate::exporter::{Accepted, SendError};
use crate::file::SpanFile;
use crate::ndjson;
use crate::otlp::Otlp;
use crate::otlp_json::OtlpJson;
use crate::settings::{ConsoleFormat, FileSettings, SinkSettings};
use crate::worker::Worker;

/// How long it is worth to wait before a request leaves for a receiver.
const GATHER_OTLP: Duration = Duration::from_millis(200);

/// The same before a file is written: each batch moves a cursor, and that is a commit which the next request waits for.
const GATHER_FILE: Duration = Duration::from_millis(25);

/// One of the places.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Standard output as trees.
    Tree { worker: Worker, colour: bool },
    /// Standard output as JSON lines.
    Json { worker: Worker, resource: Resource },
    /// A file of JSON lines, one a span.
    Ndjson { file: SpanFile, resource: Resource },
    /// A file of OTLP/JSON lines.
    OtlpJson { file: SpanFile, lines: OtlpJson },
    /// A receiver.
    Otlp(Box<Otlp>),
}

impl Sink {
    /// Opens what has to be opened; a receiver need not be up.
    pub(crate) fn open(
        exporter: &str,
        settings: SinkSettings,
        resource: &Resource,
    ) -> Result<Self, TelemetryError> {
        let file = |settings: FileSettings| SpanFile::open(exporter, settings);
        Ok(match settings {
            SinkSettings::Console { format, colour } => {
                Self::console(exporter, format, colour, resource)?
            }
            SinkSettings::Ndjson(settings) => {
                Self::Ndjson { file: file(settings)?, resource: resource.clone() }
            }
            SinkSettings::OtlpJson(settings) => {
                Self::OtlpJson { file: file(settings)?, lines: OtlpJson::new(resource) }
            }
            SinkSettings::Otlp(settings) => Self::Otlp(Box::new(Otlp::new(&settings, resource)?)),
        })
    }

    fn console(
        exporter: &str,
        format: ConsoleFormat,
        colour: bool,
        resource: &Resource,
    ) -> Result<Self, TelemetryError> {
        let worker = Worker::start(exporter, |bytes| {
            let mut output = io::stdout().lock();
            output.write_all(bytes)?;
            output.flush()
        })?;
        let colour = colour && io::IsTerminal::is_terminal(&io::stdout());
        Ok(match format {
            ConsoleFormat::Json => Self::Json { worker, resource: resource.clone() },
            ConsoleFormat::Tree => Self::Tree { worker, colour },
        })
    }

    /// How long to wait for company before spans are sent.
    pub(crate) fn gathers_for(&self) -> Duration {
        match self {
            Self::Otlp(_) => GATHER_OTLP,
            Self::Ndjson { .. } | Self::OtlpJson { .. } => GATHER_FILE,
            // Somebody may be watching.
            Self::Tree { .. } | Self::Json { .. } => Duration::ZERO,
        }
    }

    /// One attempt.
    pub(crate) async fn send(&mut self, spans: &[Span]) -> Result<Accepted, SendError> {
        match self {
            Self::Tree { worker, colour } => {
                on_console(worker.write(console::trees(spans, *colour)).await)
            }
            Self::Json { worker, resource } => {
                on_console(worker.write(ndjson::lines(spans, resource)).await)
            }
            Self::Ndjson { file, resource } => {
                file.append(ndjson::lines(spans, resource)).await?;
                Ok(Accepted::default())
            }
            Self::OtlpJson { file, lines } => {
                let (lines, accepted) = lines.of(spans);
                file.append(lines).await?;
                Ok(accepted)
            }
            Self::Otlp(otlp) => Box::pin(otlp.send(spans)).await,
        }
    }

    /// Whether metrics or logs of other programs may leave here.
    pub(crate) fn passes(&self, signal: Signal) -> bool {
        matches!(self, Self::Otlp(otlp) if otlp.passes(signal))
    }

    /// One attempt at a request of those.
    pub(crate) async fn pass(
        &mut self,
        signal: Signal,
        request: Bytes,
    ) -> Result<Accepted, SendError> {
        match self {
            Self::Otlp(otlp) => Box::pin(otlp.pass(signal, request)).await,
            _ => Ok(Accepted::default()),
        }
    }

    /// Ends what is under way.
    pub(crate) async fn close(self, name: &str, deadline: Duration) -> Result<(), TelemetryError> {
        match self {
            Self::Ndjson { file, .. } | Self::OtlpJson { file, .. } => {
                file.close(name, deadline).await
            }
            Self::Tree { .. } | Self::Json { .. } | Self::Otlp(_) => Ok(()),
        }
    }
}

/// Standard output that was closed does not come back.
fn on_console(written: io::Result<()>) -> Result<Accepted, SendError> {
    match written {
        Ok(()) => Ok(Accepted::default()),
        Err(error) => {
            let message = format!("cannot write spans to standard output: {error}");
            Err(SendError::Never { message })
        }
    }
}
