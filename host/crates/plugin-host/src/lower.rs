//! From the gateway's spans to what crosses into a plugin: flat slots, and one arena for all text.
//!
//! A plugin gets the attributes it reads and no others.

use foldhash::HashMap;
use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::value::{Plain, ValueRef};
use tollgate_domain::{Resource, Span, Value};

use crate::bindings::types;
use crate::calls::{BatchContext, SpanBatch};
use crate::describe::{Selected, Selection};
use crate::limits::Limits;
use crate::wire::All;

/// Index of the first key that only a prefix matched.
pub(crate) const PREFIXED: u32 = 0x8000_0000;

/// Room for the attributes of one span, and for their text; for those of a batch, up to so much of either.
const ATTRIBUTES: usize = 32;
const TEXT: usize = 1 << 10;
const MOST_ATTRIBUTES: usize = 64 * ATTRIBUTES;
const MOST_TEXT: usize = 64 * TEXT;

/// What a slot takes in a plugin's memory.
const SLOT_BYTES: usize = 16;

/// Spans of one call, lowered.
pub(crate) struct LoweredSpans<'a> {
    spans: Vec<types::Span>,
    slots: Vec<types::Slot>,
    arena: Vec<u8>,
    /// Which of them have more attributes than are shown.
    crowded: Vec<usize>,
    context: LoweredContext<'a>,
}

/// What a call's items share, lowered: the resource's attributes and the names of keys.
#[derive(Default)]
struct LoweredContext<'a> {
    slots: Vec<types::Slot>,
    keys: Vec<types::TextRef>,
    places: HashMap<&'a str, u32>,
    arena: Vec<u8>,
    /// Of each group of items that look alike.
    before: [Before<'a>; GROUPS],
}

/// What was found for the key that stood here in the item before: comparing two keys takes a tenth of the time of looking
/// one up.
type Before<'a> = Vec<(&'a str, Option<u32>)>;

/// A request's own span and that of its call to another server take turns in a batch.
const GROUPS: usize = 3;

impl<'a> LoweredSpans<'a> {
    /// A call without items yet, and at most so many.
    pub fn new(resource: &'a Resource, reads: &Selection, limits: &Limits, most: usize) -> Self {
        let mut lowered = Self {
            spans: Vec::with_capacity(most),
            slots: Vec::with_capacity(most.saturating_mul(ATTRIBUTES).min(MOST_ATTRIBUTES)),
            arena: Vec::with_capacity(most.saturating_mul(TEXT).min(MOST_TEXT)),
            crowded: Vec::new(),
            context: LoweredContext::default(),
        };
        // Into the context's own arena, though written by the same code.
        let (mut slots, mut arena) = (Vec::new(), Vec::new());
        let context = &mut lowered.context;
        lower(&resource.attributes, 0, reads, limits, context, &mut slots, &mut arena);
        shift(&mut slots, lowered.context.arena.len());
        lowered.context.arena.append(&mut arena);
        lowered.context.slots = slots;
        lowered
    }

    /// Adds a span.
    pub fn push(&mut self, span: &'a Span, reads: &Selection, limits: &Limits) {
        let Left { withheld, is_crowded } = lower(
            &span.attributes,
            group(span.kind),
            reads,
            limits,
            &mut self.context,
            &mut self.slots,
            &mut self.arena,
        );
        if is_crowded {
            self.crowded.push(self.spans.len());
        }
        let (status, message) = match &span.status {
            SpanStatus::Unset => (types::Status::Unset, ""),
            SpanStatus::Ok => (types::Status::Ok, ""),
            SpanStatus::Error(message) => (types::Status::Error, message.as_str()),
        };
        let trace = span.context.trace_id.0;
        let trace_flags = if span.context.sampled {
            types::TraceFlags::SAMPLED
        } else {
            types::TraceFlags::empty()
        };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let trace_id = types::TraceId { high: (trace >> 64) as u64, low: trace as u64 };
        let name = text(&mut self.arena, shortened(&span.name, limits.value_bytes));
        let status_message = text(&mut self.arena, shortened(message, limits.value_bytes));
        self.spans.push(types::Span {
            context: types::SpanContext {
                trace_id,
                span_id: span.context.span_id.0,
                trace_flags,
                is_remote: span.parent_is_remote,
            },
            parent_span_id: span.parent.map_or(0, |id| id.0),
            kind: kind(span.kind),
            status,
            name,
            status_message,
            start: span.interval.start.0,
            end: span.interval.end.0,
            slots_end: count(self.slots.len()),
            withheld_attributes: withheld,
        });
    }

