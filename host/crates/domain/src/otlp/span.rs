//! One span.

use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::{fixed32, fixed64, int32, uint32};

use super::attributes::{self, Gathered};
use super::wire::{Content, Fields, head, nested, number, text};
use super::{Counts, Malformed, Most};
use crate::id::{SpanContext, SpanId, TraceId};
use crate::received::{Origin, Received, SpanLink};
use crate::span::{Attributes, Span, SpanEvent, SpanKind, SpanStatus};
use crate::time::{Interval, UnixNanos};

/// Of a span's flags, as of W3C: the trace is sampled.
pub const SAMPLED: u32 = 0x1;
/// Of a span's flags: whether the parent is in another process is known.
pub const HAS_IS_REMOTE: u32 = 0x100;
/// Of a span's flags: it is.
pub const IS_REMOTE: u32 = 0x200;

/// Fields that leave as they came, where we understand less of them, or something else.
const KIND: u32 = 6;
const START: u32 = 7;
const END: u32 = 8;
const STATUS: u32 = 15;

/// Its flags: as they were sent, where others sent them.
#[must_use]
pub fn flags(span: &Span) -> u32 {
    if let Some(received) = &span.received {
        return received.flags;
    }
    let sampled = if span.context.sampled { SAMPLED } else { 0 };
    let remote = if span.parent_is_remote { IS_REMOTE } else { 0 };
    sampled | HAS_IS_REMOTE | remote
}

/// Who and where, as it stands in a span and in a link.
#[derive(Default)]
struct Identity<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    trace_state: &'a str,
}

impl<'a> Identity<'a> {
    /// One of its fields; their numbers are 1 to 3.
    fn field(&mut self, number: u32, content: Content<'a>) -> Result<(), Malformed> {
        match number {
            1 => self.trace_id = content.bytes()?,
            2 => self.span_id = content.bytes()?,
            _ => self.trace_state = content.text()?,
        }
        Ok(())
    }

    /// Or what is wrong with it.
    fn context(&self, flags: u32) -> Result<SpanContext, &'static str> {
        let trace: [u8; 16] = self.trace_id.try_into().map_err(|_| "traceId is not 16 bytes")?;
        let trace = u128::from_be_bytes(trace);
        if trace == 0 {
            return Err("traceId is zero");
        }
        let span_id = span_id(self.span_id).ok_or("spanId is not 8 bytes")?;
        let trace_state = Some(self.trace_state).filter(|state| !state.is_empty());
        Ok(SpanContext {
            trace_id: TraceId(trace),
            span_id: span_id.ok_or("spanId is zero")?,
            sampled: flags & SAMPLED != 0,
            trace_state: trace_state.map(str::to_owned),
        })
    }
}

/// `None`: it is not 8 bytes. `Some(None)`: it is zero.
fn span_id(bytes: &[u8]) -> Option<Option<SpanId>> {
    let id = u64::from_be_bytes(bytes.try_into().ok()?);
    Some((id != 0).then_some(SpanId(id)))
}

/// The fields of a message, each with where it begins and ends.
pub(super) fn placed(
    message: &[u8],
) -> impl Iterator<Item = Result<((usize, usize), u32, Content<'_>), Malformed>> {
    let mut fields = Fields(message);
    std::iter::from_fn(move || {
        let begins = message.len() - fields.0.len();
        let found = fields.next()?;
        let place = (begins, message.len() - fields.0.len());
        Some(found.map(|(number, content)| (place, number, content)))
    })
}

