//! Spans through enrichers and filters, in batches.
//!
//! Plugins of one role see the same spans, whatever those before them did. Invariants: no edit of a plugin that failed on
//! a batch is applied to it; what one filter drops or removes stays dropped or removed; what a filter reads and was not shown
//! does not leave.

use std::rc::Rc;

use foldhash::{HashMap, HashMapExt, HashSet};
use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{
    FaultKind, PluginFault, Resource, Span, SpanContext, SpanId, TraceId, UnixNanos, Value,
};

use crate::bindings::edits::EditList;
use crate::bindings::export_filter::{Filtered as Judged, Verdict};
use crate::bindings::types::PluginError;
use crate::calls::{Enrich, Filter};
use crate::error::CallFault;
use crate::lift::{Change, Lifted, Reserved, What, lift};
use crate::loaded::{Caller, Loaded};
use crate::lower::{LoweredSpans, unseen};
use crate::manifest::OnFailure;
use crate::meter::Tally;
use crate::price::reported;
use crate::role::Role;
use crate::set::Member;

/// What is left after the filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filtered {
    /// Spans that may leave, as the filters left them.
    pub kept: Vec<Span>,
    /// How many may not.
    pub dropped: usize,
    /// Filters that failed; unless they fail open, the spans they should have judged are among the dropped.
    pub faults: Vec<PluginFault>,
}

/// What a whole batch shares.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub exporter: Option<&'a str>,
    pub tenant: Option<&'a str>,
    pub resource: &'a Resource,
}

/// Every enricher sees the same spans; their edits are applied in order, so the later wins.
pub(crate) fn enrich<'a>(
    enrichers: impl Iterator<Item = &'a Member>,
    batch: Batch<'_>,
    spans: &mut Vec<Span>,
) -> Vec<PluginFault> {
    let mut faults = Vec::new();
    let mut edits: Vec<(&Tally, Vec<Change>)> = Vec::new();
    let mut keep = Keep::all(spans);
    for enricher in enrichers {
        let loaded = &*enricher.loaded;
        let mut changes = Vec::new();
        for chunk in chunks(enricher, batch, spans) {
            match ask_enricher(loaded, batch, &chunk, false) {
                Ok(more) => changes.extend(more),
                Err(fault) => {
                    keep.failed(enricher, Role::AttributeEnricher, &chunk.places);
                    push_fault(&mut faults, fault, loaded);
                }
            }
        }
        edits.push((&*loaded.tally, changes));
    }
    count_conflicts(&edits);
    apply(edits.into_iter().flat_map(|(_, changes)| changes), spans);
    keep.retain(spans);
    faults
}

/// Every filter sees the same spans; one that says drop, or fails closed, keeps a span from leaving. Where it is decided
/// that they leave, no filter's word keeps them from it.
pub(crate) fn filter<'a>(
    filters: impl Iterator<Item = &'a Member>,
    batch: Batch<'_>,
    mut spans: Vec<Span>,
    decided: bool,
) -> Filtered {
    let mut faults = Vec::new();
    let mut edits: Vec<Vec<Change>> = Vec::new();
    let mut keep = Keep::all(&spans);
    let mut unseen = Vec::new();
    for filter in filters {
        let loaded = &*filter.loaded;
        let mut changes = Vec::new();
        for chunk in chunks(filter, batch, &spans) {
            match ask_filter(loaded, batch, &chunk, false) {
                Ok((verdicts, more)) => {
                    changes.extend(more);
                    unseen.extend(not_shown(loaded, &chunk, &spans));
                    let judged = chunk.places.iter().zip(verdicts);
                    judged
                        .filter(|(_, v)| !decided && *v == Verdict::Drop)
                        .for_each(|(at, _)| keep.drop(*at));
                }
                Err(fault) => {
                    keep.failed(filter, Role::ExportFilter, &chunk.places);
                    push_fault(&mut faults, fault, loaded);
                }
            }
        }
        edits.push(changes);
    }
    redact(edits, &mut spans);
    withhold(&unseen, &mut spans);
    let all = spans.len();
    keep.retain(&mut spans);
    Filtered { dropped: all - spans.len(), kept: spans, faults }
}

/// Which spans go on.
struct Keep(Vec<bool>);

impl Keep {
    fn all(spans: &[Span]) -> Self {
        Self(vec![true; spans.len()])
    }

    fn drop(&mut self, place: usize) {
        if let Some(keep) = self.0.get_mut(place) {
            *keep = false;
        }
    }