    /// Which of its spans have more attributes than are shown.
    pub fn crowded(&self) -> &[usize] {
        &self.crowded
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.arena.len().saturating_add(self.slots.len().saturating_mul(SLOT_BYTES))
    }

    /// The batch, as the call takes it.
    pub fn batch(&self) -> SpanBatch<'_> {
        SpanBatch { spans: All(&self.spans), slots: All(&self.slots), arena: &self.arena }
    }

    /// Its context, as the call takes it.
    pub fn context<'c>(
        &'c self,
        tenant: Option<&'c str>,
        exporter: Option<&'c str>,
        now: u64,
    ) -> BatchContext<'c> {
        BatchContext {
            tenant,
            exporter,
            now,
            resource_attributes: All(&self.context.slots),
            keys: All(&self.context.keys),
            arena: &self.context.arena,
        }
    }
}

impl<'a> LoweredContext<'a> {
    /// Under which index the key at this place of an item goes in; none if it is not read.
    fn index(
        &mut self,
        before: &mut Before<'a>,
        at: usize,
        key: &'a str,
        reads: &Selection,
    ) -> Option<u32> {
        if let Some((known, index)) = before.get(at)
            && is_same(known, key)
        {
            return *index;
        }
        let index = reads.find(key).map(|selected| match selected {
            Selected::Key(index) => index,
            Selected::Prefix => self.place(key),
        });
        let found = (key, index);
        match before.get_mut(at) {
            Some(known) => *known = found,
            // Places come in order, so this is the next one.
            None => before.push(found),
        }
        index
    }

    /// Index of a key that only a prefix matched.
    fn place(&mut self, key: &'a str) -> u32 {
        if let Some(place) = self.places.get(key) {
            return *place;
        }
        if self.places.is_empty() {
            self.places.reserve(ATTRIBUTES);
            self.keys.reserve(ATTRIBUTES);
            self.arena.reserve(TEXT);
        }
        let place = PREFIXED.saturating_add(count(self.keys.len()));
        let name = text(&mut self.arena, key);
        self.keys.push(name);
        self.places.insert(key, place);
        place
    }
}

/// Most keys are the gateway's own names, which lie in one place each.
#[inline]
fn is_same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// What of the attributes of an item is not shown.
struct Left {
    withheld: u32,
    /// Whether some are not since there are too many before them.
    is_crowded: bool,
}

/// Lowers the attributes that are read, of an item of this group.
fn lower<'a>(
    attributes: &'a Attributes,
    group: usize,
    reads: &Selection,
    limits: &Limits,
    context: &mut LoweredContext<'a>,
    slots: &mut Vec<types::Slot>,
    arena: &mut Vec<u8>,
) -> Left {
    let (mut passed, mut withheld, mut is_crowded) = (0, 0, false);
    let mut before = context.before.get_mut(group).map(std::mem::take).unwrap_or_default();
    // By `for_each`, which asks once and not for each whether those that came are at their end.
    attributes.entries().enumerate().for_each(|(at, entry)| {
        let is_room = passed < limits.attributes_per_span;
        is_crowded |= !is_room;
        let Some(key) = is_room.then(|| context.index(&mut before, at, entry.key, reads)).flatten()
        else {
            withheld += 1;
            return;
        };
        passed += 1;
        match entry.value() {
            ValueRef::Other(other) => many(key, &other, limits, slots, arena),
            one => slots.push(slot(key, one, limits, arena)),
        }
    });
    if let Some(place) = context.before.get_mut(group) {
        *place = before;
    }
    Left { withheld: count(withheld), is_crowded }
}

/// What is not of one of the kinds that a slot has.
fn many(
    key: u32,
    value: &Value,
    limits: &Limits,
    slots: &mut Vec<types::Slot>,
    arena: &mut Vec<u8>,
) {
    match value {
        Value::List(values) if is_long(values, limits) => slots.push(elided(key, bytes(values))),
        // A list of lists has no form of its own.
        Value::List(values) if !values.iter().any(is_nested) => {
            slots.extend(values.iter().map(|value| slot(key, value.into(), limits, arena)));
        }
        one => slots.push(slot(key, one.into(), limits, arena)),
    }
}

