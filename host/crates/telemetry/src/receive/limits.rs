//! What is in a request, counted before anything is made of it: a message of two bytes on the wire
//! is hundreds in memory.

use tollgate_domain::otlp::{Content, Fields, Most};
use tollgate_domain::passed::Signal;

use super::Malformed;

/// Most spans of one request.
pub const MAX_SPANS: usize = 10_000;

/// Most attributes, values, events and links of one request, all together.
pub const MAX_VALUES: usize = 500_000;

/// Most bytes of resources and scopes, if each span had its own: a call of a model that a span tells
/// of goes on record with who recorded it.
const MAX_SHARED: usize = 64 << 20;

/// All of them, of a request of spans.
pub(super) const MOST: Most = Most { spans: MAX_SPANS, values: MAX_VALUES, shared: MAX_SHARED };

/// How deep messages may lie within each other.
const MAX_DEPTH: usize = 64;

/// The messages of a request of metrics or logs, as far as they can be many.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Resource,
    Scope,
    KeyValue,
    AnyValue,
    Values,
    KeyValues,
    MetricsRequest,
    ResourceMetrics,
    ScopeMetrics,
    Metric,
    /// A gauge or a sum.
    Numbers,
    Number,
    Histograms,
    Histogram,
    ExponentialHistograms,
    ExponentialHistogram,
    Summaries,
    Summary,
    Exemplar,
    LogsRequest,
    ResourceLogs,
    ScopeLogs,
    LogRecord,
    EntityRef,
    /// Text that may stand there many times.
    Texts,
    /// Text, bytes, numbers: nothing within.
    Leaf,
}

impl Kind {
    /// What lies in the field of that number.
    fn field(self, number: u32) -> Self {
        match (self, number) {
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::KeyValues, 1) => Self::KeyValue,
            (Self::MetricsRequest, 1) => Self::ResourceMetrics,
            (Self::ResourceMetrics, 1) | (Self::ResourceLogs, 1) => Self::Resource,
            (Self::ResourceMetrics, 2) => Self::ScopeMetrics,
            (Self::ScopeMetrics, 1) | (Self::ScopeLogs, 1) => Self::Scope,
            (Self::ScopeMetrics, 2) => Self::Metric,
            (Self::Resource, 3) => Self::EntityRef,
            (Self::EntityRef, 3 | 4) => Self::Texts,
            (Self::Metric, 5 | 7) => Self::Numbers,
            (Self::Metric, 9) => Self::Histograms,
            (Self::Metric, 10) => Self::ExponentialHistograms,
            (Self::Metric, 11) => Self::Summaries,
            (Self::Numbers, 1) => Self::Number,
            (Self::Histograms, 1) => Self::Histogram,
            (Self::ExponentialHistograms, 1) => Self::ExponentialHistogram,
            (Self::Summaries, 1) => Self::Summary,
            (Self::Number, 5) | (Self::Histogram, 8) | (Self::ExponentialHistogram, 11) => {
                Self::Exemplar
            }
            (Self::LogsRequest, 1) => Self::ResourceLogs,
            (Self::ResourceLogs, 2) => Self::ScopeLogs,
            (Self::ScopeLogs, 2) => Self::LogRecord,
            (Self::Metric, 12)
            | (Self::Number | Self::Exemplar | Self::Summary, 7)
            | (Self::Histogram, 9)
            | (Self::ExponentialHistogram, 1)
            | (Self::LogRecord, 6) => Self::KeyValue,
            // What has numbers only counts as a value.
            (Self::Summary, 6) => Self::Values,
            (Self::KeyValue, 2) | (Self::Values, 1) | (Self::LogRecord, 5) => Self::AnyValue,
            (Self::AnyValue, 5) => Self::Values,
            (Self::AnyValue, 6) => Self::KeyValues,
            _ => Self::Leaf,
        }
    }
}

/// Counts what is in a request of metrics or logs in protobuf.
pub(super) fn check_passed(bytes: &[u8], signal: Signal) -> Result<(), Malformed> {
    let request = match signal {
        Signal::Metrics => Kind::MetricsRequest,
        Signal::Logs => Kind::LogsRequest,
    };
    walk(bytes, request, 0, &mut 0)
}

fn walk(bytes: &[u8], kind: Kind, depth: usize, values: &mut usize) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed::unreadable("values lie too deep within each other"));
    }
    for field in Fields(bytes) {
        let (number, Content::Bytes(inner)) = field? else { continue };
        let kind = kind.field(number);
        if kind != Kind::Leaf {
            count(values)?;
        }
        if !matches!(kind, Kind::Leaf | Kind::Texts) {
            walk(inner, kind, depth + 1, values)?;
        }
    }
    Ok(())
}

/// One more.
fn count(values: &mut usize) -> Result<(), Malformed> {
    *values += 1;
    let (what, most) = ("attributes, values, events and links", MAX_VALUES);
    if *values > most { Err(Malformed::TooMany { what, most }) } else { Ok(()) }
}

/// Counts what is in a request in JSON: every message is an object.
pub(super) fn check_json(bytes: &[u8]) -> Result<(), Malformed> {
    let mut values = 0;
    let (mut in_text, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' if !in_text => count(&mut values)?,
            _ => {}
        }
    }
    Ok(())
}
