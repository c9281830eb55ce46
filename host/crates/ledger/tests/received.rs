//! What other programs told us: durable, in order, verified, found again.

mod support;

use std::sync::Arc;

use support::record;
use tollgate_domain::received::{Group, Received, SpanBatch};
use tollgate_domain::span::SpanKind;
use tollgate_domain::time::Interval;
use tollgate_domain::{Record, Span, SpanContext, SpanId, TraceId, UnixNanos, Value};
use tollgate_ledger::{
    Ledger, LedgerReader, LedgerSettings, Look, Payload, Query, ReceivedKey, Seq, verify,
};

fn batch(tenant: &str) -> Payload {
    let attributes = [("a", Value::Int(1))].into_iter().collect();
    let context =
        SpanContext { trace_id: TraceId(7), span_id: SpanId(7), sampled: true, trace_state: None };
    let interval = Interval::new(UnixNanos(1), UnixNanos(2));
    let received = Some(Box::new(Received { flags: 1, ..Received::default() }));
    let plain = Span::new(context, "of another program", SpanKind::Client, interval);
    let span = Span { attributes, received, ..plain };
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
            Look::On
        })
        .map(|whole| assert!(whole))
        .unwrap();
    back.reverse();
    assert_eq!(back, sent);
    for (entries, until, records, wanted) in
        [(3, 100, false, (3, false)), (100, 5, false, (5, false)), (100, 5, true, (9, true))]
    {
        let mut seen = 0;
        let whole = ledger.look_back(entries, |payload| {
            seen += 1;
            assert!(seen <= until || matches!(payload, Payload::Record(_)));
            match (seen < until, records) {
                (true, _) => Look::On,
                (false, true) => Look::OnAtRecords,
                (false, false) => Look::NoFurther,
            }
        });
        assert_eq!((seen, whole.unwrap()), wanted, "{entries} {until} {records}");
    }
    // A call is found by what its record says, and by nothing else.
    let key = |number: u64, tenant: Option<&str>| {
        let Record { id, phases, .. } = record(number);
        ReceivedKey { id, ended: phases.request.end, tenant: tenant.map(str::to_owned) }
    };
    let tenant = record(5).tenant;
    let earlier = ReceivedKey { ended: UnixNanos(1), ..key(0, None) };
    let asked =
        [key(0, None), key(5, tenant.as_deref()), key(3, Some("another")), key(6, None), earlier];
    assert_eq!(ledger.have_received(&asked).unwrap(), [true, true, false, false, false]);
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