/// The attributes of a span that are read, and that are not shown since there are too many before them.
pub(crate) fn unseen<'a>(
    attributes: &'a Attributes,
    reads: &'a Selection,
    limits: &Limits,
) -> impl Iterator<Item = &'a str> {
    let read = attributes.entries().filter(|entry| reads.find(entry.key).is_some());
    read.map(|entry| entry.key).skip(limits.attributes_per_span)
}

fn is_long(values: &[Value], limits: &Limits) -> bool {
    values.len() > limits.list_values || bytes(values) > limits.value_bytes
}

/// Of text and bytes; a number is in its slot.
fn bytes(values: &[Value]) -> usize {
    let of = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    values.iter().map(of).sum()
}

fn elided(key: u32, bytes: usize) -> types::Slot {
    let bits = u64::try_from(bytes).unwrap_or(u64::MAX);
    types::Slot { key, kind: types::ValueKind::Elided, bits }
}

fn slot(key: u32, value: ValueRef<'_>, limits: &Limits, arena: &mut Vec<u8>) -> types::Slot {
    let (kind, bits) = match value {
        ValueRef::Bool(value) => (types::ValueKind::Boolean, u64::from(value)),
        ValueRef::Int(value) => (types::ValueKind::Int, value.cast_unsigned()),
        ValueRef::Double(value) => (types::ValueKind::Double, value.to_bits()),
        ValueRef::Text(text) => return textual(key, types::ValueKind::Text, text, limits, arena),
        ValueRef::Bytes(bytes) if bytes.len() > limits.value_bytes => {
            return elided(key, bytes.len());
        }
        ValueRef::Bytes(bytes) => {
            let at = types::TextRef { offset: count(arena.len()), length: count(bytes.len()) };
            arena.extend_from_slice(bytes);
            (types::ValueKind::Bytes, u64::from(at.offset) << 32 | u64::from(at.length))
        }
        ValueRef::Other(value) => {
            let json = serde_json::to_string(&Plain(&value)).unwrap_or_default();
            return textual(key, types::ValueKind::Json, &json, limits, arena);
        }
    };
    types::Slot { key, kind, bits }
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::List(_) | Value::Map(_) | Value::Empty)
}

fn textual(
    key: u32,
    kind: types::ValueKind,
    value: &str,
    limits: &Limits,
    arena: &mut Vec<u8>,
) -> types::Slot {
    if value.len() > limits.value_bytes {
        return elided(key, value.len());
    }
    let at = text(arena, value);
    types::Slot { key, kind, bits: u64::from(at.offset) << 32 | u64::from(at.length) }
}

/// Appends a text.
pub(crate) fn text(arena: &mut Vec<u8>, value: &str) -> types::TextRef {
    let at = types::TextRef { offset: count(arena.len()), length: count(value.len()) };
    arena.extend_from_slice(value.as_bytes());
    at
}

/// Moves text slots to an arena in which `by` bytes stand before theirs.
fn shift(slots: &mut [types::Slot], by: usize) {
    for slot in slots {
        if matches!(
            slot.kind,
            types::ValueKind::Text | types::ValueKind::Json | types::ValueKind::Bytes
        ) {
            slot.bits = slot.bits.saturating_add(u64::from(count(by)) << 32);
        }
    }
}

/// Everything counted here is bounded by [`Limits`] far below 2^32.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn shortened(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Which spans are likely to have the same attributes in the same order.
fn group(kind: SpanKind) -> usize {
    match kind {
        SpanKind::Internal | SpanKind::Unspecified => 0,
        SpanKind::Server | SpanKind::Consumer => 1,
        SpanKind::Client | SpanKind::Producer => 2,
    }
}

