//! Requests on record and under way.
//!
//! `GET /admin/requests` answers the newest first. Parameters: `tenant`, `model` (asked for or
//! served), `status` (`priced`, `estimated`, `unpriced`, `plugin_failed`), `outcome` (`completed`,
//! `client_gone`, `refused`, `failed`, `aborted`), `id` (of the request or its trace), `since` and
//! `until` (when it ended: `2026-01-31`, `2026-01-31T12:00:00Z`, `15m`), `before` (a number),
//! `limit` (1 to 200; 50).
//!
//! ```json
//! {"requests": [{"number": 7, "id": "..", "trace_id": "..", "operation": "chat", "tenant": "acme",
//!    "model": "gpt-4o", "served_model": "gpt-4o", "provider": "openai", "stream": true,
//!    "began": "2026-01-31T12:00:00.000Z", "ended": "2026-01-31T12:00:00.000Z",
//!    "duration_ms": 12.5, "first_token_ms": 3.1, "outcome": "completed", "reason": "stop",
//!    "error": null, "message": null, "http_status": 200,
//!    "tokens": {"input": 10, "output": 20, "source": "reported"},
//!    "cost": {"status": "priced", "amount": "0.3", "currency": "USD"}}],
//!  "next": 7}
//! ```
//!
//! `next` is the `before` of the next page, or null. An answer looks at a bounded number of
//! records: it may have fewer requests than its limit, or none, and still a `next`.
//!
//! `GET /admin/requests/{number}` answers the same of one request, and `cost` whole (lines, plugin,
//! digests), `spans` (root first, as the NDJSON exporter writes them, attributes of enrichers
//! included) and `bound_for`. With `exporter=NAME` the spans are those that leave through it.
//!
//! `GET /admin/requests/in-flight` answers `{"requests": [..]}`, at most 200, those that began last
//! first; they have `running_ms` and, as `tokens`, what they have used so far.

use std::time::SystemTime;

use serde_json::{Value, json};
use tollgate_domain::record::Outcome;
use tollgate_domain::time::Interval;
use tollgate_domain::{CostOutcome, Money, Record, UnixNanos};
use tollgate_gateway::{Page, Query, Refusal, Seen, Stored, UnderWay};

use super::parameters::Parameters;

/// Requests of one answer, if not said otherwise, and at most.
const LIMIT: u64 = 50;
pub(super) const MOST: u64 = 200;

const STATUSES: [&str; 4] = ["priced", "estimated", "unpriced", "plugin_failed"];
const OUTCOMES: [&str; 5] = ["completed", "client_gone", "refused", "failed", "aborted"];

/// What the list is asked for.
pub(super) struct Ask {
    pub(super) query: Query,
    pub(super) before: Option<u64>,
    pub(super) limit: usize,
}

/// Reads the list's parameters.
pub(super) fn read(query: Option<&str>) -> Result<Ask, Refusal> {
    let known = ["tenant", "model", "status", "outcome", "id", "since", "until", "before", "limit"];
    let given = Parameters::read(query, &known)?;
    let period = given.period()?;
    let text = |name| given.text(name).map(str::to_owned);
    let limit = given.number("limit", 1, MOST)?.unwrap_or(LIMIT);
    Ok(Ask {
        query: Query {
            since: period.since,
            until: period.until,
            tenant: text("tenant"),
            model: text("model"),
            outcome: given.word("outcome", &OUTCOMES)?,
            cost_status: given.word("status", &STATUSES)?,
            id: text("id"),
            ..Query::default()
        },
        before: given.number("before", 1, u64::MAX)?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    })
}

/// The list.
pub(super) fn page(page: &Page) -> Value {
    json!({"requests": page.records.iter().map(one).collect::<Vec<_>>(), "next": page.next})
}

/// One request as a trace.
pub(super) fn seen(seen: Seen, exporter: Option<String>) -> Value {
    let mut value = one(&seen.stored);
    if let Value::Object(fields) = &mut value {
        fields.insert("cost".to_owned(), whole_cost(&seen.stored.record.cost));
        fields.insert("spans".to_owned(), Value::Array(seen.spans));
        fields.insert("bound_for".to_owned(), exporter.map_or(Value::Null, Value::String));
    }
    value
}

