//! Spans that other programs recorded and sent us: what they carry besides what ours do, and the
//! batches in which they are stored.

mod call;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::call::ReceivedCall;
use crate::id::SpanContext;
use crate::span::{Attributes, Resource, Span, is_zero};
use crate::time::UnixNanos;

/// What a received span carries besides. Whatever a sender says is kept, so that what passes
/// through is what was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Received {
    /// OTLP's flags of the span, as they were sent.
    pub flags: u32,
    /// Spans that it has to do with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SpanLink>,
    /// Attributes that were left out before it was sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes: u32,
    /// Events that were left out before it was sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_events: u32,
    /// Links that were left out before it was sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_links: u32,
    /// What the rest does not tell of it.
    #[serde(flatten)]
    pub verbatim: Verbatim,
    /// Who recorded it. Stored once for all spans of a [`Group`].
    #[serde(skip)]
    pub origin: Arc<Origin>,
}

/// Fields of a span in OTLP's protobuf that its other facts do not tell, as they were sent: so they leave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verbatim {
    /// The fields, one behind another: those of a newer OTLP, links that lead nowhere, and those which
    /// say more, or other things, than we understand.
    #[serde(with = "crate::value::as_base64", skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<u8>,
    /// Numbers of fields, as bits, that leave as they stand there or not at all.
    #[serde(skip_serializing_if = "is_zero")]
    pub instead: u32,
}

/// A span that another one has to do with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    /// Which.
    pub context: SpanContext,
    /// OTLP's flags of the link, as they were sent.
    pub flags: u32,
    /// Details.
    pub attributes: Attributes,
    /// How many of them were left out before it was sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_attributes: u32,
}

/// Who recorded a span.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The process: `service.name` and the like.
    pub resource: Resource,
    /// Attributes of the resource that were left out before it was sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub resource_dropped_attributes: u32,
    /// Fields of the resource, in OTLP's protobuf, that are not read: references to entities, and those
    /// of a newer OTLP.
    #[serde(with = "crate::value::as_base64", skip_serializing_if = "Vec::is_empty")]
    pub resource_unread: Vec<u8>,
    /// Conventions that the resource follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_schema_url: String,
    /// The instrumentation within it.
    pub scope: Scope,
    /// Conventions that the spans follow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub schema_url: String,
}

/// OpenTelemetry's instrumentation scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Details.
    pub attributes: Attributes,
    /// How many of them were left out before it was sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped_attributes: u32,
    /// Fields of a newer OTLP, in protobuf.
    #[serde(with = "crate::value::as_base64", skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<u8>,
}

/// Spans of one origin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Group {
    /// Who recorded them.
    #[serde(deserialize_with = "crate::shared::deserialize")]
    pub origin: Arc<Origin>,
    /// The spans, in the order they were sent.
    pub spans: Vec<Span>,
}

/// Spans that arrived together, of one tenant, and that are no requests of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanBatch {
    /// Whose they are, where that is known.
    pub tenant: Option<String>,
    /// When they arrived.
    pub arrived: UnixNanos,
    /// The spans by who recorded them.
    pub groups: Vec<Group>,
}

impl Origin {
    /// How many bytes it has about, as it was sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Self { resource, resource_unread, resource_schema_url, scope, schema_url, .. } = self;
        let texts = [resource_schema_url, schema_url, &scope.name, &scope.version];
        texts.iter().map(|text| text.len()).sum::<usize>()
            + resource.attributes.bytes()
            + resource_unread.len()
            + scope.attributes.bytes()
            + scope.unread.len()
    }

    /// Whether two spans are of one origin; none is this process.
    #[must_use]
    pub fn is_same(one: Option<&Arc<Self>>, other: Option<&Arc<Self>>) -> bool {
        match (one, other) {
            // Of spans that came together it is one and the same.
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            _ => false,
        }
    }
}

/// Has neighbours of equal origins share one: whoever asks then whether these are the same looks only where they lie.
pub fn share_origins<'a>(spans: impl IntoIterator<Item = &'a mut Span>) {
    // The one that is shared, and the one that was last found to be equal.
    let mut last = None::<[Arc<Origin>; 2]>;
    for received in spans.into_iter().filter_map(|span| span.received.as_mut()) {
        let origin = &mut received.origin;
        match &mut last {
            Some([shared, _]) if Arc::ptr_eq(shared, origin) => {}
            Some([shared, equal]) if Arc::ptr_eq(equal, origin) || shared == origin => {
                *equal = std::mem::replace(origin, Arc::clone(shared));
            }
            _ => last = Some([Arc::clone(origin), Arc::clone(origin)]),
        }
    }
}

/// Neighbours of one origin together, with their origin; none is this process.
pub fn by_origin(spans: &[Span]) -> impl Iterator<Item = (Option<&Arc<Origin>>, &[Span])> {
    let alike = |one: &Span, other: &Span| Origin::is_same(one.origin(), other.origin());
    spans.chunk_by(alike).map(|of_one| (of_one.first().and_then(Span::origin), of_one))
}

impl SpanBatch {
    /// All spans, each with its origin.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let groups = self.groups.iter();
        groups
            .flat_map(|Group { origin, spans }| spans.iter().map(|span| of(span, origin)))
            .collect()
    }

    /// How many spans there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.spans.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `span` as one of `origin`.
fn of(span: &Span, origin: &Arc<Origin>) -> Span {
    let mut span = span.clone();
    span.received.get_or_insert_default().origin = Arc::clone(origin);
    span
}
