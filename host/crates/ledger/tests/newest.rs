//! The newest records, a page at a time: nothing is left out and nothing told twice, however many files they are in.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::{found, record, serve, settings};
use tollgate_domain::{ErrorKind, Outcome, UnixNanos};
use tollgate_ledger::{Ledger, LedgerReader, LedgerSettings, Query};

const REQUESTS: u64 = 60;

/// The numbers of all records that are asked for, and how many pages they took.
fn paged(folder: &Path, query: &Query, most: usize) -> (Vec<u64>, usize) {
    let reader = LedgerReader::open(folder).unwrap();
    let (mut numbers, mut before) = (Vec::new(), None);
    for page in 1..10_000 {
        let found = reader.newest(query, before, most).unwrap();
        assert!(found.records.len() <= most);
        numbers.extend(found.records.iter().map(|stored| stored.number));
        before = found.next;
        if before.is_none() {
            return (numbers, page);
        }
    }
    panic!("it does not come to an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_whole_and_without_copies() {
    for partition_bytes in [1, 200_000, 256 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let kept = LedgerSettings { partition_bytes, ..settings(folder.path()) };
        let ledger = Ledger::open(kept).unwrap().ledger;
        let mut refused = record(7_000);
        refused.outcome = Outcome::Refused { kind: ErrorKind::Overloaded, message: "full".into() };
        ledger.refused(refused).await.unwrap();
        serve(&ledger, 1..REQUESTS).await;
        let all = found(folder.path());
        let named = |text: &str| Some(text.to_owned());
        let (since, until) = (record(20).phases.request.end, record(45).phases.request.end);
        let queries = [
            Query::default(),
            Query { tenant: named("tenant-1"), ..Query::default() },
            Query { model: named("demo"), tenant: named("tenant-2"), ..Query::default() },
            Query { outcome: named("refused"), ..Query::default() },
            Query { cost_status: named("unpriced"), ..Query::default() },
            Query { id: named("request-27"), ..Query::default() },
            Query { id: named(&record(5).trace.trace_id.to_string()), ..Query::default() },
            Query { since: Some(since), until: Some(until), ..Query::default() },
            Query { since: Some(UnixNanos(u64::MAX)), ..Query::default() },
        ];
        for query in queries {
            let wanted = all.iter().filter(|stored| {
                let record = &stored.record;
                let end = record.phases.request.end;
                query
                    .tenant
                    .as_deref()
                    .is_none_or(|tenant| record.tenant.as_deref() == Some(tenant))
                    && query.outcome.as_deref().is_none_or(|word| record.outcome.name() == word)
                    && query.cost_status.as_deref().is_none_or(|word| record.cost.status() == word)
                    && query.id.as_deref().is_none_or(|id| {
                        record.id.0 == id || record.trace.trace_id.to_string() == id
                    })
                    && query.since.is_none_or(|since| end >= since)
                    && query.until.is_none_or(|until| end < until)
            });
            let wanted: Vec<u64> = wanted.rev().map(|stored| stored.number).collect();
            for most in [4, 1_000] {
                let (numbers, pages) = paged(folder.path(), &query, most);
                assert_eq!(numbers, wanted, "{partition_bytes} {query:?} {most}");
                assert!(pages <= wanted.len() / most + 8, "{pages} pages of {}", wanted.len());
            }
        }
        let reader = LedgerReader::open(folder.path()).unwrap();
        let one = reader.numbered(7).unwrap().unwrap();
        assert_eq!(one.record, all[6].record);
        for number in [0, REQUESTS + 1, u64::MAX] {
            assert!(reader.numbered(number).unwrap().is_none());
        }
        assert!(ledger.in_flight(10).unwrap().is_empty());
        let ticket = ledger.start(&support::started(9_000), "set").await.unwrap();
        let under_way = ledger.in_flight(10).unwrap();
        assert_eq!(under_way.len(), 1);
        assert_eq!(under_way[0].record.id, record(9_000).id);
        assert_eq!(under_way[0].tokens, None);
        ledger.finish(ticket, record(9_000)).await.unwrap();
        ledger.close().await.unwrap();
    }
}
