//! Whole traces: what leaves is taken apart by traces, and once those are decided, filters of spans
//! and then filters of traces are asked what of them leaves.
//!
//! A filter of traces gets one trace at a time, all spans of one tenant in it. What is said of their
//! process is what all processes in it have in common: that is the contract's word for a resource
//! that all items share.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use tollgate_domain::sampling::TraceFacts;
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
        let of = |span: &'_ Span| span.received.as_deref().map(|sent| Arc::clone(&sent.origin));
        let mut origins: Vec<_> = Vec::new();
        for origin in spans.iter().map(of) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        let mut resources = origins
            .iter()
            .map(|origin| origin.as_ref().map_or(&self.resource, |origin| &origin.resource));
        let Some(first) = resources.next() else { return Resource::default() };
        let others: Vec<&Resource> = resources.collect();
        let everywhere = |key: &str, value: &Value| {
            others.iter().all(|other| other.attributes.get(key) == Some(value))
        };
        let shared = first.attributes.iter().filter(|(key, value)| everywhere(key, value));
        Resource { attributes: shared.map(|(key, value)| (key.clone(), value.clone())).collect() }
    }
}

/// The spans of one record or batch by their traces, in the order in which those begin.
fn apart(stored: &Outbound, spans: &[Span]) -> Vec<Part<Fragment>> {
    let subject = Subject::of(&stored.what);
    let mut places: HashMap<TraceId, usize> = HashMap::new();
    let mut parts: Vec<Part<Fragment>> = Vec::new();
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
        part.bytes = part.bytes.saturating_add(bytes(span));
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

/// About what a span takes in memory.
fn bytes(span: &Span) -> usize {
    let of = |attributes: &tollgate_domain::span::Attributes| -> usize {
        attributes.iter().map(|(key, value)| ATTRIBUTE_BYTES + key.len() + value_bytes(value)).sum()
    };
    let events = span.events.iter().map(|event| SPAN_BYTES / 4 + of(&event.attributes));
    let links = span.received.iter().flat_map(|sent| &sent.links);
    let links = links.map(|link| SPAN_BYTES / 4 + of(&link.attributes));
    let more: usize = events.chain(links).sum();
    SPAN_BYTES + span.name.len() + of(&span.attributes) + more
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.iter().map(|item| ATTRIBUTE_BYTES + value_bytes(item)).sum(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| ATTRIBUTE_BYTES + key.len() + value_bytes(value))
            .sum(),
        Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => 0,
    }
}
