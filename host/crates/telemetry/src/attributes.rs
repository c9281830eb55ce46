//! The root span's attributes: the tutorial's, the GenAI conventions', vLLM's latencies, cost,
//! and the HTTP exchange. What the record does not know is absent, never zero or empty.

use std::net::SocketAddr;

use tollgate_domain::record::{Content, FinishReason, Message, Record};
use tollgate_domain::span::{Attributes, Value};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::UpstreamCall;
use tollgate_domain::{CostOutcome, Currency, Outcome, UnpricedReason};

use crate::names::{cost, gen_ai, gen_ai_cost, http, llm, tollgate, vllm};

/// All attributes of the span of the whole request.
pub(crate) fn of_request(record: &Record, server: Option<SocketAddr>) -> Attributes {
    let mut attributes = Attributes::with_capacity(64);
    tutorial(record, &mut attributes);
    gen_ai_request(record, &mut attributes);
    gen_ai_response(record, &mut attributes);
    latencies(record, &mut attributes);
    money(&record.cost, &mut attributes);
    ours(record, &mut attributes);
    exchange(record, server, &mut attributes);
    if let Some(said) = &record.content {
        content(said, &record.finish_reasons, &mut attributes);
    }
    attributes
}

/// Name of the span of the call to another server: `{operation} {model}`.
pub(crate) fn upstream_name(record: &Record) -> String {
    let model = record.usage.as_ref().map_or("", |usage| usage.response_model.as_str());
    format!("{} {model}", record.operation.name()).trim_end().to_owned()
}

/// All attributes of that span.
pub(crate) fn of_upstream(record: &Record, call: &UpstreamCall, failed: bool) -> Attributes {
    let mut attributes = Attributes::with_capacity(24);
    let to = &mut attributes;
    let by = record.served_by.as_ref();
    to.set(gen_ai::OPERATION_NAME, record.operation.name());
    to.set_some(gen_ai::PROVIDER_NAME, by.map(|by| by.provider.as_str()));
    let asked_for = record.usage.as_ref().map(|usage| usage.response_model.as_str());
    to.set_some(gen_ai::REQUEST_MODEL, asked_for);
    to.set_some(gen_ai::RESPONSE_MODEL, by.map(|by| by.model.as_str()));
    to.set_some(gen_ai::RESPONSE_ID, call.response_id.as_deref());
    usage(record, to);
    to.set(tollgate::BACKEND, call.backend.as_str());
    to.set(http::REQUEST_METHOD, record.http.method.as_str());
    let server = call.server.as_ref();
    to.set_some(http::SERVER_ADDRESS, server.map(|server| server.host.as_str()));
    to.set_some(http::SERVER_PORT, server.map(|server| i64::from(server.port)));
    to.set_some(http::RESPONSE_STATUS_CODE, call.status.map(i64::from));
    to.set_some(http::ERROR_TYPE, error_type(&record.outcome).filter(|_| failed));
    attributes
}

/// `error.type` of a request that was not answered whole.
#[must_use]
pub fn error_type(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Completed { .. } => None,
        Outcome::ClientGone => Some(http::ERROR_TYPE_CLIENT_GONE),
        Outcome::Aborted => Some(http::ERROR_TYPE_ABORTED),
        Outcome::Refused { kind, .. } | Outcome::Failed { kind, .. } => Some(kind.name()),
    }
}

/// What a span that was sent to us gets besides what it has.
pub(crate) fn of_received(record: &Record, to: &mut Attributes) {
    money(&record.cost, to);
    in_dollars(&record.cost, to);
    to.set_some(tollgate::TENANT, record.tenant.as_deref());
    if let Some(usage) = &record.usage {
        to.set(tollgate::USAGE_SOURCE, usage.source.name());
    }
    if record.received.as_ref().is_some_and(|call| call.prompt_elsewhere) {
        to.set(tollgate::USAGE_PROMPT, UnpricedReason::CountedElsewhere.name());
    }
}

/// Milliseconds, rounded to the microsecond.
pub(crate) fn rounded_ms(interval: Interval) -> f64 {
    (interval.milliseconds() * 1e3).round() / 1e3
}