/// Reads one, or says what OTLP forbids of it.
pub(super) fn read(
    message: &[u8],
    origin: &Arc<Origin>,
    counts: &mut Counts,
    most: &Most,
) -> Result<Result<Span, &'static str>, Malformed> {
    counts.span(most)?;
    let (mut identity, mut parent, mut name) = (Identity::default(), &[][..], "");
    let (mut kind, mut start, mut end, mut status) = (0, 0, 0, Status::default());
    let (mut gathered, mut events) = (Gathered::default(), Vec::new());
    let mut received = Received { origin: Arc::clone(origin), ..Received::default() };
    let keep = |(begins, end): (usize, usize), unread: &mut Vec<u8>| {
        unread.extend_from_slice(message.get(begins..end).unwrap_or_default());
    };
    for field in placed(message) {
        let (place, number, content) = field?;
        match number {
            1..=3 => identity.field(number, content)?,
            4 => parent = content.bytes()?,
            5 => name = content.text()?,
            6 => kind = content.uint32()?,
            7 => start = content.fixed64()?,
            8 => end = content.fixed64()?,
            9 => gathered.check(place, content, counts, most)?,
            10 => received.dropped_attributes = content.uint32()?,
            11 => events.push(event(content.bytes()?, counts, most)?),
            12 => received.dropped_events = content.uint32()?,
            13 => match link(content.bytes()?, counts, most)? {
                Some(link) => received.links.push(link),
                // One that leads nowhere.
                None => keep(place, &mut received.verbatim.unread),
            },
            14 => received.dropped_links = content.uint32()?,
            15 => read_status(content.bytes()?, &mut status)?,
            16 => received.flags = content.fixed32()?,
            _ => keep(place, &mut received.verbatim.unread),
        }
    }
    let mut instead = |fields: &[u32]| {
        received.verbatim.instead |= fields.iter().fold(0, |bits, field| bits | 1 << field);
        for (place, number, _) in placed(message).flatten() {
            if fields.contains(&number) {
                keep(place, &mut received.verbatim.unread);
            }
        }
    };
    if number_of(kind_of(kind)).cast_unsigned() != kind {
        instead(&[KIND]);
    }
    if end < start {
        instead(&[START, END]);
    }
    if !status.is_plain() {
        instead(&[STATUS]);
    }
    let flags = received.flags;
    let parent = match parent {
        [] => Ok(None),
        id => span_id(id).ok_or("parentSpanId is not 8 bytes"),
    };
    Ok(identity.context(flags).and_then(|context| {
        Ok(Span {
            context,
            parent: parent?,
            parent_is_remote: flags & IS_REMOTE != 0,
            name: name.to_owned().into(),
            kind: kind_of(kind),
            interval: Interval::new(UnixNanos(start), UnixNanos(end)),
            status: match status.code {
                1 => SpanStatus::Ok,
                2 => SpanStatus::Error(status.message.to_owned()),
                _ => SpanStatus::Unset,
            },
            attributes: gathered.take(9, message),
            events,
            received: Some(Box::new(received)),
        })
    }))
}

fn event(message: &[u8], counts: &mut Counts, most: &Most) -> Result<SpanEvent, Malformed> {
    counts.value(most)?;
    let (mut time, mut name, mut gathered, mut dropped) = (0, "", Gathered::default(), 0);
    for field in placed(message) {
        match field? {
            (_, 1, content) => time = content.fixed64()?,
            (_, 2, content) => name = content.text()?,
            (place, 3, content) => gathered.check(place, content, counts, most)?,
            (_, 4, content) => dropped = content.uint32()?,
            _ => {}
        }
    }
    Ok(SpanEvent {
        name: name.to_owned().into(),
        time: UnixNanos(time),
        attributes: gathered.take(3, message),
        dropped_attributes: dropped,
    })
}

fn link(message: &[u8], counts: &mut Counts, most: &Most) -> Result<Option<SpanLink>, Malformed> {
    counts.value(most)?;
    let (mut identity, mut gathered) = (Identity::default(), Gathered::default());
    let (mut dropped, mut flags) = (0, 0);
    for field in placed(message) {
        let (place, number, content) = field?;
        match number {
            1..=3 => identity.field(number, content)?,
            4 => gathered.check(place, content, counts, most)?,
            5 => dropped = content.uint32()?,
            6 => flags = content.fixed32()?,
            _ => {}
        }
    }
    Ok(identity.context(flags).ok().map(|context| SpanLink {
        context,
        flags,
        attributes: gathered.take(4, message),
        dropped_attributes: dropped,
    }))
}

/// What is told of how a span ended.
#[derive(Default)]
struct Status<'a> {
    is_told: bool,
    code: u32,
    message: &'a str,
    more: bool,
}

