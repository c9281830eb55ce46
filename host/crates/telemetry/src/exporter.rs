//! Exporters: each sends what it is given, once, and says what became of it.
//!
//! Nothing is queued here and nothing is tried again: the ledger is the queue, and whoever reads
//! it at an exporter's cursor decides when to try again from what [`Exporter::send`] says. The
//! same spans may be sent twice (after a crash, or after an answer that was lost); their ids stay
//! the same, so a receiver can drop the copy.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tollgate_domain::passed::Signal;
use tollgate_domain::sampling::TraceRules;
use tollgate_domain::span::{Resource, Span};

use crate::error::TelemetryError;
use crate::settings::{ExporterSettings, StartAt};
use crate::sink::Sink;

/// Spans that were sent and are where they should be, but for those that a receiver counts out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// How many it refused for good; they are not to be sent again.
    pub rejected_spans: u64,
    /// Why, or a warning; for the log.
    pub message: Option<String>,
}

/// Spans that were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The same spans may be taken later.
    Later {
        /// What happened and what to do about it.
        message: String,
        /// How long the receiver asks to be left alone, if it does.
        after: Option<Duration>,
    },
    /// They will never be taken.
    Never {
        /// What happened and what to do about it.
        message: String,
    },
}

/// Builds the exporters that `settings` name. Needs a Tokio runtime around it.
///
/// # Errors
/// [`TelemetryError`] if one cannot start: a file that cannot be opened, a bad certificate, two
/// of the same name. A receiver that is down is no error.
pub fn build_exporters(
    settings: Vec<ExporterSettings>,
    resource: &Resource,
) -> Result<Vec<Exporter>, TelemetryError> {
    let mut names = HashSet::new();
    let mut exporters = Vec::with_capacity(settings.len());
    for exporter in settings {
        if !names.insert(exporter.name.clone()) {
            return Err(TelemetryError::NamedTwice { exporter: exporter.name });
        }
        let sink = Sink::open(&exporter.name, exporter.sink, resource)?;
        let ExporterSettings { name, start_at, traces, .. } = exporter;
        exporters.push(Exporter { name, start_at, traces, sink });
    }
    Ok(exporters)
}

/// One place that spans go to.
#[derive(Debug)]
pub struct Exporter {
    name: String,
    start_at: StartAt,
    traces: Option<TraceRules>,
    sink: Sink,
}

impl Exporter {
    /// Names its cursor; no two exporters have the same.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it begins in a ledger that it has never read.
    #[must_use]
    pub fn start_at(&self) -> StartAt {
        self.start_at
    }

    /// How it waits for whole traces, if it does.
    #[must_use]
    pub fn traces(&self) -> Option<&TraceRules> {
        self.traces.as_ref()
    }

    /// How long it is worth to wait for company before spans are sent.
    #[must_use]
    pub fn gathers_for(&self) -> Duration {
        self.sink.gathers_for()
    }

    /// Sends `spans`, which are whole traces, in one attempt that ends in bounded time unless the
    /// disk or the terminal hangs. After `Ok` they outlive this process; after an error a receiver
    /// may have taken some of them.
    ///
    /// # Errors
    /// Says whether to send the same spans again.
    pub async fn send(&mut self, spans: &[Span]) -> Result<Accepted, SendError> {
        if spans.is_empty() {
            return Ok(Accepted::default());
        }
        self.sink.send(spans).await
    }

    /// Whether metrics or logs of other programs leave here, too: OTLP receivers take them.
    #[must_use]
    pub fn passes(&self, signal: Signal) -> bool {
        self.sink.passes(signal)
    }

    /// Sends a request of metrics or logs as it came, or several behind each other, in one attempt
    /// as [`Exporter::send`].
    ///
    /// # Errors
    /// Says whether to send the same again.
    pub async fn pass(&mut self, signal: Signal, request: Bytes) -> Result<Accepted, SendError> {
        self.sink.pass(signal, request).await
    }

    /// Ends what is under way behind the scenes, such as compressing a file.
    ///
    /// # Errors
    /// [`TelemetryError::Unfinished`] if `deadline` passes first. No span is lost by that: the
    /// next start goes on where this one was cut off.
    pub async fn close(self, deadline: Duration) -> Result<(), TelemetryError> {
        self.sink.close(&self.name, deadline).await
    }
}
