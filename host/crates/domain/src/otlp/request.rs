//! A whole request: spans by who recorded them.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::BufMut;
use prost::encoding::{encoded_len_varint, uint32};

use super::span::{self, attributes_of, placed};
use super::wire::{Fields, nested, nested_about, number, text, written};
use super::{Counts, Malformed, Most, attributes};
use crate::received::{Group, Origin, Scope, by_origin};
use crate::span::{Resource, Span};

/// The spans of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Incoming {
    /// The spans by who recorded them.
    pub groups: Vec<Group>,
    /// Spans that no receiver could take.
    pub rejected: u64,
    /// What was wrong with the first of them.
    pub problem: Option<String>,
}

/// Reads a request.
///
/// # Errors
/// If it cannot be read, or has more in it than `most`.
pub fn read(bytes: &[u8], most: &Most) -> Result<Incoming, Malformed> {
    let (mut incoming, mut counts) = (Incoming::default(), Counts::default());
    for field in Fields(bytes) {
        if let (1, of_process) = field? {
            read_process(of_process.bytes()?, &mut incoming, &mut counts, most)?;
        }
    }
    Ok(incoming)
}

/// One `ResourceSpans`.
fn read_process(
    message: &[u8],
    incoming: &mut Incoming,
    counts: &mut Counts,
    most: &Most,
) -> Result<(), Malformed> {
    // What all share may stand behind what it is of.
    let resource = singular(message, 1)?;
    let mut process = Origin {
        resource: Resource { attributes: attributes_of(&resource, 1, counts, most)? },
        resource_dropped_attributes: dropped(&resource, 2)?,
        resource_unread: resource_unread(&resource)?,
        ..Origin::default()
    };
    for field in Fields(message) {
        if let (3, schema) = field? {
            schema.text()?.clone_into(&mut process.resource_schema_url);
        }
    }
    let bytes = resource.len() + process.resource_schema_url.len();
    for field in Fields(message) {
        if let (2, of_scope) = field? {
            read_scope(of_scope.bytes()?, (&process, bytes), incoming, counts, most)?;
        }
    }
    Ok(())
}

/// One `ScopeSpans` of a process, which has so many bytes.
fn read_scope(
    message: &[u8],
    (process, bytes): (&Origin, usize),
    incoming: &mut Incoming,
    counts: &mut Counts,
    most: &Most,
) -> Result<(), Malformed> {
    let (mut schema_url, mut spans) = ("", 0);
    for field in Fields(message) {
        match field? {
            (2, _) => spans += 1,
            (3, schema) => schema_url = schema.text()?,
            _ => {}
        }
    }
    // What has no span is nobody's.
    if spans == 0 {
        return Ok(());
    }
    let scope = singular(message, 1)?;
    counts.shared(bytes + scope.len() + schema_url.len(), spans, most)?;
    let origin = Arc::new(Origin {
        scope: instrumentation(&scope, counts, most)?,
        schema_url: schema_url.to_owned(),
        ..process.clone()
    });
    let mut group = Group { origin, spans: Vec::new() };
    for field in Fields(message) {
        if let (2, span) = field? {
            match span::read(span.bytes()?, &group.origin, counts, most)? {
                Ok(span) => group.spans.push(span),
                Err(problem) => {
                    incoming.rejected += 1;
                    incoming.problem.get_or_insert_with(|| problem.to_owned());
                }
            }
        }
    }
    if !group.spans.is_empty() {
        incoming.groups.push(group);
    }
    Ok(())
}

fn instrumentation(message: &[u8], counts: &mut Counts, most: &Most) -> Result<Scope, Malformed> {
    let mut scope = Scope {
        attributes: attributes_of(message, 3, counts, most)?,
        dropped_attributes: dropped(message, 4)?,
        unread: unread(message, 1..=4)?,
        ..Scope::default()
    };
    for field in Fields(message) {
        match field? {
            (1, name) => name.text()?.clone_into(&mut scope.name),
            (2, version) => version.text()?.clone_into(&mut scope.version),
            _ => {}
        }
    }
    Ok(scope)
}

/// The message in the field of that number. One that stands there twice is both, one behind the other.
fn singular(message: &[u8], field: u32) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut all = Cow::Borrowed(&[][..]);
    for found in Fields(message) {
        let (number, content) = found?;
        if number != field {
            continue;
        }
        match content.bytes()? {
            first if all.is_empty() => all = Cow::Borrowed(first),
            more => all.to_mut().extend_from_slice(more),
        }
    }
    Ok(all)
}

/// The fields of a message whose numbers are not among these.
fn unread(message: &[u8], read: RangeInclusive<u32>) -> Result<Vec<u8>, Malformed> {
    let mut unread = Vec::new();
    for field in placed(message) {
        let ((begins, end), number, _) = field?;
        if !read.contains(&number) {
            unread.extend_from_slice(message.get(begins..end).unwrap_or_default());
        }
    }
    Ok(unread)
}

/// Those of a resource. What is known of them has been looked at: no receiver refuses them.
fn resource_unread(resource: &[u8]) -> Result<Vec<u8>, Malformed> {
    const ENTITY_REFS: u32 = 3;
    for field in Fields(resource) {
        if let (ENTITY_REFS, entity) = field? {
            for field in Fields(entity.bytes()?) {
                if let (1..=4, content) = field? {
                    content.text()?;
                }
            }
        }
    }
    unread(resource, 1..=2)
}

