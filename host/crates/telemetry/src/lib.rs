//! What the world sees of a request: span names, the way from a record to spans, trace
//! propagation, the exporters that carry spans away, and metrics.
//!
//! Spans are built from finished records, so nothing here is on the token path. OpenTelemetry's
//! crates are used for one thing, the messages of OTLP, and stay behind [`Exporter`]. No prompt
//! and no answer is ever put on a span.

mod attributes;
mod console;
mod environment;
mod error;
mod exporter;
mod file;
pub mod genai;
mod json;
pub mod metrics;
pub mod names;
mod ndjson;
mod otlp;
mod otlp_json;
pub mod propagation;
pub mod receive;
mod resource;
mod rotation;
mod settings;
mod sink;
mod spans;
mod text;
mod worker;

#[cfg(test)]
#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

pub use attributes::error_type;
pub use environment::{FromEnvironment, from_environment};
pub use error::{TelemetryError, TelemetryErrorKind};
pub use exporter::{Accepted, Exporter, SendError, build_exporters};
pub use ndjson::span_json;
pub use resource::resource;
pub use settings::{
    Compression, ConsoleFormat, ExporterSettings, FileSettings, OtlpSettings, Protocol, Rotation,
    SinkSettings, StartAt,
};
pub use spans::{has_cost_status, not_billed, plugin_failed, spans, upstream_context};