fn kind(kind: SpanKind) -> types::SpanKind {
    match kind {
        SpanKind::Internal | SpanKind::Unspecified => types::SpanKind::Internal,
        SpanKind::Server => types::SpanKind::Server,
        SpanKind::Client => types::SpanKind::Client,
        SpanKind::Producer => types::SpanKind::Producer,
        SpanKind::Consumer => types::SpanKind::Consumer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::span;

    fn shown(lowered: &LoweredSpans) -> Vec<(u32, &'static str, String)> {
        let batch = lowered.batch();
        let piece = |bits: u64| {
            let (offset, length) = ((bits >> 32) as usize, (bits & 0xffff_ffff) as usize);
            String::from_utf8(batch.arena[offset..offset + length].to_vec()).unwrap()
        };
        batch
            .slots
            .0
            .iter()
            .map(|slot| match slot.kind {
                types::ValueKind::Text => (slot.key, "text", piece(slot.bits)),
                types::ValueKind::Json => (slot.key, "json", piece(slot.bits)),
                types::ValueKind::Boolean => (slot.key, "boolean", slot.bits.to_string()),
                types::ValueKind::Int => (slot.key, "int", slot.bits.cast_signed().to_string()),
                types::ValueKind::Double => {
                    (slot.key, "double", f64::from_bits(slot.bits).to_string())
                }
                types::ValueKind::Elided => (slot.key, "elided", slot.bits.to_string()),
                types::ValueKind::Bytes => (slot.key, "bytes", String::new()),
            })
            .collect()
    }

    #[test]
    fn lists_cross_up_to_a_length_and_what_is_not_shown_is_known() {
        let limits =
            Limits { value_bytes: 40, list_values: 3, attributes_per_span: 3, ..Limits::default() };
        let list = |count: i64| Value::List((0..count).map(Value::Int).collect());
        let texts = |bytes: usize| Value::List(vec!["x".repeat(bytes).into(), "y".into()]);
        let span = span(&[
            ("a", list(3)),
            ("hidden", 1_i64.into()),
            ("b", list(4)),
            ("p.c", texts(40)),
            ("p.d", 1_i64.into()),
            ("b2", 1_i64.into()),
            ("p.e", 1_i64.into()),
        ]);
        let reads = Selection::of(&["a", "b"], &["p."]);
        let resource = Resource::default();
        let mut lowered = LoweredSpans::new(&resource, &reads, &limits, 1);
        lowered.push(&span, &reads, &limits);
        let kinds: Vec<_> = shown(&lowered).into_iter().map(|(key, kind, _)| (key, kind)).collect();
        let ints = [(0, "int"); 3];
        assert_eq!(kinds[..3], ints);
        assert_eq!(kinds[3..], [(1, "elided"), (PREFIXED, "elided")]);
        assert!(lowered.bytes() >= 5 * SLOT_BYTES);
        let unseen: Vec<&str> =
            unseen(&span.attributes, &reads, &limits).map(AsRef::as_ref).collect();
        assert_eq!(unseen, ["p.d", "p.e"]);
    }

    #[test]
    fn only_what_is_read_crosses() {
        let limits = Limits { value_bytes: 10, ..Limits::default() };
        let reads = Selection::of(&["text", "list", "nested", "long"], &["p."]);
        let span = span(&[
            ("text", "é".into()),
            ("hidden", 1_i64.into()),
            ("p.b", true.into()),
            ("p.a", (-5_i64).into()),
            ("list", Value::List(vec![1_i64.into(), 2.5_f64.into()])),
            ("nested", Value::List(vec![Value::List(vec![1_i64.into()])])),
            ("long", "x".repeat(11).into()),
        ]);
        let mut resource = Resource::default();
        resource.attributes.set("p.a", "r");
        let mut lowered = LoweredSpans::new(&resource, &reads, &limits, 2);
        lowered.push(&span, &reads, &limits);
        lowered.push(&span, &reads, &limits);
        let expected = [
            (0, "text", "é"),
            (PREFIXED + 1, "boolean", "1"),
            (PREFIXED, "int", "-5"),
            (1, "int", "1"),
            (1, "double", "2.5"),
            (2, "json", "[[1]]"),
            (3, "elided", "11"),
        ]
        .map(|(key, kind, text)| (key, kind, text.to_owned()));
        let shown = shown(&lowered);
        assert_eq!(shown[..7], expected);
        assert_eq!(shown[7..], expected);
        let batch = lowered.batch();
        assert_eq!((batch.spans.0[0].slots_end, batch.spans.0[1].slots_end), (7, 14));
        assert_eq!(batch.spans.0[0].withheld_attributes, 1);

        let context = lowered.context(None, None, 0);
        assert_eq!(context.keys.0.len(), 2);
        let bits = context.resource_attributes.0[0].bits;
        let (offset, length) = ((bits >> 32) as usize, (bits & 0xffff_ffff) as usize);
        assert_eq!(&context.arena[offset..offset + length], b"r");
        assert_eq!(context.resource_attributes.0[0].key, PREFIXED);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(shortened("aé", 2), "a");
        assert_eq!(shortened("aé", 3), "aé");
    }
}
