//! From a record to its spans: one tree, root first.
//!
//! Pure and repeatable: the same record gives the same spans with the same ids for ever, so a
//! receiver that gets them twice can drop the copy.

use std::net::SocketAddr;

use tollgate_domain::admission::Admission;
use tollgate_domain::record::{EngineFacts, Record, TracePlace};
use tollgate_domain::span::{Attributes, Span, SpanEvent, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::{FailedAttempt, UpstreamCall};
use tollgate_domain::{
    CostOutcome, Outcome, PluginFault, SpanContext, SpanId, UnixNanos, UnpricedReason,
};

use crate::attributes;
use crate::names::{cost, event, llm, span, tollgate};

/// Number of each phase among the root's children. Ids are made from it: never renumber.
const QUEUE: u64 = 0;
const TOKENIZE: u64 = 1;
const PREFILL: u64 = 2;
const DECODE: u64 = 3;
const UPSTREAM: u64 = 4;

/// The role of the plugin that a record's cost comes from.
const COST_MODEL: &str = "cost-model";

/// The spans of `record`: the root, then the phases that were reached and the call to another server,
/// in the order they began. Of a request that another program served and told us of: the span that
/// it sent, with what the call cost.
///
/// `server` is the address that the request came in at. The sampled flag is what the client said
/// (true if it said nothing); it is passed on and never decides whether the spans are exported.
#[must_use]
pub fn spans(record: &Record, server: Option<SocketAddr>) -> Vec<Span> {
    if let Some(call) = &record.received {
        let mut span = call.span();
        attributes::of_received(record, &mut span.attributes);
        if let CostOutcome::PluginFailed(fault) = &record.cost {
            span.events.push(plugin_failed(fault, COST_MODEL, span.interval.end));
        }
        return vec![span];
    }
    let mut spans = vec![root(record, server)];
    let mut phases = phases(record);
    phases.extend(record.upstream.as_ref().map(|call| upstream(record, call)));
    phases.sort_by_key(|phase| phase.interval.start);
    spans.append(&mut phases);
    spans
}

/// Says on a received span that it is not billed, and why.
pub fn not_billed(span: &mut Span, reason: UnpricedReason) {
    attributes::money(&CostOutcome::Unpriced { reason }, &mut span.attributes);
}

/// Whether a span says what became of its cost, as one does that is not billed.
#[must_use]
pub fn has_cost_status(span: &Span) -> bool {
    span.attributes.has(|key| key == cost::STATUS.as_bytes())
}

/// The span that another server is told to be the child of, when it serves the request at `place`.
#[must_use]
pub fn upstream_context(place: &TracePlace) -> SpanContext {
    context(place, place.root.child(UPSTREAM))
}

fn root(record: &Record, server: Option<SocketAddr>) -> Span {
    let parent = record.trace.parent.as_ref();
    let context = context(&record.trace, record.trace.root);
    Span {
        parent: parent.map(|parent| parent.span_id),
        parent_is_remote: parent.is_some(),
        status: status(record),
        attributes: attributes::of_request(record, server),
        events: events(record),
        ..Span::new(context, span::REQUEST, SpanKind::Server, record.phases.request)
    }
}

/// A 4xx leaves the status unset, as the HTTP conventions say of SERVER spans, and so does a
/// client that goes away: neither is a fault of this server. `error.type` tells both.
fn status(record: &Record) -> SpanStatus {
    match &record.outcome {
        Outcome::Refused { message, .. } | Outcome::Failed { message, .. }
            if !(400..500).contains(&record.http.status) =>
        {
            SpanStatus::Error(message.clone())
        }
        Outcome::Aborted => SpanStatus::Error("the gateway's process ended".to_owned()),
        _ => SpanStatus::Unset,
    }
}

fn events(record: &Record) -> Vec<SpanEvent> {
    let mut events = Vec::new();
    if let Some(time) = record.phases.first_token {
        let mut attributes = Attributes::new();
        let waited = Interval::new(record.phases.request.start, time);
        attributes.set(llm::TIME_TO_FIRST_TOKEN_MS, attributes::rounded_ms(waited));
        events.push(SpanEvent::new(event::FIRST_TOKEN, time, attributes));
    }
    if let Some(admission) = &record.admission {
        events.extend(limits(admission, record.phases.request.start));
    }
    if let CostOutcome::PluginFailed(fault) = &record.cost {
        events.push(plugin_failed(fault, COST_MODEL, record.phases.request.end));
    }
    events
}

/// The limit that refused a request, and the budgets that are nearly spent.
fn limits(admission: &Admission, time: UnixNanos) -> Vec<SpanEvent> {
    let applied = admission.limit.as_ref().map(|limit| {
        let mut attributes = Attributes::new();
        attributes.set(tollgate::LIMIT_SCOPE, limit.scope.as_str());
        attributes.set(tollgate::LIMIT_OF, limit.what.as_str());
        attributes.set(tollgate::LIMIT, limit.limit.as_str());
        SpanEvent::new(event::RATE_LIMIT_APPLIED, time, attributes)
    });
    let soft = admission.soft_budgets.iter().map(|budget| {
        let mut attributes = Attributes::new();
        attributes.set(tollgate::BUDGET, budget.as_str());
        SpanEvent::new(event::BUDGET_SOFT, time, attributes)
    });
    applied.into_iter().chain(soft).collect()
}

/// The event that says which plugin failed, in which role of the contract, and how.
#[must_use]
pub fn plugin_failed(fault: &PluginFault, role: &'static str, time: UnixNanos) -> SpanEvent {
    let mut attributes = Attributes::new();
    attributes.set(tollgate::PLUGIN_NAME, fault.plugin.name.as_str());
    attributes.set(tollgate::PLUGIN_VERSION, fault.plugin.version.as_str());
    attributes.set(tollgate::PLUGIN_DIGEST, fault.plugin.digest.as_str());
    attributes.set(tollgate::PLUGIN_ROLE, role);
    attributes.set(tollgate::PLUGIN_FAULT_KIND, fault.kind.name());
    attributes.set(tollgate::PLUGIN_FAULT_MESSAGE, fault.message.as_str());
    SpanEvent::new(event::PLUGIN_FAILED, time, attributes)
}

fn phases(record: &Record) -> Vec<Span> {
    let phases = &record.phases;
    let tokens = record.usage.as_ref().map(|usage| usage.tokens);
    let mut spans = Vec::with_capacity(4);
    if let Some(interval) = phases.queue {
        let mut attributes = Attributes::new();
        attributes.set(llm::QUEUE_LATENCY_MS, attributes::rounded_ms(interval));
        spans.push(phase(record, QUEUE, span::QUEUE, interval, attributes));
    }
    if let Some(interval) = phases.tokenize {
        let mut attributes = Attributes::new();
        attributes.set_some(llm::PROMPT_TOKENS, tokens.map(|tokens| tokens.input));
        attributes.set(llm::PROMPT_LENGTH_CHARS, record.asked.prompt_characters);
        spans.push(phase(record, TOKENIZE, span::TOKENIZE, interval, attributes));
    }
    if let Some(interval) = phases.prefill {
        let mut attributes = Attributes::new();
        attributes.set(llm::PREFILL_LATENCY_MS, attributes::rounded_ms(interval));
        attributes.set_some(llm::PROMPT_TOKENS, tokens.map(|tokens| tokens.input));
        if let Some(met) = &record.engine {
            attributes.set(tollgate::PREFILL_CHUNKS, i64::from(met.prefill_chunks));
            attributes.set(tollgate::CACHED_TOKENS, i64::from(met.cached_tokens));
        }
        spans.push(phase(record, PREFILL, span::PREFILL, interval, attributes));
    }
    if let Some(interval) = phases.decode {
        let mut attributes = Attributes::new();
        attributes.set_some(llm::COMPLETION_TOKENS, tokens.map(|tokens| tokens.output));
        attributes.set(llm::DECODE_LATENCY_MS, attributes::rounded_ms(interval));
        if let Some(met) = &record.engine {
            engine(met, &mut attributes);
        }
        spans.push(phase(record, DECODE, span::DECODE, interval, attributes));
    }
    spans
}

/// The CLIENT span of the call to another server. Attempts that failed before are events of it.
fn upstream(record: &Record, call: &UpstreamCall) -> Span {
    let failed = matches!(record.outcome, Outcome::Failed { .. });
    let status = match &record.outcome {
        Outcome::Failed { message, .. } => SpanStatus::Error(message.clone()),
        _ => SpanStatus::Unset,
    };
    let retry = |attempt: &FailedAttempt| {
        let mut attributes = Attributes::new();
        attributes.set(tollgate::RETRY_BACKEND, attempt.backend.as_str());
        attributes.set(tollgate::RETRY_ERROR, attempt.error.as_str());
        SpanEvent::new(event::UPSTREAM_RETRY, attempt.at, attributes)
    };
    let (context, name) = (upstream_context(&record.trace), attributes::upstream_name(record));
    Span {
        parent: Some(record.trace.root),
        status,
        attributes: attributes::of_upstream(record, call, failed),
        events: call.failed.iter().map(retry).collect(),
        ..Span::new(context, name, SpanKind::Client, call.interval)
    }
}

/// What a request met in the engine while it was generated.
fn engine(met: &EngineFacts, to: &mut Attributes) {
    to.set(tollgate::PASSES, i64::from(met.passes));
    to.set(tollgate::BATCH_MEAN, met.batch_mean);
    to.set(tollgate::BATCH_MAX, i64::from(met.batch_max));
    to.set(tollgate::KV_BLOCKS, i64::from(met.kv_blocks_peak));
    if met.preemptions > 0 {
        to.set(tollgate::PREEMPTIONS, i64::from(met.preemptions));
        to.set(tollgate::RECOMPUTED_TOKENS, i64::from(met.recomputed_tokens));
        to.set(tollgate::REQUEUED_MS, met.requeued_nanos as f64 / 1e6);
    }
}

fn phase(
    record: &Record,
    number: u64,
    name: &'static str,
    interval: Interval,
    attributes: Attributes,
) -> Span {
    let context = context(&record.trace, record.trace.root.child(number));
    let parent = Some(record.trace.root);
    Span { parent, attributes, ..Span::new(context, name, SpanKind::Internal, interval) }
}

fn context(place: &TracePlace, span_id: SpanId) -> SpanContext {
    let parent = place.parent.as_ref();
    SpanContext {
        trace_id: place.trace_id,
        span_id,
        sampled: parent.is_none_or(|parent| parent.sampled),
        trace_state: parent.and_then(|parent| parent.trace_state.clone()),
    }
}
