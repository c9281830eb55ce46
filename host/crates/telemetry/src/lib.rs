//! What the world sees of a request: span names, the way from a record to spans, trace
//! propagation, the exporters that carry spans away, and metrics.
//!
//! Spans are built from finished records, so nothing here is on the token path. OpenTelemetry's
//! crates are used for one thing, sending OTLP, and stay behind [`ExporterHandle`]. No prompt and
//! no answer is ever put on a span.

mod attributes;
mod console;
mod counts;
mod environment;
mod error;
mod exporter;
pub mod metrics;
pub mod names;
mod ndjson;
mod otlp;
mod otlp_client;
pub mod propagation;
mod resource;
mod settings;
mod sink;
mod spans;
mod text;
mod worker;

pub use attributes::error_type;
pub use counts::ExporterCounts;
pub use environment::from_environment;
pub use error::{TelemetryError, TelemetryErrorKind};
pub use exporter::{ExporterHandle, Overflow, start_exporters};
pub use resource::resource;
pub use settings::{Compression, ConsoleFormat, ExporterSettings, OtlpSettings, Protocol};
pub use spans::{plugin_failed, spans};
