//! Whole traces: what leaves is taken apart by traces, and once those are decided, filters of spans
//! and then filters of traces are asked what of them leaves.
//!
//! A filter of traces gets one trace at a time, all spans of one tenant in it. What is said of their
//! process is what all processes in it have in common: that is the contract's word for a resource
//! that all items share.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use tollgate_domain::received::Origin;
use tollgate_domain::sampling::TraceFacts;
use tollgate_domain::span::{Attributes, Key};
use tollgate_domain::{Currency, Money, Resource, Span, TraceId, Value};
use tollgate_ledger::{Outbound, Payload, Seq};
use tollgate_plugin_host::{Filters, Role};

use super::{Subject, Tracer, id, mark, report};
use crate::traces::{Decided, Part};

/// About what a span, an attribute and a value take in memory besides their text.
const SPAN_BYTES: usize = 320;
const ATTRIBUTE_BYTES: usize = 72;

/// Spans of one entry of the ledger that are of one trace.
#[derive(Debug)]
pub(crate) struct Fragment {
    pub(crate) seq: Seq,
    subject: Subject,
    spans: Vec<Span>,
}

/// What leaves of traces that were decided.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// The spans of each fragment that may leave, which may be none of them.
    pub(crate) leaving: Vec<(Seq, Vec<Span>)>,
    /// Traces that were to leave and of which filters of traces let nothing.
    pub(crate) overruled: Vec<TraceId>,
}

impl Tracer {
    /// Each record, enriched, by the traces that its spans are of; calls plugins, so it blocks.
    pub(crate) fn apart(&self, records: &[Arc<Outbound>]) -> Vec<Vec<Part<Fragment>>> {
        let enriched = self.enriched(records);
        records.iter().zip(enriched).map(|(stored, spans)| apart(stored, &spans)).collect()
    }

    /// What of these traces leaves through `exporter`; calls plugins, so it blocks.
    pub(crate) fn judged(&self, exporter: &str, decided: Vec<Decided<Fragment>>) -> Judged {
        let mut judged = Judged::default();
        let (kept, dropped): (Vec<_>, Vec<_>) =
            decided.into_iter().partition(|trace| trace.decision.is_kept());
        let nothing = dropped.into_iter().flat_map(|trace| trace.parts);
        judged.leaving.extend(nothing.map(|fragment| (fragment.seq, Vec::new())));
        let fragments: Vec<&Fragment> = kept.iter().flat_map(|trace| &trace.parts).collect();
        let subjects: Vec<Subject> =
            fragments.iter().map(|fragment| fragment.subject.clone()).collect();
        let spans = fragments.iter().map(|fragment| fragment.spans.clone()).collect();
        let again = |place: usize| fragments.get(place).map(|fragment| fragment.spans.clone());
        let again = |place| again(place).unwrap_or_default();
        let filtered = self.filtered(exporter, &subjects, spans, again, Filters::OfSpans);
        let mut filtered = filtered.into_iter();
        let judges = self.plugins.pin().judges_traces();
        for Decided { trace, late, mut parts, .. } in kept {
            for fragment in &mut parts {
                fragment.spans = filtered.next().unwrap_or_default();
            }
            let any = |parts: &[Fragment]| parts.iter().any(|fragment| !fragment.spans.is_empty());
            if judges && any(&parts) {
                self.ask_of_trace(exporter, &mut parts, late);
                if !late && !any(&parts) {
                    judged.overruled.push(trace);
                }
            }
            let left = parts.into_iter().map(|Fragment { seq, spans, .. }| (seq, spans));
            judged.leaving.extend(left);
        }
        judged
    }