    fn failed(&mut self, plugin: &Member, role: Role, places: &[usize]) {
        if plugin.on_failure(role) == OnFailure::Closed {
            places.iter().for_each(|place| self.drop(*place));
        }
    }

    fn retain(self, spans: &mut Vec<Span>) {
        let mut keep = self.0.into_iter();
        spans.retain(|_| keep.next().unwrap_or(false));
    }
}

/// Of a plugin whose breaker is open one fault is enough, however many batches there were.
fn push_fault(faults: &mut Vec<PluginFault>, fault: CallFault, loaded: &Loaded) {
    let is_repeated = fault.kind == FaultKind::BreakerOpen
        && faults.last().is_some_and(|last| {
            last.kind == FaultKind::BreakerOpen && last.plugin == *loaded.identity
        });
    if !is_repeated {
        faults.push(fault.of(&loaded.identity));
    }
}

/// A key of a span that two enrichers wrote counts for the later one.
fn count_conflicts(edits: &[(&Tally, Vec<Change>)]) {
    if edits.len() < 2 {
        return;
    }
    let mut writers: HashMap<(usize, &str), usize> = HashMap::new();
    for (writer, (tally, changes)) in edits.iter().enumerate() {
        let conflicts = changes
            .iter()
            .filter(|change| {
                let before = writers.insert((change.span, &*change.key), writer);
                before.is_some_and(|before| before != writer)
            })
            .count();
        tally.conflicts(conflicts);
    }
}

/// Applies the filters' edits in order, but no filter puts back what one before it removed.
fn redact(edits: Vec<Vec<Change>>, spans: &mut [Span]) {
    // One filter alone may change its own mind.
    if edits.len() == 1 {
        return apply(edits.into_iter().flatten(), spans);
    }
    let mut removed: HashMap<(usize, Rc<str>), usize> = HashMap::new();
    for (filter, changes) in edits.into_iter().enumerate() {
        for change in changes {
            let place = (change.span, Rc::clone(&change.key));
            if removed.get(&place).is_some_and(|by| *by != filter) {
                continue;
            }
            // A filter may change its own mind.
            if change.what == What::Remove {
                removed.insert(place, filter);
            } else {
                removed.remove(&place);
            }
            apply([change], spans);
        }
    }
}

/// What a filter reads of these spans and was not shown, since they have too much of it.
fn not_shown(filter: &Loaded, chunk: &Chunk<'_>, spans: &[Span]) -> Vec<(usize, HashSet<String>)> {
    let (reads, limits) = (&filter.described.reads, filter.limits());
    let places = chunk.lowered.crowded().iter().filter_map(|at| chunk.places.get(*at));
    let crowded = places.filter_map(|place| Some((*place, spans.get(*place)?)));
    crowded
        .map(|(place, span)| {
            (place, unseen(&span.attributes, reads, limits).map(str::to_owned).collect())
        })
        .filter(|(_, keys): &(usize, HashSet<String>)| !keys.is_empty())
        .collect()
}

/// What a filter could not look at does not leave.
fn withhold(unseen: &[(usize, HashSet<String>)], spans: &mut [Span]) {
    for (place, keys) in unseen {
        let Some(span) = spans.get_mut(*place) else { continue };
        let before = span.attributes.len();
        span.attributes.retain(|key| !keys.contains(key));
        let gone = u32::try_from(before - span.attributes.len()).unwrap_or(u32::MAX);
        if let Some(received) = &mut span.received {
            received.dropped_attributes = received.dropped_attributes.saturating_add(gone);
        }
    }
}

/// Whether an enricher can answer at all.
pub(crate) fn try_enrich(enricher: &Loaded) -> Result<(), CallFault> {
    let spans = trial_span();
    let resource = Resource::default();
    let batch = Batch { exporter: None, tenant: None, resource: &resource };
    let chunk = single(enricher, batch, &spans);
    ask_enricher(enricher, batch, &chunk, true).map(|_| ())
}

/// Whether a filter can answer at all.
pub(crate) fn try_filter(filter: &Loaded) -> Result<(), CallFault> {
    let spans = trial_span();
    let resource = Resource::default();
    let batch = Batch { exporter: Some("trial"), tenant: None, resource: &resource };
    let chunk = single(filter, batch, &spans);
    ask_filter(filter, batch, &chunk, true).map(|_| ())
}

/// Some of the spans, lowered, and which ones.
struct Chunk<'a> {
    /// The time of the whole batch.
    now: u64,
    places: Vec<usize>,
    lowered: LoweredSpans<'a>,
}

