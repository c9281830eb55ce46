//! What OTLP's messages hold: opentelemetry-proto 1.11, the field's number, its name in JSON, and what it is.

use self::Kind::{
    Bool, Bytes, Double, Enum, Fixed32, Fixed64, Id, Int32, Int64, Sfixed64, Sint32, Text, Uint32,
    Uint64,
};
use self::What::{OneOf, Optional, Packed, Plain, Repeated};

/// A message, by its fields in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Message {
    pub(super) fields: &'static [Field],
}

/// A field of one.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) what: What,
}

/// How often a field stands there.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Once, unless it is zero or empty.
    Plain(Kind),
    /// Once, if it was given, whatever it is.
    Optional(Kind),
    /// The same, and then no other of the message's fields of this sort.
    OneOf(Kind),
    /// As often as there are items.
    Repeated(Kind),
    /// Once, with all items in it.
    Packed(Kind),
}

impl What {
    pub(super) fn kind(self) -> Kind {
        match self {
            Plain(kind) | Optional(kind) | OneOf(kind) | Repeated(kind) | Packed(kind) => kind,
        }
    }
}

/// What stands in a field, by protobuf's name of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Bytes,
    /// Bytes that are hexadecimal in JSON.
    Id,
    Bool,
    Enum,
    Int32,
    Uint32,
    Sint32,
    Fixed32,
    Int64,
    Uint64,
    Fixed64,
    Sfixed64,
    Double,
    Of(&'static Message),
}

/// One of these messages.
const fn one(message: &'static Message) -> What {
    Optional(Kind::Of(message))
}

/// Any number of them.
const fn many(message: &'static Message) -> What {
    Repeated(Kind::Of(message))
}

/// It, and no other.
const fn either(message: &'static Message) -> What {
    OneOf(Kind::Of(message))
}

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($number:literal $field:literal: $what:expr),* $(,)? })*) => { $(
        $(#[$about])*
        pub(crate) static $name: Message = Message {
            fields: &[$(Field { number: $number, name: $field, what: $what }),*],
        };
    )* };
}

