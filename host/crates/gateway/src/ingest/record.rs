//! A received span as the record of the request that it tells of, and what is on record as the window
//! knows it.

use std::time::SystemTime;

use tollgate_domain::admission::Admission;
use tollgate_domain::received::ReceivedCall;
use tollgate_domain::record::{
    Asked, FinishReason, HttpExchange, Operation, Phases, ServedBy, TracePlace,
};
use tollgate_domain::span::SpanStatus;
use tollgate_domain::time::Interval;
use tollgate_domain::usage::Phase;
use tollgate_domain::{
    CostOutcome, ErrorKind, Outcome, Record, RequestId, Span, SpanContext, UnixNanos,
    UnpricedReason, Usage,
};
use tollgate_ledger::{Ledger, LedgerError, Look, Payload};

use super::sort::Billed;
use super::window::{Answer, Id, Known, MOST, Naming, Payer, Scope, Scopes, Window};
use crate::call::Caller;

/// The dialect of vLLM's spans, as it stands on record.
const VLLM: &str = "vllm";

/// How far back a restart looks for what was received, in entries of the ledger.
const LOOK_BACK: u64 = 262_144;

/// What was received and served lately, as the ledger tells it. `keyed`: each sender shows a key, whose
/// tenant is on record.
pub(super) fn remembered(
    ledger: &Ledger,
    scopes: &Scopes,
    keyed: bool,
) -> Result<Window, LedgerError> {
    let (mut newest_first, mut calls, mut plain) = (Vec::new(), 0, 0);
    let whole = ledger.look_back(LOOK_BACK, |payload| {
        match payload {
            Payload::Record(record) => {
                newest_first.extend(known(record, scopes));
                calls += 1;
            }
            Payload::Spans(batch) => {
                let scope = scopes.of(batch.tenant.as_deref().filter(|_| keyed));
                let spans = batch.groups.iter().flat_map(|group| &group.spans);
                plain += spans.clone().count();
                newest_first.extend(spans.map(|span| {
                    // What tells of a call and is counted elsewhere says so.
                    let call = tollgate_telemetry::has_cost_status(span);
                    Known { call, ..Known::plain(Id::of(scope, span), span.parent) }
                }));
            }
            Payload::Passed(_) => {}
        }
        match (calls < MOST.calls, plain < MOST.plain) {
            (true, true) => Look::On,
            (true, false) => Look::OnAtRecords,
            (false, _) => Look::NoFurther,
        }
    })?;
    let now = SystemTime::now().into();
    let mut window = Window::new(MOST);
    if !whole {
        window.has_forgotten(now);
    }
    newest_first.iter().rev().for_each(|known| window.note(known, now));
    Ok(window)
}

/// The id of the record of a call: the same for ever, so that a copy has it, too.
pub(super) fn id(span: &Span) -> RequestId {
    RequestId(format!("{}-{}", span.context.trace_id, span.context.span_id))
}

/// The answer that somebody names: by its own id, else by that of its request.
pub(super) fn answer(
    scopes: &Scopes,
    answer: Option<&str>,
    request: Option<&str>,
) -> Option<Answer> {
    let answer = answer.and_then(|id| scopes.answer(Naming::Answer, id));
    answer.or_else(|| request.and_then(|id| scopes.answer(Naming::Request, id)))
}

/// The record of a call, without its price.
pub(super) fn of(billed: Billed, caller: &Caller, now: UnixNanos) -> Record {
    let Billed { mut call, origin, span, payer, is_choice } = billed;
    if let (true, Some(tokens)) = (is_choice, &mut call.tokens) {
        *tokens = tokens.without_input();
    }
    let tenant = match &caller.0.key_id {
        Some(_) => caller.0.tenant.clone(),
        None => payer.name(),
    };
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
        source: call.source,
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
        id: id(&span),
        operation: operation(&call.operation),
        trace: TracePlace {
            trace_id: context.trace_id,
            root: context.span_id,
            parent: span.parent.map(|parent| SpanContext { span_id: parent, ..context.clone() }),
        },
        tenant,
        user: payer.user,
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
            request_id: call.request_id,
            prompt_elsewhere: is_choice,
            origin,
            span,
        })),
    }
}

/// What a record says of spans: of a request that was received its own, of one that was served here
/// the root and the one that another server is told.
pub(super) fn known(record: &Record, scopes: &Scopes) -> Vec<Known> {
    let (trace, place) = (record.trace.trace_id, &record.trace);
    let parent = place.parent.as_ref().map(|parent| parent.span_id);
    let billed = record.usage.as_ref().is_some_and(|usage| !usage.request_model.is_empty());
    let key = record.admission.as_ref().and_then(|admission| admission.key.as_ref());
    let scope = match &record.received {
        Some(_) => scopes.of(key.and(record.tenant.as_deref())),
        None => Scope::SERVED,
    };
    let answer = match (&record.received, &record.upstream) {
        // vLLM names requests; this was on record as the answer once.
        (Some(call), _) if call.dialect == VLLM && call.request_id.is_none() => {
            answer(scopes, None, call.response_id.as_deref())
        }
        (Some(call), _) => answer(scopes, call.response_id.as_deref(), call.request_id.as_deref()),
        (None, Some(call)) => answer(scopes, call.response_id.as_deref(), None),
        (None, None) => answer(scopes, Some(&record.operation.answer_id(&record.id)), None),
    };
    let is_choice = record.received.as_ref().is_some_and(|call| call.prompt_elsewhere);
    let prompt = record.usage.as_ref().map(|usage| usage.tokens.input);
    let payer = Payer { tenant: record.tenant.clone(), user: record.user.clone() };
    let root = Known {
        call: true,
        billed,
        answer: answer.filter(|_| billed),
        prompt: prompt.filter(|_| !is_choice),
        // Of what was served here nothing is inherited.
        payer: record.received.as_ref().and_then(|_| payer.kept()),
        ..Known::plain(Id { scope, trace, span: place.root }, parent)
    };
    let upstream = record.upstream.is_some().then(|| {
        let span = tollgate_telemetry::upstream_context(place).span_id;
        let known = Known::plain(Id { scope, trace, span }, Some(place.root));
        Known { call: true, ..known }
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