/// The spans that a plugin is for and wants to see, in batches of the size that it and the host want.
fn chunks<'a>(member: &Member, batch: Batch<'a>, spans: &'a [Span]) -> Vec<Chunk<'a>> {
    let plugin = &*member.loaded;
    let (reads, limits) = (&plugin.described.reads, plugin.limits());
    let now = now(spans);
    let empty = || {
        let most = spans.len().min(plugin.max_batch());
        let lowered = LoweredSpans::new(batch.resource, reads, limits, most);
        Chunk { now, places: Vec::with_capacity(most), lowered }
    };
    let is_for = |span: &Span| wants(plugin, span) && member.rules.matching.span(span);
    let mut chunks = Vec::new();
    let mut chunk: Option<Chunk<'_>> = None;
    for (place, span) in spans.iter().enumerate().filter(|(_, span)| is_for(span)) {
        let current = chunk.get_or_insert_with(empty);
        current.places.push(place);
        current.lowered.push(span, reads, limits);
        let full = current.places.len() >= plugin.max_batch()
            || current.lowered.bytes() >= limits.batch_bytes;
        if full {
            chunks.extend(chunk.take());
        }
    }
    chunks.extend(chunk);
    chunks
}

/// A trial does not ask whether the plugin wants the span.
fn single<'a>(plugin: &Loaded, batch: Batch<'a>, spans: &'a [Span]) -> Chunk<'a> {
    let (reads, limits) = (&plugin.described.reads, plugin.limits());
    let mut lowered = LoweredSpans::new(batch.resource, reads, limits, spans.len());
    spans.iter().for_each(|span| lowered.push(span, reads, limits));
    Chunk { now: now(spans), places: (0..spans.len()).collect(), lowered }
}

fn wants(plugin: &Loaded, span: &Span) -> bool {
    let operations = &plugin.described.operations;
    if operations.is_empty() {
        return true;
    }
    match span.attributes.get("gen_ai.operation.name") {
        Some(Value::Text(operation)) => operations.contains(operation),
        _ => false,
    }
}

/// The time of a batch is that of its spans, so that a replay sees the same.
fn now(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.interval.end.0).max().unwrap_or_default()
}

fn ask_enricher(
    enricher: &Loaded,
    batch: Batch<'_>,
    chunk: &Chunk<'_>,
    trial: bool,
) -> Result<Vec<Change>, CallFault> {
    let context = chunk.lowered.context(batch.tenant, batch.exporter, chunk.now);
    let (tenant, items) = (batch.tenant, chunk.places.len());
    enricher.call(
        Caller { role: Role::AttributeEnricher, tenant, items, trial },
        |instance| match instance.functions.enrich {
            Some(enrich) => {
                let enrich: Enrich<'_> = enrich;
                enrich.call(&mut instance.store, (context, chunk.lowered.batch()))
            }
            None => Err(wasmtime::Error::msg("not an enricher")),
        },
        |(answer,)| {
            let edits = answer.map_err(|error| reported(&error))?;
            changes(&edits, chunk, enricher, Role::AttributeEnricher, trial)
        },
    )
}

fn ask_filter(
    filter: &Loaded,
    batch: Batch<'_>,
    chunk: &Chunk<'_>,
    trial: bool,
) -> Result<(Vec<Verdict>, Vec<Change>), CallFault> {
    let context = chunk.lowered.context(batch.tenant, batch.exporter, chunk.now);
    let (tenant, items) = (batch.tenant, chunk.places.len());
    filter.call(
        Caller { role: Role::ExportFilter, tenant, items, trial },
        |instance| match instance.functions.filter {
            Some(filter) => {
                let filter: Filter<'_> = filter;
                filter.call(&mut instance.store, (context, chunk.lowered.batch()))
            }
            None => Err(wasmtime::Error::msg("not a filter")),
        },
        |(answer,)| {
            let (verdicts, edits) = judged(answer, chunk.places.len())?;
            Ok((verdicts, changes(&edits, chunk, filter, Role::ExportFilter, trial)?))
        },
    )
}

/// One verdict for each span, or a fault.
pub(crate) fn judged(
    answer: Result<Judged, PluginError>,
    wanted: usize,
) -> Result<(Vec<Verdict>, EditList), CallFault> {
    let Judged { verdicts, edits } = answer.map_err(|error| reported(&error))?;
    let given = verdicts.len();
    if given != wanted {
        let why = format!("{given} verdicts on {wanted} spans");
        return Err(CallFault::new(FaultKind::WrongLength, why));
    }
    Ok((verdicts, edits))
}

