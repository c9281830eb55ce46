//! The ledger's and the exporters' families.

use std::time::Duration;

use tollgate_domain::sampling::Decision;
use tollgate_telemetry::metrics::Histogram;

use super::*;
use tollgate_tenancy::{BudgetStanding, Per, Scope, Standing};
use tollgate_upstream::{BackendStatus, HealthState};

use crate::metrics::{ExporterCounts, LedgerCounts};
use crate::traces::TraceCounts;

fn seconds() -> Histogram {
    Histogram { bounds: vec![0.01], counts: vec![3, 1], sum: 0.5, ..Histogram::default() }
}

#[test]
fn the_ledgers_counts_reconcile() {
    let ledger = LedgerCounts {
        started: 10,
        finished: 6,
        aborted: 1,
        refused: 4,
        received: 7,
        span_batches: 2,
        passed: 5,
        in_flight: 3,
        commits: 5,
        failed_commits: 2,
        commit_seconds: seconds(),
        batch: seconds(),
        bytes: 4096,
        wal_bytes: 512,
        partitions: 2,
        budget_bytes: Some(8192),
        free_bytes: None,
        min_free_bytes: 64,
        available: true,
    };
    let requests = RequestMeters::default();
    let text = written(&Sources { ledger: Some(&ledger), ..nothing(&requests) });
    assert_lines(
        &text,
        &[
            "tollgate_ledger_started_total 10",
            "tollgate_ledger_finished_total 6",
            "tollgate_ledger_aborted_total 1",
            "tollgate_ledger_refused_total 4",
            "tollgate_ledger_received_total 7",
            "tollgate_ledger_span_batches_total 2",
            "tollgate_ledger_passed_total 5",
            "tollgate_ledger_in_flight 3.0",
            r#"tollgate_ledger_commits_total{result="ok"} 5"#,
            r#"tollgate_ledger_commits_total{result="failed"} 2"#,
            "tollgate_ledger_commit_duration_seconds_sum 0.5",
            r#"tollgate_ledger_batch_bucket{le="0.01"} 3"#,
            "tollgate_ledger_size_bytes 4096.0",
            "tollgate_ledger_wal_size_bytes 512.0",
            "tollgate_ledger_budget_bytes 8192.0",
            "tollgate_ledger_disk_free_min_bytes 64.0",
            "tollgate_ledger_partitions 2.0",
            "tollgate_ledger_available 1.0",
        ],
    );
    assert!(!text.contains("disk_free_bytes"), "what is not known is absent");
}

#[test]
fn an_exporters_counts_reconcile() {
    let otlp = ExporterCounts {
        name: "otlp".to_owned(),
        records: 20,
        delivered: 11,
        filtered: 5,
        rejected: 1,
        pending: 3,
        oldest_pending: Some(Duration::from_millis(1500)),
        traces: Some(TraceCounts {
            decided: [(Decision::Error, 4), (Decision::Dropped, 6)].into(),
            overruled: 1,
            early: 2,
            late_spans: 3,
            waiting_spans: 8,
            waiting_bytes: 900,
        }),
        send_seconds: seconds(),
        retries: 2,
        last_error_age: Some(Duration::from_secs(9)),
    };
    let console = ExporterCounts { name: "console".to_owned(), ..ExporterCounts::default() };
    let requests = RequestMeters::default();
    let text = written(&Sources { exporters: &[otlp, console], ..nothing(&requests) });
    assert_lines(
        &text,
        &[
            r#"tollgate_exporter_records_total{exporter="otlp"} 20"#,
            r#"tollgate_exporter_delivered_total{exporter="otlp"} 11"#,
            r#"tollgate_exporter_filtered_total{exporter="otlp"} 5"#,
            r#"tollgate_exporter_rejected_total{exporter="otlp"} 1"#,
            r#"tollgate_exporter_pending{exporter="otlp"} 3.0"#,
            r#"tollgate_exporter_oldest_pending_seconds{exporter="otlp"} 1.5"#,
            r#"tollgate_exporter_oldest_pending_seconds{exporter="console"} 0.0"#,
            r#"tollgate_exporter_retries_total{exporter="otlp"} 2"#,
            r#"tollgate_exporter_last_error_age_seconds{exporter="otlp"} 9.0"#,
            r#"tollgate_exporter_traces_total{exporter="otlp",decision="error"} 4"#,
            r#"tollgate_exporter_traces_total{exporter="otlp",decision="dropped"} 6"#,
            r#"tollgate_exporter_traces_overruled_total{exporter="otlp"} 1"#,
            r#"tollgate_exporter_traces_early_total{exporter="otlp"} 2"#,
            r#"tollgate_exporter_late_spans_total{exporter="otlp"} 3"#,
            r#"tollgate_exporter_waiting_spans{exporter="otlp"} 8.0"#,
            r#"tollgate_exporter_waiting_bytes{exporter="otlp"} 900.0"#,
            r#"tollgate_exporter_send_duration_seconds_count{exporter="otlp"} 4"#,
        ],
    );
    assert!(!text.contains(r#"last_error_age_seconds{exporter="console"}"#));
}

#[test]
fn backends_and_limits_are_told_as_they_count_themselves() {
    let backend = BackendStatus {
        name: "a".into(),
        url: "http://a/v1".to_owned(),
        kind: tollgate_upstream::Kind::Openai,
        provider: "vllm".to_owned(),
        weight: 1,
        in_flight: 3,
        max_in_flight: None,
        breaker: tollgate_domain::BreakerState::HalfOpen,
        breaker_openings: 1,
        health: HealthState::Unhealthy { problem: "status 500".to_owned() },
        attempts: 10,
        answered: 7,
        refused: 2,
        failed: 1,
        broken: 0,
    };
    let limits = LimiterStatus { local_scopes: 4, redis_away: true, waiting: 2 };
    let usd = |pico| Money::new(pico, Currency::USD);
    let budget = |amount, spent| BudgetStanding {
        scope: Scope::Tenant,
        per: Per::Month,
        amount: usd(amount),
        spent: usd(spent),
        soft_reached: false,
        reset_after: None,
    };
    let budgets = vec![budget(12_500_000_000_000, 500_000_000_000)];
    let standing = Standing { budgets, ..Standing::default() };
    let standings =
        Standings { tenants: vec![("acme".to_owned(), standing)], ..Standings::default() };
    let requests = RequestMeters::default();
    requests.unauthorized("unknown");
    let text = written(&Sources {
        backends: &[backend],
        limits,
        standings: &standings,
        ..nothing(&requests)
    });
    assert_lines(
        &text,
        &[
            r#"tollgate_budget_amount{tenant="acme",key="",per="month",currency="USD"} 12.5"#,
            r#"tollgate_budget_spent{tenant="acme",key="",per="month",currency="USD"} 0.5"#,
            r#"tollgate_backend_attempts_total{backend="a",result="answered"} 7"#,
            r#"tollgate_backend_attempts_total{backend="a",result="failed"} 1"#,
            r#"tollgate_backend_in_flight{backend="a"} 3.0"#,
            r#"tollgate_backend_healthy{backend="a"} 0.0"#,
            r#"tollgate_backend_breaker{backend="a",state="half_open"} 1.0"#,
            r#"tollgate_backend_breaker{backend="a",state="closed"} 0.0"#,
            "tollgate_limits_scopes 4.0",
            "tollgate_limits_unsettled 2.0",
            "tollgate_limits_redis_away 1.0",
            r#"tollgate_requests_unauthorized_total{reason="unknown"} 1"#,
        ],
    );
}