impl Status<'_> {
    /// Whether [`SpanStatus`] says all of it.
    fn is_plain(&self) -> bool {
        let no_message = self.message.is_empty() || self.code == 2;
        self.is_told && self.code <= 2 && no_message && !self.more
    }
}

fn read_status<'a>(message: &'a [u8], status: &mut Status<'a>) -> Result<(), Malformed> {
    status.is_told = true;
    for field in Fields(message) {
        match field? {
            (2, content) => status.message = content.text()?,
            (3, content) => status.code = content.uint32()?,
            _ => status.more = true,
        }
    }
    Ok(())
}

/// A kind that we do not know is none, as protobuf asks.
fn kind_of(number: u32) -> SpanKind {
    match number {
        1 => SpanKind::Internal,
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => SpanKind::Unspecified,
    }
}

fn number_of(kind: SpanKind) -> i32 {
    match kind {
        SpanKind::Unspecified => 0,
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

/// Writes one.
pub(super) fn write(span: &Span, to: &mut Vec<u8>) {
    let received = span.received.as_deref();
    let count = |count: fn(&Received) -> u32| received.map_or(0, count);
    identity(&span.context, to);
    if let Some(parent) = span.parent {
        id(4, &parent.0.to_be_bytes(), to);
    }
    text(5, &span.name, to);
    let verbatim = received.map(|received| &received.verbatim);
    let ours = |field: u32| verbatim.is_none_or(|verbatim| verbatim.instead & 1 << field == 0);
    if ours(KIND) {
        number(KIND, number_of(span.kind), int32::encode, to);
    }
    if ours(START) {
        number(START, span.interval.start.0, fixed64::encode, to);
    }
    if ours(END) {
        number(END, span.interval.end.0, fixed64::encode, to);
    }
    attributes::write(9, &span.attributes, to);
    number(10, count(|received| received.dropped_attributes), uint32::encode, to);
    for event in &span.events {
        nested(11, to, |to| write_event(event, to));
    }
    number(12, count(|received| received.dropped_events), uint32::encode, to);
    for link in received.iter().flat_map(|received| &received.links) {
        nested(13, to, |to| write_link(link, to));
    }
    number(14, count(|received| received.dropped_links), uint32::encode, to);
    if ours(STATUS) {
        nested(STATUS, to, |to| write_status(&span.status, to));
    }
    number(16, flags(span), fixed32::encode, to);
    to.put_slice(verbatim.map_or(&[], |verbatim| &verbatim.unread));
}

fn identity(context: &SpanContext, to: &mut Vec<u8>) {
    id(1, &context.trace_id.0.to_be_bytes(), to);
    id(2, &context.span_id.0.to_be_bytes(), to);
    text(3, context.trace_state.as_deref().unwrap_or_default(), to);
}

fn id(field: u32, id: &[u8], to: &mut Vec<u8>) {
    head(field, id.len(), to);
    to.put_slice(id);
}

fn write_event(event: &SpanEvent, to: &mut Vec<u8>) {
    number(1, event.time.0, fixed64::encode, to);
    text(2, &event.name, to);
    attributes::write(3, &event.attributes, to);
    number(4, event.dropped_attributes, uint32::encode, to);
}

fn write_link(link: &SpanLink, to: &mut Vec<u8>) {
    identity(&link.context, to);
    attributes::write(4, &link.attributes, to);
    number(5, link.dropped_attributes, uint32::encode, to);
    number(6, link.flags, fixed32::encode, to);
}

fn write_status(status: &SpanStatus, to: &mut Vec<u8>) {
    let (code, said) = match status {
        SpanStatus::Unset => (0, ""),
        SpanStatus::Ok => (1, ""),
        SpanStatus::Error(message) => (2, message.as_str()),
    };
    text(2, said, to);
    number(3, code, int32::encode, to);
}

/// The attributes in the fields of that number of `message`.
pub(super) fn attributes_of(
    message: &[u8],
    field: u32,
    counts: &mut Counts,
    most: &Most,
) -> Result<Attributes, Malformed> {
    let mut gathered = Gathered::default();
    for found in placed(message) {
        let (place, number, content) = found?;
        if number == field {
            gathered.check(place, content, counts, most)?;
        }
    }
    Ok(gathered.take(field, message))
}
