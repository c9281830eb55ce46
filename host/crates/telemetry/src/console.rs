//! Spans for people: a tree for each trace, with a bar that shows when each span was.
//!
//! Whatever a client chose (model, tenant) is shown without its control characters, so that
//! nobody writes escape sequences into the operator's terminal.

use std::fmt::Write;

use tollgate_domain::SpanId;
use tollgate_domain::span::{Attributes, Span, SpanStatus, Value};
use tollgate_domain::time::Interval;

use crate::names::{cost, http, llm, tollgate};

/// Cells of a bar.
const BAR: u64 = 24;

/// The traces of `batch` in the order they began in it.
pub(crate) fn trees(batch: &[Span], colour: bool) -> Vec<u8> {
    let mut traces: Vec<Tree> = Vec::new();
    for span in batch {
        let id = span.context.trace_id;
        match traces.iter_mut().find(|tree| tree.spans.iter().any(|s| s.context.trace_id == id)) {
            Some(tree) => tree.spans.push(span),
            None => traces.push(Tree { spans: vec![span], paint: Paint { colour } }),
        }
    }
    let mut out = String::new();
    for tree in traces {
        tree.draw(&mut out);
    }
    out.into_bytes()
}

struct Tree<'a> {
    spans: Vec<&'a Span>,
    paint: Paint,
}

impl Tree<'_> {
    /// All spans whose parent is not among them, each with what is below it.
    fn draw(&self, out: &mut String) {
        let is_here = |id: SpanId| self.spans.iter().any(|span| span.context.span_id == id);
        for root in &self.spans {
            if !root.parent.is_some_and(is_here) {
                self.root_line(root, out);
                self.below(root, root.interval, "", out);
            }
        }
    }

    fn root_line(&self, root: &Span, out: &mut String) {
        let name = self.paint.bold(&clean(&root.name));
        let trace = self.paint.dim(&root.context.trace_id.to_string());
        let facts = self.facts(root).join(" · ");
        let separator = if facts.is_empty() { "" } else { "  " };
        let _ = writeln!(out, "{name}{separator}{facts}  {}  {trace}", duration(root.interval));
    }

    fn facts(&self, root: &Span) -> Vec<String> {
        let attributes = &root.attributes;
        let mut facts: Vec<String> = [llm::MODEL, tollgate::TENANT]
            .iter()
            .filter_map(|name| text(attributes, name))
            .collect();
        let count = |name| attributes.get(name).map(shown);
        if let Some((prompt, completion)) =
            count(llm::PROMPT_TOKENS).zip(count(llm::COMPLETION_TOKENS))
        {
            facts.push(format!("{prompt} + {completion} tokens"));
        }
        facts.extend(self.price(attributes));
        if let Some(error) = text(attributes, http::ERROR_TYPE) {
            let status = text(attributes, http::RESPONSE_STATUS_CODE).unwrap_or_default();
            facts.push(self.paint.red(format!("{status} {error}").trim()));
        }
        if let SpanStatus::Error(message) = &root.status {
            facts.push(self.paint.red(&clean(message)));
        }
        facts
    }

    fn price(&self, attributes: &Attributes) -> Option<String> {
        let status = text(attributes, cost::STATUS)?;
        let amount = text(attributes, cost::AMOUNT).zip(text(attributes, cost::CURRENCY));
        Some(match (amount, text(attributes, cost::REASON)) {
            (Some((amount, currency)), _) if status == "priced" => {
                self.paint.green(&format!("{amount} {currency}"))
            }
            (Some((amount, currency)), _) => format!("{amount} {currency} ({status})"),
            (None, Some(reason)) => self.paint.red(&format!("{status} ({reason})")),
            (None, None) => self.paint.red(&status),
        })
    }

    fn below(&self, span: &Span, whole: Interval, indent: &str, out: &mut String) {
        for event in &span.events {
            let after = duration(Interval::new(span.interval.start, event.time));
            let line = format!("{indent}  ∙ {} +{}", clean(&event.name), after.trim());
            let _ = writeln!(out, "{}", self.paint.dim(&line));
        }
        let children: Vec<&&Span> =
            self.spans.iter().filter(|child| child.parent == Some(span.context.span_id)).collect();
        for (at, child) in children.iter().enumerate() {
            let is_last = at + 1 == children.len();
            let (branch, next) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let name = format!("{indent}{branch}{}", clean(&child.name));
            let bar = self.paint.dim(&bar(child.interval, whole));
            let _ = writeln!(out, "{name:<28} {bar} {:>11}", duration(child.interval));
            self.below(child, whole, &format!("{indent}{next}"), out);
        }
    }
}

/// When `part` was within `whole`, at least one cell long.
fn bar(part: Interval, whole: Interval) -> String {
    let total = whole.length().as_nanos().max(1);
    let cell = |point: tollgate_domain::UnixNanos, up: u128| {
        let scaled = (point.since(whole.start).as_nanos() * u128::from(BAR) + up) / total;
        u64::try_from(scaled).unwrap_or(BAR).min(BAR)
    };
    let from = cell(part.start, 0).min(BAR - 1);
    let to = cell(part.end, total - 1).max(from + 1);
    let cells = (0..BAR).map(|at| if (from..to).contains(&at) { '█' } else { '·' });
    cells.collect()
}

fn duration(interval: Interval) -> String {
    let milliseconds = interval.milliseconds();
    match milliseconds {
        0.0..1000.0 => format!("{milliseconds:.2} ms"),
        _ => format!("{:.2} s", milliseconds / 1e3),
    }
}

fn text(attributes: &Attributes, name: &str) -> Option<String> {
    attributes.get(name).map(shown)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => clean(text),
        Value::Int(number) => number.to_string(),
        other => clean(&format!("{other:?}")),
    }
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// ANSI colours, or none.
struct Paint {
    colour: bool,
}

impl Paint {
    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(&self, text: &str) -> String {
        self.with("2", text)
    }

    fn red(&self, text: &str) -> String {
        self.with("31", text)
    }

    fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::record;

    #[test]
    fn trees_are_readable() {
        let mut rude = record("unpriced");
        rude.trace.trace_id.0 += 1;
        rude.asked.model = "m\u{1b}[2J".to_owned();
        let mut lost = record("refused");
        lost.trace.trace_id.0 += 2;
        let records = [record("completed"), rude, lost];
        let spans: Vec<Span> =
            records.iter().flat_map(|record| crate::spans(record, None)).collect();
        let shown = String::from_utf8(trees(&spans, false)).unwrap_or_default();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected/console.txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            assert!(std::fs::write(path, &shown).is_ok());
        }
        assert_eq!(shown, std::fs::read_to_string(path).unwrap_or_default());
        assert!(!shown.contains('\u{1b}'), "an escape sequence on the terminal");
        assert!(String::from_utf8_lossy(&trees(&spans, true)).contains("\u{1b}[32m"));
    }
}
