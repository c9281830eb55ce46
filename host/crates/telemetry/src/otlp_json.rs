//! Spans as OTLP/JSON lines: one `TracesData` a line, which the Collector's `otlpjsonfile`
//! receiver reads.
//!
//! A line stays below 1 MiB, since that receiver cuts longer ones. The form is OTLP's own: ids in
//! hexadecimal, kinds and status codes as numbers, 64-bit numbers as text.

use tollgate_domain::otlp;
use tollgate_domain::received::Origin;
use tollgate_domain::span::{Attributes, Resource, Span, SpanStatus, Value};

use crate::exporter::Accepted;
use crate::json;
use crate::otlp::message;

/// Longest line, its newline included: the receiver's limit less a little.
const LONGEST_LINE: usize = 1_000_000;

/// To how many bytes the texts of a span are cut that does not fit into a line, in turn.
const CUTS: [usize; 2] = [16 << 10, 512];

/// Writes lines, each of spans of one origin.
#[derive(Debug)]
pub(crate) struct OtlpJson {
    own: Box<Origin>,
    ours: Frame,
}

/// What stands in a line before its spans and after them.
#[derive(Clone, Debug)]
struct Frame {
    before: String,
    after: String,
}

impl Frame {
    fn of(origin: &Origin) -> Self {
        const SPANS: &str = r#""spans":[{}"#;
        // A span with nothing in it is `{}`, and where it stands there will be others.
        let empty = in_json(&otlp::write_frame(origin), &json::TRACES).unwrap_or_default();
        // A text of the resource that holds the same has its quotation marks escaped.
        let (before, after) = empty.split_once(SPANS).unwrap_or_default();
        Self { before: format!(r#"{before}"spans":["#), after: format!("{after}\n") }
    }

    fn room(&self) -> usize {
        LONGEST_LINE.saturating_sub(self.before.len() + self.after.len())
    }

    fn end(&self, line: &mut String, lines: &mut Vec<u8>) {
        if !line.is_empty() {
            for part in [&self.before, &*line, &self.after] {
                lines.extend_from_slice(part.as_bytes());
            }
            line.clear();
        }
    }
}

impl OtlpJson {
    /// Our own spans are of `resource`.
    pub(crate) fn new(resource: &Resource) -> Self {
        let own = message::own(resource);
        let ours = Frame::of(&own);
        Self { own: Box::new(own), ours }
    }

    /// The lines of `spans`, and what of them did not fit into any line.
    pub(crate) fn of(&self, spans: &[Span]) -> (Vec<u8>, Accepted) {
        let mut lines = Vec::with_capacity(spans.len() * 2048);
        let mut accepted = Accepted::default();
        let mut line = String::new();
        let (mut frame, mut origin) = (self.ours.clone(), None);
        for span in spans {
            let its = span.origin();
            if its != origin {
                frame.end(&mut line, &mut lines);
                (frame, origin) = (Frame::of(its.map_or(&self.own, |its| its)), its);
            }
            let room = frame.room();
            let Some(json) = fitting(span, room) else {
                accepted.rejected_spans += 1;
                accepted.message = Some(format!("a span is larger than {LONGEST_LINE} bytes"));
                continue;
            };
            if !line.is_empty() && line.len() + 1 + json.len() > room {
                frame.end(&mut line, &mut lines);
            }
            if !line.is_empty() {
                line.push(',');
            }
            line.push_str(&json);
        }
        frame.end(&mut line, &mut lines);
        (lines, accepted)
    }
}

fn in_json(message: &[u8], of: &'static json::Message) -> Option<String> {
    String::from_utf8(json::write(message, of).ok()?).ok()
}

/// The span in JSON, its texts cut where it would not fit; `None` if it does not even so.
fn fitting(span: &Span, room: usize) -> Option<String> {
    let json = |span: &Span| {
        let json = in_json(&otlp::write_span(span), &json::SPAN)?;
        (json.len() <= room).then_some(json)
    };
    json(span).or_else(|| CUTS.iter().find_map(|longest| json(&cut(span, *longest))))
}

/// The span with no text longer than `longest` bytes and the mark of what was cut.
fn cut(span: &Span, longest: usize) -> Span {
    let mut span = span.clone();
    span.attributes = cut_attributes(&span.attributes, longest);
    for event in &mut span.events {
        event.attributes = cut_attributes(&event.attributes, longest);
    }
    if let SpanStatus::Error(message) = &span.status {
        span.status = SpanStatus::Error(cut_text(message, longest));
    }
    span
}

fn cut_attributes(attributes: &Attributes, longest: usize) -> Attributes {
    let mut cut = Attributes::new();
    for (key, value) in attributes.iter() {
        cut.set(key.clone(), cut_value(value, longest));
    }
    cut
}

fn cut_value(value: &Value, longest: usize) -> Value {
    match value {
        Value::Text(text) => Value::Text(cut_text(text, longest)),
        Value::List(items) => {
            Value::List(items.iter().map(|item| cut_value(item, longest)).collect())
        }
        other => other.clone(),
    }
}

fn cut_text(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(longest);
    format!("{}\u{2026}", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests;
