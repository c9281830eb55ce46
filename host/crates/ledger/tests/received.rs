//! What other programs told us: durable, in order, verified, found again.

mod support;

use std::sync::Arc;

use support::record;
use tollgate_domain::received::{Group, Received, SpanBatch};
use tollgate_domain::span::{SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{Span, SpanContext, SpanId, TraceId, UnixNanos, Value};
use tollgate_ledger::{Ledger, LedgerReader, LedgerSettings, Payload, Query, Seq, verify};

fn batch(tenant: &str) -> Payload {
    let attributes = [("a", Value::Int(1))].into_iter().collect();
    let span = Span {
        context: SpanContext {
            trace_id: TraceId(7),
            span_id: SpanId(7),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: "of another program".into(),
        kind: SpanKind::Client,
        interval: Interval::new(UnixNanos(1), UnixNanos(2)),
        status: SpanStatus::Unset,
        attributes,
        events: Vec::new(),
        received: Some(Box::new(Received { flags: 1, ..Received::default() })),
    };
    let groups = vec![Group { spans: vec![span], ..Group::default() }];
    let tenant = Some(tenant.to_owned());
    Payload::Spans(Box::new(SpanBatch { tenant, arrived: UnixNanos(7), groups }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_is_there_after_a_restart_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    // Each batch begins a new file.
    let settings =
        LedgerSettings { partition_bytes: 1, ..LedgerSettings::new(folder.path().to_owned()) };
    let ledger = Ledger::open(settings.clone()).unwrap().ledger;
    let mut sent = Vec::new();
    for number in 0..6 {
        let payloads = vec![Payload::Record(Arc::new(record(number))), batch("acme")];
        ledger.received(payloads.clone()).await.unwrap();
        sent.extend(payloads);
    }
    let state = ledger.state();
    assert_eq!((state.received, state.span_batches, state.finished), (6, 6, 0));
    ledger.close().await.unwrap();
    let ledger = Ledger::open(settings).unwrap().ledger;
    let read = ledger.read(Seq(0), 100).unwrap();
    assert!(read.iter().map(|found| &found.what).eq(&sent));
    assert!(read.iter().map(|found| found.number).eq(1..=12));
    let mut back = Vec::new();
    ledger
        .look_back(100, |payload| {
            back.push(payload.clone());
            true
        })
        .unwrap();
    back.reverse();
    assert_eq!(back, sent);
    let mut seen = 0;
    ledger
        .look_back(3, |_| {
            seen += 1;
            true
        })
        .unwrap();
    assert_eq!(seen, 3);
    ledger
        .look_back(100, |_| {
            seen += 1;
            seen < 5
        })
        .unwrap();
    assert!(seen >= 5);
    // Reports see the records only.
    let reader = LedgerReader::open(folder.path()).unwrap();
    let records: Vec<_> =
        reader.records(Query::default()).map(|stored| stored.unwrap().record).collect();
    assert_eq!(records, (0..6).map(record).collect::<Vec<_>>());
    let verified = verify(folder.path(), None, |_| {}).unwrap();
    assert_eq!((verified.entries, verified.records), (12, 6));
    assert!(verified.files > 1);
    ledger.close().await.unwrap();
}
