//! Records to put on record, and crash images.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and fails by panicking"
)]

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tollgate_domain::cost::{CostKind, CostLine};
use tollgate_domain::record::{
    Asked, FinishReason, HttpExchange, Operation, Phases, Record, ServedBy, TracePlace,
};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::{PlannedCall, Server, UpstreamCall};
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    Cost, CostOutcome, Currency, Money, Outcome, PluginIdentity, RequestId, SpanId, TokenUsage,
    TraceId, UnixNanos, UnpricedReason, Usage,
};
use tollgate_ledger::{Durability, Ledger, LedgerReader, LedgerSettings, Opened, Query, Stored};

/// The record of request `number`, completed and priced.
pub fn record(number: u64) -> Record {
    let start = UnixNanos(1_700_000_000_000_000_000 + number * 1_000_000);
    let end = start.plus(Duration::from_millis(30));
    let tokens = TokenUsage { input: 7, output: number % 50 + 1, ..TokenUsage::default() };
    let tenant = Some(format!("tenant-{}", number % 3));
    Record {
        id: RequestId(format!("request-{number}")),
        operation: Operation::TextCompletion,
        trace: TracePlace {
            trace_id: TraceId(u128::from(number) + 1),
            root: SpanId(number + 1),
            parent: None,
        },
        tenant: tenant.clone(),
        user: tenant,
        asked: Asked { model: "mistral-7b".to_owned(), ..Asked::default() },
        served_by: Some(ServedBy { provider: "tollgate".to_owned(), model: "demo".to_owned() }),
        http: HttpExchange { method: "POST".into(), route: "/v1/completions".into(), status: 200 },
        phases: Phases {
            request: Interval::new(start, end),
            tokenize: None,
            queue: None,
            prefill: None,
            decode: None,
            first_token: None,
        },
        outcome: Outcome::Completed { reason: Some(FinishReason::Stop) },
        finish_reasons: Vec::new(),
        usage: Some(usage(start, tokens)),
        cost: CostOutcome::Priced(cost(i128::from(number) * 1_000_003)),
        admission: None,
        engine: None,
        upstream: None,
        content: None,
        received: None,
    }
}

/// As it is while nothing more is heard of it.
pub fn started(number: u64) -> Record {
    let mut record = record(number);
    record.outcome = Outcome::Aborted;
    record.cost = CostOutcome::Unpriced { reason: UnpricedReason::PluginsChanged };
    let usage = record.usage.as_mut().unwrap();
    (usage.phase, usage.tokens) = (Phase::Interrupted, TokenUsage::default());
    record
}

/// The call of a request that has started, and may go to each of these in turn.
pub fn planned(backends: &[&str]) -> UpstreamCall {
    let server = || Server { host: "localhost".to_owned(), port: 80 };
    let planned = |name: &&str| PlannedCall {
        backend: (*name).to_owned(),
        server: server(),
        by: ServedBy { provider: "other".to_owned(), model: format!("{name}-model") },
    };
    UpstreamCall {
        backend: backends.first().copied().unwrap_or_default().to_owned(),
        server: Some(server()),
        interval: record(0).phases.request,
        status: None,
        response_id: None,
        failed: Vec::new(),
        planned: backends.iter().map(planned).collect(),
    }
}

pub fn usage(start: UnixNanos, tokens: TokenUsage) -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: "mistral-7b".to_owned(),
        response_model: "demo".to_owned(),
        operation: "text_completion".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Reported,
        start,
        tokens,
        compute: None,
        units: Vec::new(),
    }
}

pub fn cost(pico: i128) -> Cost {
    let amount_pico = i64::try_from(pico).unwrap_or(i64::MAX);
    Cost {
        total: Money::new(pico, Currency::USD),
        lines: vec![CostLine { kind: CostKind::Output, quantity: 1, amount_pico }],
        plugin: PluginIdentity {
            name: "tollgate/cost-per-token".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "ab".repeat(32),
        }
        .into(),
        config_digest: None,
    }
}

/// Without waiting for the disk, which no test here asks about.
pub fn settings(folder: &Path) -> LedgerSettings {
    LedgerSettings {
        durability: Durability::Process,
        min_free_bytes: 0,
        ..LedgerSettings::new(folder.to_owned())
    }
}

pub fn open(folder: &Path) -> Opened {
    Ledger::open(settings(folder)).unwrap()
}

/// Puts requests on record from start to end.
pub async fn serve(ledger: &Ledger, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let ticket = ledger.start(&started(number), "set").await.unwrap();
        ledger.finish(ticket, record(number)).await.unwrap();
    }
}

/// Everything that a reader from outside finds.
pub fn found(folder: &Path) -> Vec<Stored> {
    let reader = LedgerReader::open(folder).unwrap();
    reader.records(Query::default()).collect::<Result<_, _>>().unwrap()
}

/// Waits until it is so, for half a minute at most.
pub async fn until(mut so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(so(), "it never was so");
}

/// The folder as a killed process would leave it now, if nothing is being put on record. A journal
/// is copied before its file: it may be written back meanwhile, and then says the same again.
pub fn crash_image(folder: &Path) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    let all = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by(|a, b| b.cmp(a));
    for name in names {
        // What is shared memory to the living is made anew by the next.
        if !name.to_string_lossy().ends_with("-shm") {
            match std::fs::copy(folder.join(&name), image.path().join(&name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
    image
}

/// Changes a file behind the ledger's back.
pub fn tamper(folder: &Path, ordinal: u64, sql: &str) {
    let path = folder.join(format!("ledger-{ordinal:08}.sqlite"));
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch(sql).unwrap();
}
