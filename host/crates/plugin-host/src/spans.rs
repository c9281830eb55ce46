//! Spans through enrichers and filters, in batches.

use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{
    FaultKind, PluginFault, Resource, Span, SpanContext, SpanId, TraceId, UnixNanos, Value,
};

use crate::bindings::edits::EditList;
use crate::bindings::export_filter::{Filtered as Judged, Verdict};
use crate::bindings::types::PluginError;
use crate::error::CallFault;
use crate::lift::{Change, Reserved, lift};
use crate::limits::Limits;
use crate::loaded::Loaded;
use crate::lower::LoweredSpans;
use crate::price::reported;

/// What is left after the filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filtered {
    /// Spans that may leave, as the filters left them.
    pub kept: Vec<Span>,
    /// How many may not.
    pub dropped: usize,
    /// Filters that failed; the spans they should have judged are among the dropped.
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
    enrichers: impl Iterator<Item = &'a Loaded>,
    batch: Batch<'_>,
    spans: &mut [Span],
    limits: &Limits,
) -> Vec<PluginFault> {
    let mut faults = Vec::new();
    let mut changes = Vec::new();
    for enricher in enrichers {
        for chunk in chunks(enricher, batch, spans, limits) {
            match ask_enricher(enricher, batch, spans, &chunk, limits) {
                Ok(more) => changes.extend(more),
                Err(fault) => faults.push(fault.of(&enricher.identity)),
            }
        }
    }
    apply(changes, spans);
    faults
}

/// Every filter sees the same spans; one that says drop, or fails, keeps a span from leaving.
pub(crate) fn filter<'a>(
    filters: impl Iterator<Item = &'a Loaded>,
    batch: Batch<'_>,
    mut spans: Vec<Span>,
    limits: &Limits,
) -> Filtered {
    let mut faults = Vec::new();
    let mut changes = Vec::new();
    let mut keep = vec![true; spans.len()];
    for filter in filters {
        for chunk in chunks(filter, batch, &spans, limits) {
            let verdicts = match ask_filter(filter, batch, &spans, &chunk, limits) {
                Ok((verdicts, more)) => {
                    changes.extend(more);
                    verdicts
                }
                Err(fault) => {
                    faults.push(fault.of(&filter.identity));
                    vec![Verdict::Drop; chunk.places.len()]
                }
            };
            for (place, verdict) in chunk.places.iter().zip(verdicts) {
                if verdict == Verdict::Drop
                    && let Some(keep) = keep.get_mut(*place)
                {
                    *keep = false;
                }
            }
        }
    }
    apply(changes, &mut spans);
    let all = spans.len();
    let kept: Vec<Span> =
        spans.into_iter().zip(keep).filter_map(|(span, keep)| keep.then_some(span)).collect();
    Filtered { dropped: all - kept.len(), kept, faults }
}

/// Whether an enricher can answer at all.
pub(crate) fn try_enrich(enricher: &Loaded, limits: &Limits) -> Result<(), CallFault> {
    let spans = trial_span();
    let resource = Resource::default();
    let batch = Batch { exporter: None, tenant: None, resource: &resource };
    let chunk = single(enricher, batch, &spans, limits);
    ask_enricher(enricher, batch, &spans, &chunk, limits).map(|_| ())
}

/// Whether a filter can answer at all.
pub(crate) fn try_filter(filter: &Loaded, limits: &Limits) -> Result<(), CallFault> {
    let spans = trial_span();
    let resource = Resource::default();
    let batch = Batch { exporter: Some("trial"), tenant: None, resource: &resource };
    let chunk = single(filter, batch, &spans, limits);
    ask_filter(filter, batch, &spans, &chunk, limits).map(|_| ())
}

/// Some of the spans, lowered, and which ones.
struct Chunk {
    places: Vec<usize>,
    lowered: LoweredSpans,
}

/// The spans that a plugin wants to see, in batches of the size that it and the host want.
fn chunks(plugin: &Loaded, batch: Batch<'_>, spans: &[Span], limits: &Limits) -> Vec<Chunk> {
    let reads = &plugin.described.reads;
    let empty =
        || Chunk { places: Vec::new(), lowered: LoweredSpans::new(batch.resource, reads, limits) };
    let mut chunks = Vec::new();
    let mut chunk: Option<Chunk> = None;
    for (place, span) in spans.iter().enumerate().filter(|(_, span)| wants(plugin, span)) {
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
fn single(plugin: &Loaded, batch: Batch<'_>, spans: &[Span], limits: &Limits) -> Chunk {
    let reads = &plugin.described.reads;
    let mut lowered = LoweredSpans::new(batch.resource, reads, limits);
    spans.iter().for_each(|span| lowered.push(span, reads, limits));
    Chunk { places: (0..spans.len()).collect(), lowered }
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
    spans: &[Span],
    chunk: &Chunk,
    limits: &Limits,
) -> Result<Vec<Change>, CallFault> {
    let context = chunk.lowered.context(batch.tenant, batch.exporter, now(spans));
    enricher.call(
        chunk.places.len(),
        |instance| match &instance.enricher {
            Some(guest) => guest.call_enrich(&mut instance.store, context, chunk.lowered.batch()),
            None => Err(wasmtime::Error::msg("not an enricher")),
        },
        |answer| {
            let edits = answer.map_err(|error| reported(&error))?;
            changes(&edits, chunk, enricher, Reserved::Keep, limits)
        },
    )
}

fn ask_filter(
    filter: &Loaded,
    batch: Batch<'_>,
    spans: &[Span],
    chunk: &Chunk,
    limits: &Limits,
) -> Result<(Vec<Verdict>, Vec<Change>), CallFault> {
    let context = chunk.lowered.context(batch.tenant, batch.exporter, now(spans));
    filter.call(
        chunk.places.len(),
        |instance| match &instance.filter {
            Some(guest) => guest.call_filter(&mut instance.store, context, chunk.lowered.batch()),
            None => Err(wasmtime::Error::msg("not a filter")),
        },
        |answer| {
            let (verdicts, edits) = judged(answer, chunk.places.len())?;
            Ok((verdicts, changes(&edits, chunk, filter, Reserved::MayRemove, limits)?))
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
    chunk: &Chunk,
    plugin: &Loaded,
    reserved: Reserved,
    limits: &Limits,
) -> Result<Vec<Change>, CallFault> {
    let mut changes = lift(edits, chunk.places.len(), &plugin.described.writes, reserved, limits)?;
    for change in &mut changes {
        if let Some(place) = chunk.places.get(change.span) {
            change.span = *place;
        }
    }
    Ok(changes)
}

fn apply(changes: Vec<Change>, spans: &mut [Span]) {
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
    }]
}