fn tutorial(record: &Record, to: &mut Attributes) {
    let asked = &record.asked;
    to.set(llm::MODEL, asked.model.as_str());
    to.set(llm::REQUEST_ID, record.id.0.as_str());
    to.set_some(llm::MAX_TOKENS, asked.max_tokens.map(i64::from));
    to.set_some(llm::TEMPERATURE, asked.temperature);
    to.set_some(llm::USER, record.user.as_deref());
    if let Some(usage) = &record.usage {
        to.set(llm::PROMPT_TOKENS, usage.tokens.input);
        to.set(llm::COMPLETION_TOKENS, usage.tokens.output);
        to.set(llm::TOTAL_TOKENS, usage.tokens.total());
    }
    in_dollars(&record.cost, to);
    to.set(llm::TRACE_ID, record.trace.trace_id.to_string());
}

/// The cost by the tutorial's name, which says the currency.
fn in_dollars(cost: &CostOutcome, to: &mut Attributes) {
    if let Some(cost) = cost.cost()
        && cost.total.currency == Currency::USD
    {
        to.set(llm::ESTIMATED_COST_USD, cost.total.to_f64());
    }
}

fn gen_ai_request(record: &Record, to: &mut Attributes) {
    let asked = &record.asked;
    to.set(gen_ai::OPERATION_NAME, record.operation.name());
    to.set_some(gen_ai::PROVIDER_NAME, record.served_by.as_ref().map(|by| by.provider.as_str()));
    to.set(gen_ai::REQUEST_MODEL, asked.model.as_str());
    to.set_some(gen_ai::REQUEST_MAX_TOKENS, asked.max_tokens.map(i64::from));
    to.set_some(gen_ai::REQUEST_TEMPERATURE, asked.temperature);
    to.set_some(gen_ai::REQUEST_TOP_P, asked.top_p);
    to.set_some(gen_ai::REQUEST_TOP_K, asked.top_k.map(i64::from));
    to.set_some(gen_ai::REQUEST_SEED, asked.seed);
    let several = asked.choices.filter(|choices| *choices != 1);
    to.set_some(gen_ai::REQUEST_CHOICE_COUNT, several.map(i64::from));
    if !asked.stop.is_empty() {
        to.set(gen_ai::REQUEST_STOP_SEQUENCES, texts(asked.stop.iter().map(String::as_str)));
    }
    to.set_some(gen_ai::REQUEST_STREAM, asked.stream.then_some(true));
}

fn gen_ai_response(record: &Record, to: &mut Attributes) {
    if let Some(by) = &record.served_by {
        // What the client got as the answer's id.
        let id = match &record.upstream {
            Some(call) if call.status.is_some() => call.response_id.clone(),
            _ => Some(record.operation.answer_id(&record.id)),
        };
        to.set_some(gen_ai::RESPONSE_ID, id);
        to.set(gen_ai::RESPONSE_MODEL, by.model.as_str());
    }
    if let Outcome::Completed { reason: Some(reason) } = record.outcome {
        let reasons: &[FinishReason] = match record.finish_reasons.as_slice() {
            [] => &[reason],
            several => several,
        };
        to.set(gen_ai::RESPONSE_FINISH_REASONS, texts(reasons.iter().map(|reason| reason.name())));
    }
    if record.asked.stream {
        to.set_some(gen_ai::RESPONSE_TIME_TO_FIRST_CHUNK, time_to_first_token(record));
    }
    usage(record, to);
}

fn usage(record: &Record, to: &mut Attributes) {
    if let Some(usage) = &record.usage {
        let tokens = &usage.tokens;
        let part = |count: u64| (count > 0).then_some(count);
        to.set(gen_ai::USAGE_INPUT_TOKENS, tokens.input);
        to.set(gen_ai::USAGE_OUTPUT_TOKENS, tokens.output);
        to.set_some(gen_ai::USAGE_CACHE_READ_INPUT_TOKENS, part(tokens.input_cache_read));
        to.set_some(gen_ai::USAGE_CACHE_CREATION_INPUT_TOKENS, part(tokens.input_cache_write));
        to.set_some(gen_ai::USAGE_REASONING_OUTPUT_TOKENS, part(tokens.output_reasoning));
    }
}

fn latencies(record: &Record, to: &mut Attributes) {
    let phases = &record.phases;
    let seconds = |interval: Interval| interval.length().as_secs_f64();
    to.set_some(vllm::TIME_IN_QUEUE, phases.queue.map(seconds));
    to.set_some(vllm::TIME_TO_FIRST_TOKEN, time_to_first_token(record));
    to.set(vllm::E2E, seconds(phases.request));
    to.set_some(vllm::TIME_IN_MODEL_PREFILL, phases.prefill.map(seconds));
    to.set_some(vllm::TIME_IN_MODEL_DECODE, phases.decode.map(seconds));
}