    /// Asks filters of traces about one, for each tenant in it.
    fn ask_of_trace(&self, exporter: &str, parts: &mut [Fragment], late: bool) {
        let plugins = self.plugins.pin();
        let mut tenants: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
        for (place, fragment) in parts.iter().enumerate() {
            tenants.entry(fragment.subject.tenant.clone()).or_default().push(place);
        }
        for (tenant, places) in tenants {
            let (mut spans, mut owner) = (Vec::new(), HashMap::new());
            for place in places {
                let Some(fragment) = parts.get_mut(place) else { continue };
                owner.extend(fragment.spans.iter().map(|span| (id(span), place)));
                spans.append(&mut fragment.spans);
            }
            let resource = self.in_common(&spans);
            let by = Filters::OfTraces { late };
            let mut filtered = plugins.filter_by(
                by,
                exporter,
                tenant.as_deref(),
                &resource,
                mem::take(&mut spans),
            );
            report(&filtered.faults);
            mark(&mut filtered.kept, None, &filtered.faults, Role::ExportFilter);
            for span in filtered.kept {
                let place = owner.get(&id(&span)).copied();
                if let Some(fragment) = place.and_then(|place| parts.get_mut(place)) {
                    fragment.spans.push(span);
                }
            }
        }
    }

    /// What the resources of all these spans have in common.
    fn in_common(&self, spans: &[Span]) -> Resource {
        let resources = spans.iter().map(|span| match &span.received {
            Some(sent) => &sent.origin.resource,
            None => &self.resource,
        });
        Resource { attributes: in_all(resources.map(|resource| &resource.attributes)) }
    }
}

