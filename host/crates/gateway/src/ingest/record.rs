//! A received span as the record of the request that it tells of, and what a record says to the
//! window.

use std::sync::Arc;

use tollgate_domain::admission::Admission;
use tollgate_domain::received::{Origin, ReceivedCall};
use tollgate_domain::record::{
    Asked, FinishReason, HttpExchange, Operation, Phases, ServedBy, TracePlace,
};
use tollgate_domain::span::SpanStatus;
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    CostOutcome, ErrorKind, Outcome, Record, RequestId, Span, SpanContext, UnixNanos,
    UnpricedReason, Usage,
};
use tollgate_telemetry::genai::Call;

use super::window::Known;
use crate::call::Caller;

/// The record of a call, without its price.
pub(super) fn of(
    call: Call,
    origin: &Arc<Origin>,
    span: Span,
    tenant: Option<String>,
    caller: &Caller,
    now: UnixNanos,
) -> Record {
    // Retention goes by a record's end, so it is never in the future, whatever a sender's clock
    // says. The span keeps its own times.
    let request = Interval::new(span.interval.start.min(now), span.interval.end.min(now));
    let usage = call.tokens.map(|tokens| Usage {
        provider: call.provider.clone(),
        request_model: call.request_model.clone(),
        response_model: call.response_model.clone(),
        operation: call.operation.clone(),
        service_tier: call.service_tier.clone(),
        phase: match span.status {
            SpanStatus::Error(_) => Phase::Interrupted,
            SpanStatus::Unset | SpanStatus::Ok => Phase::Final,
        },
        source: UsageSource::Reported,
        start: request.start,
        tokens,
        compute: None,
        units: Vec::new(),
    });
    let outcome = match &span.status {
        SpanStatus::Error(message) => {
            Outcome::Failed { kind: ErrorKind::Backend, message: message.clone() }
        }
        _ => Outcome::Completed { reason: call.finish_reason.as_deref().map(finish_reason) },
    };
    let context = &span.context;
    let key = caller.0.key_id.clone();
    Record {
        // The same for ever, so that a copy has it, too.
        id: RequestId(format!("{}-{}", context.trace_id, context.span_id)),
        operation: operation(&call.operation),
        trace: TracePlace {
            trace_id: context.trace_id,
            root: context.span_id,
            parent: span.parent.map(|parent| SpanContext { span_id: parent, ..context.clone() }),
        },
        tenant,
        user: call.user,
        asked: Asked {
            model: call.request_model,
            max_tokens: call.max_tokens,
            temperature: call.temperature,
            top_p: call.top_p,
            stream: call.stream,
            ..Asked::default()
        },
        finish_reasons: Vec::new(),
        served_by: Some(ServedBy { provider: call.provider, model: call.response_model }),
        http: HttpExchange::default(),
        phases: Phases {
            request,
            tokenize: None,
            queue: None,
            prefill: None,
            decode: None,
            first_token: call.first_token,
        },
        outcome,
        usage,
        cost: CostOutcome::Unpriced { reason: UnpricedReason::MissingUsage },
        admission: key.map(|key| Admission { key: Some(key), ..Admission::default() }),
        engine: None,
        upstream: None,
        content: None,
        received: Some(Box::new(ReceivedCall {
            dialect: call.dialect.name().to_owned(),
            response_id: call.response_id,
            origin: Arc::clone(origin),
            span,
        })),
    }
}

/// What a record says of spans: of a request that was received its own, of one that was served here
/// the root and the one that another server is told.
pub(super) fn known(record: &Record) -> Vec<Known> {
    let (trace, place) = (record.trace.trace_id, &record.trace);
    let parent = place.parent.as_ref().map(|parent| parent.span_id);
    let counts = record.usage.as_ref().is_some_and(|usage| !usage.request_model.is_empty());
    let root = Known {
        id: (trace, place.root),
        parent,
        billed: counts,
        pending: false,
        answer: match (&record.received, &record.upstream) {
            (Some(call), _) => call.response_id.clone(),
            (None, Some(call)) => call.response_id.clone(),
            (None, None) => Some(record.operation.answer_id(&record.id)),
        }
        .filter(|_| counts),
    };
    let upstream = record.upstream.is_some().then(|| Known {
        id: (trace, tollgate_telemetry::upstream_context(place).span_id),
        parent: Some(place.root),
        billed: false,
        pending: false,
        answer: None,
    });
    std::iter::once(root).chain(upstream).collect()
}

fn operation(name: &str) -> Operation {
    match name {
        "chat" => Operation::Chat,
        "text_completion" => Operation::TextCompletion,
        "embeddings" => Operation::Embeddings,
        _ => Operation::Other,
    }
}

/// What providers say, in OpenAI's words.
fn finish_reason(said: &str) -> FinishReason {
    match said {
        "stop" | "end_turn" | "stop_sequence" | "STOP" => FinishReason::Stop,
        "length" | "max_tokens" | "MAX_TOKENS" => FinishReason::Length,
        "tool_calls" | "tool_use" | "tool_call" | "function_call" => FinishReason::ToolCalls,
        "content_filter" | "refusal" | "SAFETY" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}
