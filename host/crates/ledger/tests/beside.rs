//! What goes on beside the writer: readers, exporters, retention.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{found, record, serve, settings, started, until};
use tollgate_domain::plugin::{FaultKind, PluginFault};
use tollgate_domain::record::FinishReason;
use tollgate_domain::{CostOutcome, ErrorKind, Outcome, TokenUsage, UnpricedReason};
use tollgate_ledger::{Cursor, Ledger, LedgerSettings, Seq, verify};

/// A file for each commit, none kept that need not be.
fn hungry(folder: &Path) -> LedgerSettings {
    LedgerSettings { partition_bytes: 1, retain_bytes: Some(1), ..settings(folder) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_exporter_has_not_passed_is_kept_from_the_start_on() {
    let folder = tempfile::tempdir().unwrap();
    let kept = LedgerSettings { partition_bytes: 1, ..settings(folder.path()) };
    let ledger = Ledger::open(kept).unwrap().ledger;
    serve(&ledger, 0..10).await;
    let passed = |seq| Cursor { seq: Seq(seq), records: seq / 2, ..Cursor::default() };
    ledger.advance("slow", passed(4)).await.unwrap();
    ledger.advance("gone", passed(2)).await.unwrap();
    ledger.close().await.unwrap();
    // Opened with much to delete, nobody having asked for a cursor yet.
    let ledger = Ledger::open(hungry(folder.path())).unwrap().ledger;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(found(folder.path()).len(), 9);
    ledger.delivers_to(&["slow", "new"]);
    until(|| found(folder.path()).len() == 8).await;
    assert_eq!(ledger.cursor("slow").unwrap(), Some(passed(4)));
    assert_eq!(ledger.cursor("new").unwrap(), None);
    assert_eq!(ledger.read(Seq(4), 100).unwrap().len(), 8);
    verify(folder.path(), None, |_| {}).unwrap();
    ledger.delivers_to(&[]);
    until(|| found(folder.path()).is_empty()).await;
    assert_eq!(verify(folder.path(), None, |_| {}).unwrap().head.seq, Seq(20));
    // With all older ones deleted it goes on as if they were there.
    ledger.close().await.unwrap();
    let ledger = Ledger::open(hungry(folder.path())).unwrap().ledger;
    serve(&ledger, 10..11).await;
    let head = *ledger.head().borrow();
    assert_eq!((head.seq, head.records), (Seq(22), 11));
}

/// An exporter that reads all, in order and without a gap, beside requests, new files, retention,
/// whoever verifies and whoever reads from outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_at_once() {
    const REQUESTS: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let small = LedgerSettings { partition_bytes: 100_000, ..hungry(folder.path()) };
    let ledger = Ledger::open(small).unwrap().ledger;
    ledger.advance("x", Cursor::default()).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let first = writer * 1000;
                for number in first..first + REQUESTS / 8 {
                    serve(&ledger, number..number + 1).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    let records = REQUESTS / 8 * 8;
    let outside = {
        let folder = folder.path().to_owned();
        let head = ledger.head();
        tokio::task::spawn_blocking(move || {
            while head.borrow().records < records {
                let numbers: Vec<u64> = found(&folder).iter().map(|stored| stored.number).collect();
                assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
                verify(&folder, None, |_| {}).unwrap();
            }
        })
    };
    let mut cursor = Cursor::default();
    while cursor.records < records {
        let batch = tokio::task::block_in_place(|| ledger.read(cursor.seq, 16)).unwrap();
        for stored in &batch {
            assert_eq!(stored.number, cursor.records + 1);
            (cursor.seq, cursor.records) = (stored.seq, stored.number);
        }
        ledger.advance("x", cursor).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    outside.await.unwrap();
    until(|| ledger.state().partitions == 1).await;
    assert_eq!(verify(folder.path(), None, |_| {}).unwrap().head.seq.0, 2 * records);
    ledger.close().await.unwrap();
}

/// However busy the writer is, the journal is written back whole now and then, begun anew and cut short: as long as it
/// was, whoever looks at its length would have it written back again and again, and wait for the disk each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_begun_anew_while_much_is_written() {
    const MOST: u64 = 17 << 20;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(settings(folder.path())).unwrap().ledger;
    let journal = || {
        let length = |path: std::path::PathBuf| path.metadata().unwrap().len();
        length(folder.path().join("ledger-00000001.sqlite-wal"))
    };
    let mut served = 0;
    while journal() < MOST {
        serve(&ledger, served..served + 50).await;
        served += 50;
    }
    let began = Instant::now();
    while journal() >= MOST {
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes", journal());
        serve(&ledger, served..served + 50).await;
        served += 50;
    }
    verify(folder.path(), None, |_| {}).unwrap();
}

/// Every way a request can end and be priced, with words that are hard to keep.
#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_and_cost() {
    let odd = "'; DROP TABLE entry; -- \0 \u{feff}\u{202e} 🦀 \"\\ \r\n".to_owned();
    let message = || odd.clone();
    let plugin = (*support::cost(1).plugin).clone();
    let fault = PluginFault { plugin, kind: FaultKind::Trap, message: odd.clone() };
    let outcomes = [
        Outcome::Completed { reason: Some(FinishReason::Stop) },
        Outcome::Completed { reason: Some(FinishReason::Length) },
        Outcome::ClientGone,
        Outcome::Failed { kind: ErrorKind::Backend, message: message() },
        Outcome::Refused { kind: ErrorKind::Overloaded, message: "x".repeat(1 << 20) },
        Outcome::Aborted,
    ];
    let costs = [
        CostOutcome::Priced(support::cost(i128::MAX)),
        CostOutcome::Estimated(support::cost(i128::MIN)),
        CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel },
        CostOutcome::Unpriced { reason: UnpricedReason::MissingUsage },
        CostOutcome::PluginFailed(fault),
    ];
    let mut expected = Vec::new();
    for (number, outcome) in (0..).zip(&outcomes) {
        for cost in &costs {
            let mut record = record(number);
            (record.outcome, record.cost) = (outcome.clone(), cost.clone());
            record.tenant = Some(odd.clone());
            record.asked.model = odd.clone();
            let most = TokenUsage { input: u64::MAX, output: u64::MAX, ..TokenUsage::default() };
            record.usage.as_mut().unwrap().tokens = most;
            expected.push(record);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(settings(folder.path())).unwrap().ledger;
    for record in &expected {
        if matches!(record.outcome, Outcome::Refused { .. }) {
            ledger.refused(record.clone()).await.unwrap();
        } else {
            let ticket = ledger.start(&started(0), "set").await.unwrap();
            ticket.progress(u64::MAX, u64::MAX);
            ledger.finish(ticket, record.clone()).await.unwrap();
        }
    }
    let outside = found(folder.path());
    assert!(outside.iter().map(|stored| &stored.record).eq(&expected));
    let inside = ledger.read(Seq(0), 100).unwrap();
    assert!(inside.iter().map(|sent| sent.what.record().unwrap()).eq(&expected));
    ledger.close().await.unwrap();
    let ledger = Ledger::open(settings(folder.path())).unwrap().ledger;
    let again = ledger.read(Seq(0), 100).unwrap();
    assert!(again.iter().map(|sent| sent.what.record().unwrap()).eq(&expected));
    let verified = verify(folder.path(), None, |_| {}).unwrap();
    assert_eq!(verified.records, expected.len() as u64);
}