/// What stands in all of these alike, in time that grows with them and not with their pairs: each of
/// a sender's spans may have another resource, and each of those many attributes.
fn in_all<'a>(mut all: impl Iterator<Item = &'a Attributes>) -> Attributes {
    let Some(first) = all.next() else { return Attributes::new() };
    let mut shared: HashMap<&Key, &Value> = first.iter().collect();
    let mut before = first;
    for attributes in all {
        // Spans of one process stand together, and their resource is one and the same.
        if std::ptr::eq(before, attributes) {
            continue;
        }
        before = attributes;
        let alike = attributes.iter().filter(|(key, value)| shared.get(*key) == Some(value));
        shared = alike.collect();
    }
    let left = first.iter().filter(|(key, _)| shared.contains_key(*key));
    left.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The spans of one record or batch by their traces, in the order in which those begin.
fn apart(stored: &Outbound, spans: &[Span]) -> Vec<Part<Fragment>> {
    let subject = Subject::of(&stored.what);
    let mut places: HashMap<TraceId, usize> = HashMap::new();
    let mut parts: Vec<Part<Fragment>> = Vec::new();
    let shares = shares(spans);
    for span in spans {
        let trace = span.context.trace_id;
        let place = *places.entry(trace).or_insert_with(|| {
            let what = Fragment { seq: stored.seq, subject: subject.clone(), spans: Vec::new() };
            let facts = TraceFacts::default();
            parts.push(Part { trace, facts, spans: 0, bytes: 0, what });
            parts.len() - 1
        });
        let Some(part) = parts.get_mut(place) else { continue };
        part.spans += 1;
        let share = origin(span).and_then(|origin| shares.get(&Arc::as_ptr(origin)));
        part.bytes = part.bytes.saturating_add(bytes(span)).saturating_add(share.map_or(0, |s| *s));
        part.what.spans.push(span.clone());
    }
    for part in &mut parts {
        part.facts = TraceFacts::of_spans(&part.what.spans);
        match &stored.what {
            Payload::Record(record) => {
                record.cost.cost().into_iter().for_each(|cost| part.facts.cost(cost.total));
            }
            // Those that another Tollgate has recorded and priced.
            Payload::Spans(_) => {
                part.what.spans.iter().filter_map(cost).for_each(|cost| part.facts.cost(cost));
            }
            Payload::Passed(_) => {}
        }
    }
    parts
}

fn cost(span: &Span) -> Option<Money> {
    let text = |key| match span.attributes.get(key) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let currency = Currency::parse(text(tollgate_telemetry::names::cost::CURRENCY)?)?;
    Money::parse_decimal(text(tollgate_telemetry::names::cost::AMOUNT)?, currency)
}

/// Who recorded the span, if it was not us.
fn origin(span: &Span) -> Option<&Arc<Origin>> {
    span.received.as_deref().map(|sent| &sent.origin)
}

/// About what each of these spans has of the memory that its origin takes, which all of its spans
/// share.
fn shares(spans: &[Span]) -> HashMap<*const Origin, usize> {
    let mut origins: HashMap<*const Origin, (&Origin, usize)> = HashMap::new();
    for origin in spans.iter().filter_map(origin) {
        origins.entry(Arc::as_ptr(origin)).or_insert((origin, 0)).1 += 1;
    }
    let share = |(origin, spans): (&Origin, usize)| {
        let attributes = [&origin.resource.attributes, &origin.scope.attributes];
        let bytes: usize = attributes.into_iter().map(attribute_bytes).sum();
        bytes.div_ceil(spans.max(1))
    };
    origins.into_iter().map(|(at, found)| (at, share(found))).collect()
}

/// About what a span takes in memory.
fn bytes(span: &Span) -> usize {
    let of = attribute_bytes;
    let events = span.events.iter().map(|event| SPAN_BYTES / 4 + of(&event.attributes));
    let links = span.received.iter().flat_map(|sent| &sent.links);
    let links = links.map(|link| SPAN_BYTES / 4 + of(&link.attributes));
    let more: usize = events.chain(links).sum();
    SPAN_BYTES + span.name.len() + of(&span.attributes) + more
}

fn attribute_bytes(attributes: &Attributes) -> usize {
    attributes.iter().map(|(key, value)| ATTRIBUTE_BYTES + key.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.iter().map(|item| ATTRIBUTE_BYTES + value_bytes(item)).sum(),
        Value::Map(entries) => attribute_bytes(entries),
        Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_domain::received::Received;

    fn attributes(pairs: &[(&str, i64)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::Int(*value))).collect()
    }

    #[test]
    fn what_all_processes_have_in_common_is_left() {
        for (all, left) in [
            (vec![vec![("a", 1), ("b", 2)]], vec![("a", 1), ("b", 2)]),
            (vec![vec![("a", 1), ("b", 2), ("c", 3)], vec![("c", 3), ("b", 0)]], vec![("c", 3)]),
            (vec![vec![("a", 1)], vec![("a", 2)], vec![("a", 1)]], vec![]),
            (vec![vec![("a", 1)], vec![], vec![("a", 1)]], vec![]),
        ] {
            let all: Vec<Attributes> = all.iter().map(|pairs| attributes(pairs)).collect();
            assert_eq!(in_all(all.iter()), attributes(&left));
        }
        assert_eq!(in_all(std::iter::empty()), Attributes::new());
    }

    #[test]
    fn many_processes_with_many_attributes_are_compared_in_linear_time() {
        let wide = |first: i64| -> Attributes {
            (0..100_000).map(|n| (format!("k{n}"), Value::Int(first + n))).collect()
        };
        // By pairs it would not end today.
        let (one, other) = (wide(0), wide(1));
        assert_eq!(in_all([&one, &one.clone(), &other].into_iter()), Attributes::new());
        let many: Vec<Attributes> =
            (0..100_000).map(|n| attributes(&[("shared", 1), ("own", n)])).collect();
        assert_eq!(in_all(many.iter()), attributes(&[("shared", 1)]));
    }

    #[test]
    fn what_recorded_spans_is_part_of_what_they_take() {
        let text = Value::Text("x".repeat(100_000));
        let resource = Resource { attributes: [("k".to_owned(), text)].into_iter().collect() };
        let origin = Arc::new(Origin { resource, ..Origin::default() });
        let record = crate::metrics::tests::record();
        let mut spans = tollgate_telemetry::spans(&record, None);
        let own: usize = spans.iter().map(bytes).sum();
        assert!(shares(&spans).is_empty());
        for span in &mut spans {
            let sent = Received { origin: Arc::clone(&origin), ..Received::default() };
            span.received = Some(Box::new(sent));
        }
        let share = shares(&spans)[&Arc::as_ptr(&origin)];
        assert!((100_000..101_000).contains(&(share * spans.len())), "{share}, beside {own}");
    }
}
