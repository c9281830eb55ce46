//! Families as they are written, from records and counts made up here.

mod flood;
mod plugins;
mod requests;
mod stores;

use std::sync::LazyLock;

use tollgate_domain::record::{
    Asked, FinishReason, HttpExchange, Operation, Phases, ServedBy, TracePlace,
};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    Cost, CostOutcome, Currency, Money, Outcome, PluginIdentity, Record, RequestId, SpanId,
    TokenUsage, TraceId, UnixNanos, Usage,
};
use tollgate_telemetry::metrics::TextFormat;
use tollgate_tenancy::{LimiterStatus, Standings};

use super::{RequestMeters, Sources, snapshot};

/// Nothing but requests.
static NO_STANDINGS: LazyLock<Standings> = LazyLock::new(Standings::default);

fn nothing(requests: &RequestMeters) -> Sources<'_> {
    Sources {
        requests,
        in_flight: 0,
        engines: &[],
        meters: &[],
        files: &[],
        generation: 0,
        shadow: &[],
        ledger: None,
        exporters: &[],
        backends: &[],
        limits: LimiterStatus::default(),
        standings: &NO_STANDINGS,
    }
}

fn written(sources: &Sources<'_>) -> String {
    snapshot(sources).text(TextFormat::OpenMetrics).unwrap().text
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|written| written == *line), "{line}\nis not in\n{text}");
    }
}

/// The values of all series whose name and labels begin like that.
fn values(text: &str, beginning: &str) -> Vec<f64> {
    let values = text.lines().filter(|line| line.starts_with(beginning));
    values.map(|line| line.rsplit_once("} ").unwrap().1.parse().unwrap()).collect()
}

fn at(milliseconds: u64) -> UnixNanos {
    UnixNanos(1_700_000_000_000_000_000 + milliseconds * 1_000_000)
}

fn from_to(start: u64, end: u64) -> Option<Interval> {
    Some(Interval::new(at(start), at(end)))
}

/// A request answered whole: 10 tokens in, 4 of them cached, 5 out. Queue 40 ms, prefill 60 ms, the
/// first token after 102 ms, decode 400 ms, accounting 2 ms.
pub(crate) fn record() -> Record {
    let tokens = TokenUsage { input: 10, input_cache_read: 4, output: 5, ..TokenUsage::default() };
    Record {
        id: RequestId("r1".to_owned()),
        operation: Operation::Chat,
        trace: TracePlace { trace_id: TraceId(0xabc), root: SpanId(0xdef), parent: None },
        tenant: Some("acme".to_owned()),
        user: Some("acme".to_owned()),
        asked: Asked { model: "mistral-7b".to_owned(), ..Asked::default() },
        served_by: Some(ServedBy { provider: "tollgate".to_owned(), model: "demo".to_owned() }),
        http: HttpExchange::default(),
        phases: Phases {
            request: Interval::new(at(0), at(502)),
            tokenize: from_to(0, 0),
            queue: from_to(0, 40),
            prefill: from_to(40, 100),
            decode: from_to(100, 500),
            first_token: Some(at(102)),
        },
        outcome: Outcome::Completed { reason: Some(FinishReason::Stop) },
        finish_reasons: Vec::new(),
        usage: Some(Usage {
            provider: "tollgate".to_owned(),
            request_model: "mistral-7b".to_owned(),
            response_model: "demo".to_owned(),
            operation: "chat".to_owned(),
            service_tier: None,
            phase: Phase::Final,
            source: UsageSource::Reported,
            start: at(0),
            tokens,
            compute: None,
            units: Vec::new(),
        }),
        cost: priced(3_600_000, Currency::USD),
        admission: None,
        engine: None,
        upstream: None,
        content: None,
        received: None,
    }
}

fn priced(pico: i128, currency: Currency) -> CostOutcome {
    let (name, version) = ("acme/price".to_owned(), "1.0.0".to_owned());
    let plugin = PluginIdentity { name, version, digest: "d".to_owned() };
    CostOutcome::Priced(Cost {
        total: Money::new(pico, currency),
        lines: Vec::new(),
        plugin: plugin.into(),
        config_digest: None,
    })
}