/// How many attributes were left out, as the field of that number says.
fn dropped(message: &[u8], field: u32) -> Result<u32, Malformed> {
    let mut dropped = 0;
    for found in Fields(message) {
        let (number, content) = found?;
        if number == field {
            dropped = content.uint32()?;
        }
    }
    Ok(dropped)
}

/// The first of `spans` as a request of at most `most` bytes, and how many they are: at least one,
/// however large it is. Ours are of the origin `own`.
#[must_use]
pub fn write(own: &Origin, spans: &[Span], most: usize) -> (usize, Vec<u8>) {
    let (mut request, mut taken) = (Vec::with_capacity(most.min(bytes(spans))), 0);
    for (origin, of_one) in by_origin(spans) {
        let frame = Frame::of(origin.map_or(own, |origin| origin));
        let (begins, before) = (request.len(), taken);
        frame.around(bytes(of_one).min(most), &mut request, |to| {
            let within = to.len();
            for span in of_one {
                let so_far = to.len();
                write_within(span, to);
                if taken > 0 && begins + frame.length(to.len() - within) > most {
                    to.truncate(so_far);
                    break;
                }
                taken += 1;
            }
        });
        if taken == before {
            request.truncate(begins);
        }
        if taken - before < of_one.len() {
            break;
        }
    }
    (taken, request)
}

/// One of the spans of a scope.
fn write_within(span: &Span, to: &mut Vec<u8>) {
    nested_about(2, span.bytes(), to, |to| span::write(span, to));
}

/// How many these are, about.
fn bytes(spans: &[Span]) -> usize {
    spans.iter().map(Span::bytes).sum()
}

/// One span as a message of its own.
#[must_use]
pub fn write_span(span: &Span) -> Vec<u8> {
    written(|to| span::write(span, to))
}

/// A request of an origin with one span in it of which nothing is told.
#[must_use]
pub fn write_frame(origin: &Origin) -> Vec<u8> {
    written(|to| Frame::of(origin).around(0, to, |to| nested(2, to, |_| ())))
}

/// These as a request; each is what it was when it is read again.
#[must_use]
pub fn write_groups(groups: &[Group]) -> Vec<u8> {
    let mut request = Vec::new();
    groups.iter().for_each(|Group { origin, spans }| write_group(origin, spans, &mut request));
    request
}

/// One span as a request; likewise.
pub(super) fn write_one(origin: &Origin, span: &Span) -> Vec<u8> {
    written(|to| write_group(origin, std::slice::from_ref(span), to))
}

fn write_group(origin: &Origin, spans: &[Span], to: &mut Vec<u8>) {
    Frame::of(origin).around(bytes(spans), to, |to| {
        spans.iter().for_each(|span| write_within(span, to));
    });
}

/// What stands around spans of one origin: fields of `ResourceSpans` and of `ScopeSpans`, before the
/// spans and after them.
struct Frame {
    resource: Vec<u8>,
    resource_schema: Vec<u8>,
    scope: Vec<u8>,
    schema: Vec<u8>,
}

impl Frame {
    fn of(origin: &Origin) -> Self {
        let Scope { name, version, attributes, dropped_attributes, unread } = &origin.scope;
        let scope = |to: &mut Vec<u8>| {
            text(1, name, to);
            text(2, version, to);
            attributes::write(3, attributes, to);
            number(4, *dropped_attributes, uint32::encode, to);
            to.put_slice(unread);
        };
        let resource = |to: &mut Vec<u8>| {
            attributes::write(1, &origin.resource.attributes, to);
            number(2, origin.resource_dropped_attributes, uint32::encode, to);
            to.put_slice(&origin.resource_unread);
        };
        Self {
            resource: written(|to| nested(1, to, resource)),
            resource_schema: written(|to| text(3, &origin.resource_schema_url, to)),
            scope: written(|to| nested(1, to, scope)),
            schema: written(|to| text(3, &origin.schema_url, to)),
        }
    }

    /// Bytes of the whole around so many.
    fn length(&self, within: usize) -> usize {
        let (outer, _) = self.lengths(within);
        1 + encoded_len_varint(outer as u64) + outer
    }

    /// Bytes of `ResourceSpans` and of `ScopeSpans` around so many.
    fn lengths(&self, within: usize) -> (usize, usize) {
        let inner = self.scope.len() + within + self.schema.len();
        let head = 1 + encoded_len_varint(inner as u64);
        (self.resource.len() + head + inner + self.resource_schema.len(), inner)
    }

    /// Writes it around spans of about so many bytes.
    fn around(&self, about: usize, to: &mut Vec<u8>, spans: impl FnOnce(&mut Vec<u8>)) {
        let (outer, inner) = self.lengths(about);
        to.reserve(self.length(about));
        nested_about(1, outer, to, |to| {
            to.put_slice(&self.resource);
            nested_about(2, inner, to, |to| {
                to.put_slice(&self.scope);
                spans(to);
                to.put_slice(&self.schema);
            });
            to.put_slice(&self.resource_schema);
        });
    }
}
