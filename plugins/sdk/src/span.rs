//! Spans, what an enricher and a filter look at.

use crate::{
    Key,
    attributes::{Attributes, Keys, text_at},
    bindings::lifecycle::tollgate::plugin::types as raw,
};
use std::ops::Deref;

/// One span. Its fields are the contract's (`span.status`, `span.start`), its text is reached by methods.
#[derive(Debug, Clone, Copy)]
pub struct SpanView<'a> {
    pub(crate) raw: &'a raw::Span,
    pub(crate) slots: &'a [raw::Slot],
    pub(crate) arena: &'a [u8],
    pub(crate) keys: Keys<'a>,
}

impl<'a> SpanView<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        text_at(self.arena, self.raw.name).unwrap_or_default()
    }

    /// What the status says beside ok or error.
    pub fn status_message(&self) -> &'a str {
        text_at(self.arena, self.raw.status_message).unwrap_or_default()
    }

    /// Whether it is the root of its trace.
    pub fn is_root(&self) -> bool {
        self.raw.parent_span_id == 0
    }

    /// How long it took, in nanoseconds.
    pub fn duration(&self) -> u64 {
        self.raw.end.saturating_sub(self.raw.start)
    }

    /// The attributes that the plugin asked for.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { slots: self.slots, arena: self.arena, keys: self.keys }
    }

    /// The value of an attribute, if it is text, and no list.
    pub fn text(&self, key: impl Key) -> Option<&'a str> {
        self.attributes().text(key)
    }

    /// The value of an attribute, if it is a whole number, and no list.
    pub fn int(&self, key: impl Key) -> Option<i64> {
        self.attributes().int(key)
    }

    /// The value of an attribute, if it is true or false, and no list.
    pub fn bool(&self, key: impl Key) -> Option<bool> {
        self.attributes().bool(key)
    }

    /// The value of an attribute, if it is a floating-point number, and no list.
    pub fn double(&self, key: impl Key) -> Option<f64> {
        self.attributes().double(key)
    }
}

impl Deref for SpanView<'_> {
    type Target = raw::Span;

    fn deref(&self) -> &raw::Span {
        self.raw
    }
}

/// Walks a batch. Ends that go backwards or past the slots give a span without attributes.
pub(crate) fn spans<'a>(
    batch: &'a raw::SpanBatch,
    keys: Keys<'a>,
) -> impl Iterator<Item = SpanView<'a>> {
    let mut start = 0_usize;
    batch.spans.iter().map(move |raw| {
        let end = usize::try_from(raw.slots_end).unwrap_or(usize::MAX);
        let slots = batch.slots.get(start..end).unwrap_or_default();
        start = end;
        SpanView { raw, slots, arena: &batch.arena, keys }
    })
}