messages! {
    /// A request of spans.
    TRACES { 1 "resourceSpans": many(&RESOURCE_SPANS) }
    RESOURCE_SPANS {
        1 "resource": one(&RESOURCE),
        2 "scopeSpans": many(&SCOPE_SPANS),
        3 "schemaUrl": Plain(Text),
    }
    SCOPE_SPANS {
        1 "scope": one(&SCOPE),
        2 "spans": many(&SPAN),
        3 "schemaUrl": Plain(Text),
    }
    /// A span.
    SPAN {
        1 "traceId": Plain(Id),
        2 "spanId": Plain(Id),
        3 "traceState": Plain(Text),
        4 "parentSpanId": Plain(Id),
        16 "flags": Plain(Fixed32),
        5 "name": Plain(Text),
        6 "kind": Plain(Enum),
        7 "startTimeUnixNano": Plain(Fixed64),
        8 "endTimeUnixNano": Plain(Fixed64),
        9 "attributes": many(&KEY_VALUE),
        10 "droppedAttributesCount": Plain(Uint32),
        11 "events": many(&EVENT),
        12 "droppedEventsCount": Plain(Uint32),
        13 "links": many(&LINK),
        14 "droppedLinksCount": Plain(Uint32),
        15 "status": one(&STATUS),
    }
    EVENT {
        1 "timeUnixNano": Plain(Fixed64),
        2 "name": Plain(Text),
        3 "attributes": many(&KEY_VALUE),
        4 "droppedAttributesCount": Plain(Uint32),
    }
    LINK {
        1 "traceId": Plain(Id),
        2 "spanId": Plain(Id),
        3 "traceState": Plain(Text),
        4 "attributes": many(&KEY_VALUE),
        5 "droppedAttributesCount": Plain(Uint32),
        6 "flags": Plain(Fixed32),
    }
    STATUS { 2 "message": Plain(Text), 3 "code": Plain(Enum) }

    /// Who sends.
    RESOURCE {
        1 "attributes": many(&KEY_VALUE),
        2 "droppedAttributesCount": Plain(Uint32),
        3 "entityRefs": many(&ENTITY_REF),
    }
    ENTITY_REF {
        1 "schemaUrl": Plain(Text),
        2 "type": Plain(Text),
        3 "idKeys": Repeated(Text),
        4 "descriptionKeys": Repeated(Text),
    }
    /// Who records within it.
    SCOPE {
        1 "name": Plain(Text),
        2 "version": Plain(Text),
        3 "attributes": many(&KEY_VALUE),
        4 "droppedAttributesCount": Plain(Uint32),
    }
    KEY_VALUE {
        1 "key": Plain(Text),
        2 "value": one(&ANY_VALUE),
        3 "keyStrindex": Plain(Int32),
    }
    ANY_VALUE {
        1 "stringValue": OneOf(Text),
        2 "boolValue": OneOf(Bool),
        3 "intValue": OneOf(Int64),
        4 "doubleValue": OneOf(Double),
        5 "arrayValue": either(&ARRAY_VALUE),
        6 "kvlistValue": either(&KEY_VALUE_LIST),
        7 "bytesValue": OneOf(Bytes),
        8 "stringValueStrindex": OneOf(Int32),
    }
    ARRAY_VALUE { 1 "values": many(&ANY_VALUE) }
    KEY_VALUE_LIST { 1 "values": many(&KEY_VALUE) }

    /// A request of metrics.
    METRICS { 1 "resourceMetrics": many(&RESOURCE_METRICS) }
    RESOURCE_METRICS {
        1 "resource": one(&RESOURCE),
        2 "scopeMetrics": many(&SCOPE_METRICS),
        3 "schemaUrl": Plain(Text),
    }
    SCOPE_METRICS {
        1 "scope": one(&SCOPE),
        2 "metrics": many(&METRIC),
        3 "schemaUrl": Plain(Text),
    }
    METRIC {
        1 "name": Plain(Text),
        2 "description": Plain(Text),
        3 "unit": Plain(Text),
        12 "metadata": many(&KEY_VALUE),
        5 "gauge": either(&GAUGE),
        7 "sum": either(&SUM),
        9 "histogram": either(&HISTOGRAM),
        10 "exponentialHistogram": either(&EXPONENTIAL_HISTOGRAM),
        11 "summary": either(&SUMMARY),
    }
    GAUGE { 1 "dataPoints": many(&NUMBER_POINT) }
    SUM {
        1 "dataPoints": many(&NUMBER_POINT),
        2 "aggregationTemporality": Plain(Enum),
        3 "isMonotonic": Plain(Bool),
    }
    HISTOGRAM {
        1 "dataPoints": many(&HISTOGRAM_POINT),
        2 "aggregationTemporality": Plain(Enum),
    }
    EXPONENTIAL_HISTOGRAM {
        1 "dataPoints": many(&EXPONENTIAL_HISTOGRAM_POINT),
        2 "aggregationTemporality": Plain(Enum),
    }
    SUMMARY { 1 "dataPoints": many(&SUMMARY_POINT) }
    NUMBER_POINT {
        7 "attributes": many(&KEY_VALUE),
        2 "startTimeUnixNano": Plain(Fixed64),
        3 "timeUnixNano": Plain(Fixed64),
        4 "asDouble": OneOf(Double),
        6 "asInt": OneOf(Sfixed64),
        5 "exemplars": many(&EXEMPLAR),
        8 "flags": Plain(Uint32),
    }
    HISTOGRAM_POINT {
        9 "attributes": many(&KEY_VALUE),
        2 "startTimeUnixNano": Plain(Fixed64),
        3 "timeUnixNano": Plain(Fixed64),
        4 "count": Plain(Fixed64),
        5 "sum": Optional(Double),
        6 "bucketCounts": Packed(Fixed64),
        7 "explicitBounds": Packed(Double),
        8 "exemplars": many(&EXEMPLAR),
        10 "flags": Plain(Uint32),
        11 "min": Optional(Double),
        12 "max": Optional(Double),
    }
    EXPONENTIAL_HISTOGRAM_POINT {
        1 "attributes": many(&KEY_VALUE),
        2 "startTimeUnixNano": Plain(Fixed64),
        3 "timeUnixNano": Plain(Fixed64),
        4 "count": Plain(Fixed64),
        5 "sum": Optional(Double),
        6 "scale": Plain(Sint32),
        7 "zeroCount": Plain(Fixed64),
        8 "positive": one(&BUCKETS),
        9 "negative": one(&BUCKETS),
        10 "flags": Plain(Uint32),
        11 "exemplars": many(&EXEMPLAR),
        12 "min": Optional(Double),
        13 "max": Optional(Double),
        14 "zeroThreshold": Plain(Double),
    }
    BUCKETS { 1 "offset": Plain(Sint32), 2 "bucketCounts": Packed(Uint64) }
    SUMMARY_POINT {
        7 "attributes": many(&KEY_VALUE),
        2 "startTimeUnixNano": Plain(Fixed64),
        3 "timeUnixNano": Plain(Fixed64),
        4 "count": Plain(Fixed64),
        5 "sum": Plain(Double),
        6 "quantileValues": many(&VALUE_AT_QUANTILE),
        8 "flags": Plain(Uint32),
    }
    VALUE_AT_QUANTILE { 1 "quantile": Plain(Double), 2 "value": Plain(Double) }
    EXEMPLAR {
        7 "filteredAttributes": many(&KEY_VALUE),
        2 "timeUnixNano": Plain(Fixed64),
        3 "asDouble": OneOf(Double),
        6 "asInt": OneOf(Sfixed64),
        4 "spanId": Plain(Id),
        5 "traceId": Plain(Id),
    }

    /// A request of logs.
    LOGS { 1 "resourceLogs": many(&RESOURCE_LOGS) }
    RESOURCE_LOGS {
        1 "resource": one(&RESOURCE),
        2 "scopeLogs": many(&SCOPE_LOGS),
        3 "schemaUrl": Plain(Text),
    }
    SCOPE_LOGS {
        1 "scope": one(&SCOPE),
        2 "logRecords": many(&LOG_RECORD),
        3 "schemaUrl": Plain(Text),
    }
    LOG_RECORD {
        1 "timeUnixNano": Plain(Fixed64),
        11 "observedTimeUnixNano": Plain(Fixed64),
        2 "severityNumber": Plain(Enum),
        3 "severityText": Plain(Text),
        5 "body": one(&ANY_VALUE),
        6 "attributes": many(&KEY_VALUE),
        7 "droppedAttributesCount": Plain(Uint32),
        8 "flags": Plain(Fixed32),
        9 "traceId": Plain(Id),
        10 "spanId": Plain(Id),
        12 "eventName": Plain(Text),
    }
}
