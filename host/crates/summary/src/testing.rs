//! Records for tests: of this crate, of the commands that read ledgers, and for the benchmark of delivery.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tollgate_domain::record::{
    Asked, FinishReason, HttpExchange, Operation, Phases, ServedBy, TracePlace,
};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    Cost, CostKind, CostLine, CostOutcome, Currency, ErrorKind, FaultKind, Money, Outcome,
    PluginFault, PluginIdentity, Record, RequestId, SpanId, TokenUsage, TraceId, UnixNanos,
    UnpricedReason, Usage,
};

/// 2026-01-01, midnight, in nanoseconds since 1970.
pub const NEW_YEAR: u64 = 1_767_225_600_000_000_000;
/// In nanoseconds.
pub const HOUR: u64 = 3_600_000_000_000;

/// Who said what it costs.
#[must_use]
pub fn plugin() -> PluginIdentity {
    PluginIdentity { name: "acme/price".into(), version: "1.0.0".into(), digest: "ab".repeat(32) }
}

/// A cost of so many pico-units of a currency.
#[must_use]
pub fn amount(pico: i64, currency: &str) -> Cost {
    let currency = Currency::parse(currency).unwrap();
    Cost {
        total: Money::new(i128::from(pico), currency),
        lines: vec![CostLine { kind: CostKind::Input, quantity: 10, amount_pico: pico }],
        plugin: plugin().into(),
        config_digest: None,
    }
}

/// Priced, in dollars.
#[must_use]
pub fn priced(pico: i64) -> CostOutcome {
    CostOutcome::Priced(amount(pico, "USD"))
}

/// Priced from counts that are estimates, in dollars.
#[must_use]
pub fn estimated(pico: i64) -> CostOutcome {
    CostOutcome::Estimated(amount(pico, "USD"))
}

/// Without a price, for that reason.
#[must_use]
pub fn unpriced(reason: UnpricedReason) -> CostOutcome {
    CostOutcome::Unpriced { reason }
}

/// Without a price, since the plugin failed.
#[must_use]
pub fn plugin_failed(kind: FaultKind) -> CostOutcome {
    CostOutcome::PluginFailed(PluginFault { plugin: plugin(), kind, message: "it failed".into() })
}

/// The end of a request whose backend failed.
#[must_use]
pub fn failed() -> Outcome {
    Outcome::Failed { kind: ErrorKind::Backend, message: "it failed".into() }
}

/// A completed request of ten tokens in and twenty out that took two seconds, the first token one.
#[must_use]
pub fn record(tenant: &str, model: &str, began: u64, cost: CostOutcome) -> Record {
    let at = |after: u64| UnixNanos(began + after);
    Record {
        id: RequestId(format!("{tenant}-{model}-{began}")),
        operation: Operation::Chat,
        trace: TracePlace { trace_id: TraceId(u128::from(began)), root: SpanId(7), parent: None },
        tenant: (!tenant.is_empty()).then(|| tenant.to_owned()),
        user: None,
        asked: Asked { model: model.to_owned(), ..Asked::default() },
        served_by: Some(ServedBy { provider: "acme".into(), model: format!("{model}-2026") }),
        http: HttpExchange {
            method: "POST".into(),
            route: "/v1/chat/completions".into(),
            status: 200,
        },
        phases: Phases {
            request: Interval::new(at(0), at(2_000_000_000)),
            tokenize: None,
            queue: None,
            prefill: None,
            decode: None,
            first_token: Some(at(1_000_000_000)),
        },
        outcome: Outcome::Completed { reason: Some(FinishReason::Stop) },
        finish_reasons: Vec::new(),
        usage: Some(Usage {
            provider: "acme".into(),
            request_model: model.to_owned(),
            response_model: format!("{model}-2026"),
            operation: "chat".into(),
            service_tier: None,
            phase: Phase::Final,
            source: UsageSource::Reported,
            start: at(0),
            tokens: TokenUsage { input: 10, output: 20, ..TokenUsage::default() },
            compute: None,
            units: Vec::new(),
        }),
        cost,
        admission: None,
        engine: None,
        upstream: None,
        content: None,
        received: None,
    }
}

/// One that was refused.
#[must_use]
pub fn refused(tenant: &str, model: &str, began: u64) -> Record {
    let whole = record(tenant, model, began, unpriced(UnpricedReason::NotServed));
    Record {
        outcome: Outcome::Refused { kind: ErrorKind::Overloaded, message: "full".into() },
        usage: None,
        served_by: None,
        phases: Phases { first_token: None, ..whole.phases },
        ..whole
    }
}
