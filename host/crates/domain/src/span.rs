//! A span as plugins and exporters see it, whoever made it.

mod attributes;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::attributes::gathered;
pub use self::attributes::{Attributes, Entry, Key};
use crate::id::{SpanContext, SpanId};
use crate::received::{Origin, Received};
use crate::time::{Interval, UnixNanos};
pub use crate::value::Value;

/// OpenTelemetry's span kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are OpenTelemetry's")]
pub enum SpanKind {
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// OpenTelemetry's span status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanStatus {
    /// Nothing was said.
    Unset,
    /// Explicitly good.
    Ok,
    /// Failed, and how.
    Error(String),
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// What happened.
    pub name: Key,
    /// When.
    pub time: UnixNanos,
    /// Details.
    pub attributes: Attributes,
    /// How many of them were left out before we saw it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_attributes: u32,
}

impl SpanEvent {
    /// One with nothing left out.
    #[must_use]
    pub fn new(name: impl Into<Key>, time: UnixNanos, attributes: Attributes) -> Self {
        Self { name: name.into(), time, attributes, dropped_attributes: 0 }
    }
}

/// Whether it is zero, as most counts are: then it does not stand on record.
pub(crate) fn is_zero<T: Default + PartialEq>(count: &T) -> bool {
    *count == T::default()
}

/// One timed operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Trace, id, flags.
    pub context: SpanContext,
    /// Its parent, in this process or another's.
    pub parent: Option<SpanId>,
    /// Whether the parent is in another process.
    pub parent_is_remote: bool,
    /// Its name.
    pub name: Key,
    /// Its kind.
    pub kind: SpanKind,
    /// Start and end.
    pub interval: Interval,
    /// How it ended.
    pub status: SpanStatus,
    /// Facts about it.
    pub attributes: Attributes,
    /// Moments in it, in order.
    pub events: Vec<SpanEvent>,
    /// What it carries besides, if another program recorded and sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Box<Received>>,
}

impl Span {
    /// One that is ours and has nothing else yet.
    #[must_use]
    pub fn new(
        context: SpanContext,
        name: impl Into<Key>,
        kind: SpanKind,
        interval: Interval,
    ) -> Self {
        Self {
            context,
            parent: None,
            parent_is_remote: false,
            name: name.into(),
            kind,
            interval,
            status: SpanStatus::Unset,
            attributes: Attributes::new(),
            events: Vec::new(),
            received: None,
        }
    }

    /// How many bytes it has about, as OTLP writes it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// Ids, times, kind and status.
        const FIXED: usize = 72;
        let of_events =
            self.events.iter().map(|event| event.name.len() + event.attributes.bytes() + 16);
        let received = self.received.as_deref();
        let of_links = received.iter().flat_map(|received| &received.links);
        let of_links = of_links.map(|link| link.attributes.bytes() + 40);
        let unread = received.map_or(0, |received| received.verbatim.unread.len());
        let trace_state = self.context.trace_state.as_ref().map_or(0, String::len);
        let fixed = FIXED + self.name.len() + trace_state + unread;
        fixed + self.attributes.bytes() + of_events.chain(of_links).sum::<usize>()
    }

    /// Who recorded it; none: we.
    #[must_use]
    pub fn origin(&self) -> Option<&Arc<Origin>> {
        self.received.as_deref().map(|received| &received.origin)
    }
}

/// What all spans of one process share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// `service.name` and the like.
    pub attributes: Attributes,
}