/// What is under way.
pub(super) fn in_flight(requests: &[UnderWay]) -> Value {
    let now: UnixNanos = SystemTime::now().into();
    let one = |request: &UnderWay| {
        let record = &request.record;
        let began = record.phases.request.start;
        let (input, output) = request.tokens.unwrap_or_default();
        json!({
            "id": record.id,
            "trace_id": record.trace.trace_id.to_string(),
            "operation": record.operation.name(),
            "tenant": record.tenant,
            "model": record.asked.model,
            "stream": record.asked.stream,
            "began": time(began),
            "running_ms": milliseconds(Interval::new(began, now)),
            "tokens": {"input": input, "output": output},
        })
    };
    json!({"requests": requests.iter().map(one).collect::<Vec<_>>()})
}

fn one(stored: &Stored) -> Value {
    let record = &stored.record;
    let request = record.phases.request;
    let (reason, message) = ending(record);
    let first = record.phases.first_token;
    json!({
        "number": stored.number,
        "id": record.id,
        "trace_id": record.trace.trace_id.to_string(),
        "operation": record.operation.name(),
        "tenant": record.tenant,
        "model": record.asked.model,
        "served_model": record.served_by.as_ref().map(|by| &by.model),
        "provider": record.served_by.as_ref().map(|by| &by.provider),
        "stream": record.asked.stream,
        "began": time(request.start),
        "ended": time(request.end),
        "duration_ms": milliseconds(request),
        "first_token_ms": first.map(|first| milliseconds(Interval::new(request.start, first))),
        "outcome": record.outcome.name(),
        "reason": reason,
        "message": message,
        "http_status": record.http.status,
        "tokens": record.usage.as_ref().map(|usage| json!({
            "input": usage.tokens.input,
            "output": usage.tokens.output,
            "source": usage.source.name(),
        })),
        "cost": cost(&record.cost),
    })
}

/// Why it ended so, in a word, and in a sentence if there is one.
fn ending(record: &Record) -> (Option<&'static str>, Option<&str>) {
    match &record.outcome {
        Outcome::Completed { reason } => (reason.map(|reason| reason.name()), None),
        Outcome::Refused { kind, message } | Outcome::Failed { kind, message } => {
            (Some(kind.name()), Some(message))
        }
        Outcome::ClientGone | Outcome::Aborted => (None, None),
    }
}

fn cost(outcome: &CostOutcome) -> Value {
    let total = outcome.cost().map(|cost| cost.total);
    json!({
        "status": outcome.status(),
        "reason": outcome.reason(),
        "amount": total.map(|total| total.decimal()),
        "currency": total.map(|total| total.currency),
    })
}

fn whole_cost(outcome: &CostOutcome) -> Value {
    let mut value = cost(outcome);
    let (plugin, message, lines, config) = match outcome {
        CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => {
            let line = |line: &tollgate_domain::CostLine| {
                let amount = Money::new(i128::from(line.amount_pico), cost.total.currency);
                json!({"kind": line.kind, "quantity": line.quantity, "amount": amount.decimal()})
            };
            let lines: Vec<Value> = cost.lines.iter().map(line).collect();
            (Some(&*cost.plugin), None, lines, cost.config_digest.as_ref())
        }
        CostOutcome::PluginFailed(fault) => {
            (Some(&fault.plugin), Some(&fault.message), Vec::new(), None)
        }
        CostOutcome::Unpriced { .. } => (None, None, Vec::new(), None),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("plugin".to_owned(), json!(plugin));
        fields.insert("message".to_owned(), json!(message));
        fields.insert("lines".to_owned(), json!(lines));
        fields.insert("config_digest".to_owned(), json!(config));
    }
    value
}

/// To the microsecond.
fn milliseconds(interval: Interval) -> f64 {
    (interval.milliseconds() * 1e3).round() / 1e3
}

/// RFC 3339, UTC, milliseconds.
pub(super) fn time(at: UnixNanos) -> String {
    humantime::format_rfc3339_millis(at.into()).to_string()
}