/// What became of pricing a request.
pub(crate) fn money(outcome: &CostOutcome, to: &mut Attributes) {
    if let Some(cost) = outcome.cost() {
        to.set(gen_ai_cost::AMOUNT, cost.total.to_f64());
        to.set(gen_ai_cost::CURRENCY, cost.total.currency.code());
        to.set(gen_ai_cost::SOURCE, gen_ai_cost::SOURCE_LOCAL);
        to.set(cost::AMOUNT, cost.total.decimal());
        to.set(cost::CURRENCY, cost.total.currency.code());
        to.set_some(cost::PLUGIN_CONFIG_DIGEST, cost.config_digest.as_deref());
    }
    to.set(cost::STATUS, outcome.status());
    to.set_some(cost::REASON, outcome.reason());
    let plugin = match outcome {
        CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => &cost.plugin,
        CostOutcome::PluginFailed(fault) => &fault.plugin,
        CostOutcome::Unpriced { .. } => return,
    };
    to.set(cost::PLUGIN_NAME, plugin.name.as_str());
    to.set(cost::PLUGIN_VERSION, plugin.version.as_str());
    to.set(cost::PLUGIN_DIGEST, plugin.digest.as_str());
}

fn ours(record: &Record, to: &mut Attributes) {
    to.set_some(tollgate::TENANT, record.tenant.as_deref());
    to.set_some(tollgate::BACKEND, record.upstream.as_ref().map(|call| call.backend.as_str()));
    if let Some(admission) = &record.admission {
        to.set_some(tollgate::KEY_ID, admission.key.as_deref());
        to.set_some(tollgate::LIMITS_DEGRADED, admission.degraded.as_deref());
    }
    to.set(tollgate::OUTCOME, record.outcome.name());
    if let Some(usage) = &record.usage {
        to.set(tollgate::USAGE_SOURCE, usage.source.name());
        if let Some(compute) = &usage.compute {
            to.set(tollgate::USAGE_DEVICE, compute.device.as_str());
            to.set(tollgate::USAGE_DEVICE_TIME_NS, compute.device_time_nanos);
        }
    }
}

fn exchange(record: &Record, server: Option<SocketAddr>, to: &mut Attributes) {
    to.set(http::REQUEST_METHOD, record.http.method.as_str());
    to.set(http::ROUTE, record.http.route.as_str());
    to.set(http::RESPONSE_STATUS_CODE, i64::from(record.http.status));
    if let Some(server) = server {
        to.set(http::SERVER_ADDRESS, server.ip().to_string());
        to.set(http::SERVER_PORT, i64::from(server.port()));
    }
    to.set_some(http::ERROR_TYPE, error_type(&record.outcome));
}

/// What was said, in the conventions' form, as JSON text; `reasons` of each answer, if there are
/// several.
fn content(content: &Content, reasons: &[FinishReason], to: &mut Attributes) {
    let input: Vec<Said<'_>> = content.input.iter().map(|message| said(message, None)).collect();
    let reason = |choice: usize| {
        let reason = reasons.get(choice).copied().or(content.finish_reason);
        reason.map(FinishReason::name)
    };
    let output = content.output.iter().enumerate();
    let output: Vec<Said<'_>> =
        output.map(|(choice, message)| said(message, reason(choice))).collect();
    to.set_some(gen_ai::INPUT_MESSAGES, serde_json::to_string(&input).ok());
    to.set_some(gen_ai::OUTPUT_MESSAGES, serde_json::to_string(&output).ok());
    to.set_some(tollgate::CONTENT_TRUNCATED, content.truncated.then_some(true));
}

fn said<'a>(message: &'a Message, finish_reason: Option<&'static str>) -> Said<'a> {
    let parts = [Part { r#type: "text", content: &message.text }];
    Said { role: &message.role, parts, finish_reason }
}

#[derive(serde::Serialize)]
struct Said<'a> {
    role: &'a str,
    parts: [Part<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<&'static str>,
}

#[derive(serde::Serialize)]
struct Part<'a> {
    r#type: &'static str,
    content: &'a str,
}

/// Seconds from the request to its first text.
fn time_to_first_token(record: &Record) -> Option<f64> {
    let first = record.phases.first_token?;
    Some(first.since(record.phases.request.start).as_secs_f64())
}

fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    Value::List(items.into_iter().map(Value::from).collect())
}