/// Checked edits, with places in the whole of the spans.
fn changes(
    edits: &EditList,
    chunk: &Chunk<'_>,
    plugin: &Loaded,
    role: Role,
    trial: bool,
) -> Result<Vec<Change>, CallFault> {
    let reserved = if role == Role::ExportFilter { Reserved::MayRemove } else { Reserved::Keep };
    let (writes, spans) = (&plugin.described.writes, chunk.places.len());
    let Lifted { mut changes, refused } = lift(edits, spans, writes, reserved, plugin.limits())?;
    if !trial {
        plugin.tally.refused_edits(role, refused);
    }
    for change in &mut changes {
        if let Some(place) = chunk.places.get(change.span) {
            change.span = *place;
        }
    }
    Ok(changes)
}

fn apply(changes: impl IntoIterator<Item = Change>, spans: &mut [Span]) {
    for change in changes {
        if let Some(span) = spans.get_mut(change.span) {
            change.apply(&mut span.attributes);
        }
    }
}

fn trial_span() -> Vec<Span> {
    let mut attributes = Attributes::new();
    attributes.set("gen_ai.operation.name", "chat");
    attributes.set("gen_ai.request.model", "tollgate-trial");
    attributes.set("gen_ai.usage.input_tokens", 12_i64);
    vec![Span {
        context: SpanContext {
            trace_id: TraceId(1),
            span_id: SpanId(1),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: "inference.request".into(),
        kind: SpanKind::Server,
        interval: Interval::new(
            UnixNanos(1_750_000_000_000_000_000),
            UnixNanos(1_750_000_001_000_000_000),
        ),
        status: SpanStatus::Unset,
        attributes,
        events: Vec::new(),
        received: None,
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn change(span: usize, key: &str, what: What) -> Change {
        Change { span, key: key.into(), what }
    }

    fn set(span: usize, key: &str, value: i64) -> Change {
        change(span, key, What::Set(value.into()))
    }

    #[test]
    fn the_later_enricher_wins_and_is_told_on() {
        let (first, second) = (Tally::default(), Tally::default());
        let edits = [
            (&first, vec![set(0, "a", 1), set(0, "a", 2), set(0, "b", 1), set(1, "c", 1)]),
            (&second, vec![set(0, "a", 3), set(0, "c", 3), change(1, "c", What::Remove)]),
        ];
        count_conflicts(&edits);
        assert_eq!((first.conflict_count(), second.conflict_count()), (0, 2));
        let mut spans = vec![testing::span(&[]), testing::span(&[])];
        apply(edits.into_iter().flat_map(|(_, changes)| changes), &mut spans);
        let expected = [
            testing::span(&[("a", 3_i64.into()), ("b", 1_i64.into()), ("c", 3_i64.into())]),
            testing::span(&[]),
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn what_one_filter_removes_no_other_puts_back() {
        let secret = || vec![testing::span(&[("secret", "s".into())])];
        let remove = || change(0, "secret", What::Remove);
        let cases = [
            (vec![vec![remove()], vec![set(0, "secret", 1)]], None),
            (vec![vec![set(0, "secret", 1)], vec![remove()]], None),
            (vec![vec![remove()], vec![change(0, "secret", What::SetDefault(1_i64.into()))]], None),
            // The same filter may.
            (vec![vec![remove(), set(0, "secret", 1)]], Some(1)),
            (vec![vec![set(0, "secret", 1)], vec![set(0, "secret", 2)]], Some(2)),
        ];
        for (edits, left) in cases {
            let mut spans = secret();
            redact(edits.clone(), &mut spans);
            let value = spans.first().and_then(|span| span.attributes.get("secret"));
            assert_eq!(value, left.map(Value::Int).as_ref(), "{edits:?}");
        }
    }

    #[test]
    fn what_a_filter_could_not_look_at_does_not_leave() {
        let attributes = |keys: &[&str]| -> Attributes {
            keys.iter().map(|key| ((*key).to_owned(), Value::Bool(true))).collect()
        };
        let keys = ["a", "b", "c"].map(String::from);
        let unseen = [(1, keys.into_iter().collect()), (7, HashSet::default())];
        let mut spans = vec![testing::span(&[]), testing::span(&[])];
        spans.iter_mut().for_each(|span| span.attributes = attributes(&["x", "a", "y", "c"]));
        spans[1].received = Some(Box::default());
        withhold(&unseen, &mut spans);
        assert_eq!(spans[0].attributes, attributes(&["x", "a", "y", "c"]));
        assert_eq!(spans[1].attributes, attributes(&["x", "y"]));
        assert_eq!(spans[1].received.as_ref().unwrap().dropped_attributes, 2);
    }
}
