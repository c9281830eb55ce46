//! What is in a request, counted before anything is made of it: a message of two bytes on the wire
//! is hundreds in memory.

use tollgate_domain::passed::Signal;

use super::Malformed;

/// Most spans of one request.
pub const MAX_SPANS: usize = 10_000;

/// Most attributes, values, events and links of one request, all together.
pub const MAX_VALUES: usize = 500_000;

/// Most bytes of resources and scopes, if each span had its own: a call of a model that a span tells
/// of goes on record with who recorded it.
pub(super) const MAX_SHARED: usize = 64 << 20;

/// How deep messages may lie within each other.
const MAX_DEPTH: usize = 64;

/// The messages of a request, as far as they can be many.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    ResourceSpans,
    Resource,
    ScopeSpans,
    Scope,
    Span,
    Event,
    Link,
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
    fn field(self, number: u64) -> Self {
        match (self, number) {
            (Self::Request, 1) => Self::ResourceSpans,
            (Self::ResourceSpans, 1) => Self::Resource,
            (Self::ResourceSpans, 2) => Self::ScopeSpans,
            (Self::ScopeSpans, 1) => Self::Scope,
            (Self::ScopeSpans, 2) => Self::Span,
            (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::Span, 9)
            | (Self::Event, 3)
            | (Self::Link, 4)
            | (Self::KeyValues, 1) => Self::KeyValue,
            (Self::Span, 11) => Self::Event,
            (Self::Span, 13) => Self::Link,
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

#[derive(Default)]
struct Counts {
    spans: usize,
    values: usize,
}

impl Counts {
    fn add(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Span => self.spans += 1,
            _ => self.values += 1,
        }
        self.check()
    }

    fn check(&self) -> Result<(), Malformed> {
        let too_many = |what, most| Err(Malformed::TooMany { what, most });
        match self {
            Self { spans, .. } if *spans > MAX_SPANS => too_many("spans", MAX_SPANS),
            Self { values, .. } if *values > MAX_VALUES => {
                too_many("attributes, values, events and links", MAX_VALUES)
            }
            _ => Ok(()),
        }
    }
}

/// Counts what is in a request in protobuf.
pub(super) fn check_protobuf(bytes: &[u8]) -> Result<(), Malformed> {
    walk(bytes, Kind::Request, 0, &mut Counts::default())
}

/// The same of metrics or logs.
pub(super) fn check_passed(bytes: &[u8], signal: Signal) -> Result<(), Malformed> {
    let request = match signal {
        Signal::Metrics => Kind::MetricsRequest,
        Signal::Logs => Kind::LogsRequest,
    };
    walk(bytes, request, 0, &mut Counts::default())
}

fn walk(mut bytes: &[u8], kind: Kind, depth: usize, counts: &mut Counts) -> Result<(), Malformed> {
    if depth > MAX_DEPTH {
        return Err(unreadable("values lie too deep within each other"));
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => drop(take(&mut bytes, 8)?),
            5 => drop(take(&mut bytes, 4)?),
            2 => {
                let length = varint(&mut bytes)?;
                let inner = take(&mut bytes, usize::try_from(length).unwrap_or(usize::MAX))?;
                let field = kind.field(tag >> 3);
                match field {
                    Kind::Leaf => {}
                    Kind::Texts => counts.add(field)?,
                    _ => {
                        counts.add(field)?;
                        walk(inner, field, depth + 1, counts)?;
                    }
                }
            }
            // Groups, which OTLP does not have.
            _ => return Err(unreadable("a field has a wire type that OTLP does not use")),
        }
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    // Nearly all are of one byte.
    match bytes.split_first() {
        Some((first, rest)) if first & 0x80 == 0 => {
            *bytes = rest;
            Ok(u64::from(*first))
        }
        _ => long_varint(bytes),
    }
}

fn long_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(|| unreadable("it breaks off"))?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(unreadable("a number is longer than 10 bytes"))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) =
        bytes.split_at_checked(length).ok_or_else(|| unreadable("it breaks off"))?;
    *bytes = rest;
    Ok(taken)
}

/// Counts what is in a request in JSON: every message is an object.
pub(super) fn check_json(bytes: &[u8]) -> Result<(), Malformed> {
    let mut counts = Counts::default();
    let (mut in_text, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' if !in_text => counts.add(Kind::AnyValue)?,
            _ => {}
        }
    }
    Ok(())
}

/// Counts what spans share as if each had it alone.
#[derive(Default)]
pub(super) struct Shared(usize);

impl Shared {
    /// So many spans have this in common.
    pub(super) fn add(&mut self, bytes: usize, spans: usize) -> Result<(), Malformed> {
        self.0 = self.0.saturating_add(bytes.saturating_mul(spans));
        let what = "bytes of resources and scopes, counted for each of their spans";
        let too_many = Malformed::TooMany { what, most: MAX_SHARED };
        if self.0 > MAX_SHARED { Err(too_many) } else { Ok(()) }
    }
}

fn unreadable(problem: &str) -> Malformed {
    Malformed::Unreadable(problem.to_owned())
}
