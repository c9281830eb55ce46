//! What is put on record is there, in order, whatever happens to the process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{crash_image, found, open, planned, record, serve, settings, started, until, usage};
use tollgate_domain::record::ServedBy;
use tollgate_domain::upstream::PlannedCall;
use tollgate_domain::{CostOutcome, Currency, Money, Outcome, Record, TokenUsage, UnixNanos};
use tollgate_ledger::{
    Cursor, Ledger, LedgerError, LedgerReader, LedgerSettings, LedgerWriter, Query, Seq, Stored,
    verify,
};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    serve(&ledger, 0..5).await;
    let mut refused = record(9);
    refused.usage = None;
    refused.outcome = Outcome::Refused {
        kind: tollgate_domain::ErrorKind::ModelNotFound,
        message: "no".to_owned(),
    };
    ledger.refused(refused.clone()).await.unwrap();
    let expected: Vec<Record> = (0..5).map(record).chain([refused]).collect();
    let outside: Vec<Record> = found(folder.path()).into_iter().map(|s| s.record).collect();
    assert_eq!(outside, expected);
    let inside = ledger.read(Seq(0), 100).unwrap();
    let numbers: Vec<u64> = inside.iter().map(|stored| stored.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert!(
        inside.iter().zip(&expected).all(|(stored, record)| stored.what.record() == Some(record))
    );
    assert_eq!(ledger.read(inside[3].seq, 1).unwrap()[0].number, 5);
    let head = *ledger.head().borrow();
    assert_eq!((head.seq, head.records), (Seq(11), 6));
    let state = ledger.state();
    assert_eq!((state.started, state.finished, state.refused, state.in_flight), (5, 5, 1, 0));
    ledger.close().await.unwrap();
    // In the same process, too: everything of the first is gone.
    let again = open(folder.path());
    assert!(again.interrupted.is_empty());
    assert_eq!(again.ledger.read(Seq(0), 100).unwrap().len(), 6);
    let verified = verify(folder.path(), None, |_| {}).unwrap();
    assert_eq!((verified.entries, verified.records, verified.in_flight), (11, 6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_one_processs() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).ledger;
    let second = Ledger::open(settings(folder.path()));
    assert!(matches!(second, Err(LedgerError::InUse { .. })));
    first.close().await.unwrap();
    open(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_is_found_with_what_it_used() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    serve(&ledger, 0..2).await;
    let silent = ledger.start(&started(2), "set-a").await.unwrap();
    let speaking = ledger.start(&started(3), "set-b").await.unwrap();
    speaking.progress(7, 0);
    speaking.progress(7, 21);
    let image = crash_image(folder.path());
    let opened = open(image.path());
    let mut interrupted = opened.interrupted;
    assert_eq!(interrupted.len(), 2);
    let second = interrupted.pop().unwrap();
    let first = interrupted.pop().unwrap();
    assert_eq!((first.plugin_set.as_str(), second.plugin_set.as_str()), ("set-a", "set-b"));
    let tokens = |record: &Record| record.usage.as_ref().map(|u| (u.tokens.input, u.tokens.output));
    assert_eq!((tokens(&first.record), tokens(&second.record)), (Some((0, 0)), Some((7, 21))));
    assert!(second.record.phases.request.end > started(3).phases.request.end);
    opened.ledger.finish(first.ticket, first.record).await.unwrap();
    opened.ledger.finish(second.ticket, second.record).await.unwrap();
    let state = opened.ledger.state();
    assert_eq!((state.started, state.aborted, state.in_flight), (2, 2, 0));
    let ends: Vec<Outcome> =
        found(image.path()).into_iter().map(|stored| stored.record.outcome).collect();
    assert_eq!(ends[2..], [Outcome::Aborted, Outcome::Aborted]);
    verify(image.path(), None, |_| {}).unwrap();
    drop((silent, speaking));
    assert_eq!(ledger.state().abandoned, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_elsewhere_is_of_who_was_asked_last() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    let mut record = started(0);
    let mut call = planned(&["a", "b", "c"]);
    let here = ServedBy { provider: "tollgate".to_owned(), model: "here-model".to_owned() };
    call.planned.push(PlannedCall::here(here));
    record.upstream = Some(call);
    let asks: [&[u16]; 5] = [&[], &[0, 1], &[1, 2], &[7], &[2, 3]];
    let mut tickets = Vec::new();
    for places in asks {
        let ticket = ledger.start(&record, "set").await.unwrap();
        places.iter().for_each(|place| ticket.asks(*place));
        ticket.progress(7, 21);
        tickets.push(ticket);
    }
    let under_way = ledger.in_flight(10).unwrap();
    let image = crash_image(folder.path());
    let interrupted = open(image.path()).interrupted;
    let found = interrupted.iter().map(|found| &found.record);
    // What is no place of the plan leaves the record as it was.
    for (record, expected) in found.zip(["a", "b", "c", "-", "here"]) {
        let usage = record.usage.as_ref().unwrap();
        let by = record.served_by.as_ref().unwrap();
        assert_eq!((usage.tokens.input, usage.tokens.output), (7, 21));
        if expected == "here" {
            assert_eq!((&usage.provider, by.model.as_str()), (&by.provider, "here-model"));
            assert_eq!((by.provider.as_str(), &record.upstream), ("tollgate", &None));
            continue;
        }
        let call = record.upstream.as_ref().unwrap();
        let (model, backend) = match expected {
            "-" => ("demo".to_owned(), "a".to_owned()),
            name => (format!("{name}-model"), name.to_owned()),
        };
        assert_eq!((&usage.response_model, &by.model, &call.backend), (&model, &model, &backend));
        assert!(call.planned.is_empty() && call.interval.end == record.phases.request.end);
    }
    let calls = under_way.iter().rev().map(|way| way.record.upstream.as_ref());
    let now = calls.map(|call| call.map_or("here", |call| call.backend.as_str()));
    assert_eq!(now.collect::<Vec<_>>(), ["a", "b", "c", "a", "here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_start_says_is_read_counts_until_more_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    let mut record = started(0);
    record.usage.as_mut().unwrap().tokens.input = 9;
    let mut call = planned(&["a", "b"]);
    let here = ServedBy { provider: "tollgate".to_owned(), model: "here-model".to_owned() };
    call.planned.push(PlannedCall::here(here));
    record.upstream = Some(call);
    let mut tickets = Vec::new();
    for place in [None, Some(1), Some(2)] {
        let ticket = ledger.start(&record, "set").await.unwrap();
        place.into_iter().for_each(|place| ticket.asks(place));
        tickets.push(ticket);
    }
    let image = crash_image(folder.path());
    let interrupted = open(image.path()).interrupted;
    let input = interrupted.iter().map(|found| found.record.usage.as_ref().unwrap().tokens.input);
    // The model here tells itself what it has read, by its own tokenizer.
    assert_eq!(input.collect::<Vec<_>>(), [9, 9, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_follow_each_other_and_carry_over_what_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let small = || LedgerSettings { partition_bytes: 1, ..settings(folder.path()) };
    let ledger = Ledger::open(small()).unwrap().ledger;
    let long = ledger.start(&started(1000), "set").await.unwrap();
    long.progress(7, 5);
    serve(&ledger, 0..20).await;
    let cursor = Cursor { seq: Seq(9), records: 4, delivered: 3, filtered: 1, rejected: 0 };
    ledger.advance("otlp", cursor).await.unwrap();
    serve(&ledger, 20..40).await;
    until(|| ledger.state().partitions > 10).await;
    drop(ledger);
    let image = crash_image(folder.path());
    let files = std::fs::read_dir(image.path()).unwrap().count();
    assert!(files > 20, "{files} files");
    let opened =
        Ledger::open(LedgerSettings { folder: image.path().to_owned(), ..small() }).unwrap();
    assert_eq!(opened.interrupted.len(), 1);
    assert_eq!(opened.ledger.cursor("otlp").unwrap(), Some(cursor));
    assert_eq!(opened.ledger.cursor("other").unwrap(), None);
    let read = opened.ledger.read(Seq(0), 1000).unwrap();
    let numbers: Vec<u64> = read.iter().map(|stored| stored.number).collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<u64>>());
    let some = opened.ledger.read(read[9].seq, 5).unwrap();
    assert_eq!(some.iter().map(|s| s.number).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
    assert_eq!(found(image.path()).len(), 40);
    assert_eq!(LedgerReader::open(image.path()).unwrap().count().unwrap(), 40);
    let verified = verify(image.path(), None, |_| {}).unwrap();
    assert_eq!((verified.records, verified.in_flight), (40, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_waits_for_exporters_and_for_what_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(LedgerSettings {
        partition_bytes: 1,
        retain_bytes: Some(1),
        ..settings(folder.path())
    })
    .unwrap()
    .ledger;
    ledger.advance("slow", Cursor { seq: Seq(8), records: 4, ..Cursor::default() }).await.unwrap();
    serve(&ledger, 0..10).await;
    let files = || {
        let all = std::fs::read_dir(folder.path()).unwrap();
        all.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".sqlite")
        })
        .count()
    };
    let settles_at = async |wanted: usize| {
        for _ in 0..100 {
            if files() <= wanted {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        files()
    };
    // Of 21 files, one for each entry and one that is begun: what the cursor has not passed stays.
    assert_eq!(settles_at(13).await, 13);
    assert_eq!(found(folder.path()).len(), 6);
    let long = ledger.start(&started(100), "set").await.unwrap();
    serve(&ledger, 10..15).await;
    let head = *ledger.head().borrow();
    let cursor = Cursor { seq: head.seq, records: head.records, ..Cursor::default() };
    ledger.advance("slow", cursor).await.unwrap();
    // The start of what is in flight stays with all that follows.
    assert_eq!(settles_at(12).await, 12);
    ledger.finish(long, record(100)).await.unwrap();
    let head = *ledger.head().borrow();
    let cursor = Cursor { seq: head.seq, records: head.records, ..Cursor::default() };
    ledger.advance("slow", cursor).await.unwrap();
    assert_eq!(settles_at(1).await, 1);
    let verified = verify(folder.path(), None, |_| {}).unwrap();
    assert_eq!((verified.entries, verified.head.seq), (0, head.seq));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_refuses_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let tight = LedgerSettings { budget_bytes: Some(1), ..settings(folder.path()) };
    let ledger = Ledger::open(tight).unwrap().ledger;
    let reason = ledger.admits().unwrap_err().to_string();
    assert!(reason.contains("ledger-budget-mib"), "{reason}");
    assert_eq!(ledger.state().unavailable, Some(reason));
    let full = LedgerSettings { min_free_bytes: u64::MAX, ..settings(&folder.path().join("b")) };
    let reason = Ledger::open(full).unwrap().ledger.admits().unwrap_err().to_string();
    assert!(reason.contains("ledger-min-free-mib"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_finds_what_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    serve(&ledger, 0..1200).await;
    let reader = LedgerReader::open(folder.path()).unwrap();
    let count = |query: Query| reader.records(query).map(Result::unwrap).count();
    let at = |number: u64| Some(record(number).phases.request.end);
    for (query, expected) in [
        (Query::default(), 1200),
        (Query { tenant: Some("tenant-1".into()), ..Query::default() }, 400),
        (Query { tenant: Some("tenant-9".into()), ..Query::default() }, 0),
        (Query { model: Some("mistral-7b".into()), ..Query::default() }, 1200),
        (Query { model: Some("demo".into()), ..Query::default() }, 1200),
        (Query { model: Some("x".into()), ..Query::default() }, 0),
        (Query { since: at(100), until: at(110), ..Query::default() }, 10),
        (Query { after: Seq(2000), ..Query::default() }, 200),
    ] {
        assert_eq!(count(query.clone()), expected, "{query:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_priced_again_make_a_ledger_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("repriced");
    let mut writer = LedgerWriter::create(&beside).unwrap();
    for number in 1..=2500 {
        writer.append(&Stored { seq: Seq(number), number, record: record(number) }).unwrap();
    }
    assert_eq!(writer.finish().unwrap().records, 2500);
    assert_eq!(found(&beside).len(), 2500);
    assert_eq!(verify(&beside, None, |_| {}).unwrap().records, 2500);
    let again = LedgerWriter::create(&beside).err().unwrap().to_string();
    assert!(again.contains("another folder"), "{again}");
}

#[derive(Clone, Debug)]
enum Step {
    Start,
    Progress(usize, u64),
    Finish(usize),
    Refuse,
    Advance(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Start),
        4 => (any::<usize>(), 1..1000_u64).prop_map(|(which, tokens)| Step::Progress(which, tokens)),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => Just(Step::Refuse),
        1 => (0..40_u64).prop_map(Step::Advance),
        1 => Just(Step::Crash),
    ]
}

/// Whatever is done in whatever order, and wherever the process dies: what was acknowledged is
/// there, what was in flight is found with its last progress, and the chain holds.
async fn play(steps: Vec<Step>, partition_bytes: u64) {
    let mut folder = tempfile::tempdir().unwrap();
    let of = |folder: &std::path::Path| LedgerSettings { partition_bytes, ..settings(folder) };
    let mut ledger = Ledger::open(of(folder.path())).unwrap().ledger;
    let (mut next, mut ended, mut cursor) = (0_u64, Vec::new(), None);
    let mut running: BTreeMap<u64, (tollgate_ledger::Ticket, u64)> = BTreeMap::new();
    for step in steps.into_iter().chain([Step::Crash]) {
        match step {
            Step::Start => {
                let ticket = ledger.start(&started(next), "set").await.unwrap();
                running.insert(next, (ticket, 0));
                next += 1;
            }
            Step::Progress(which, tokens) if !running.is_empty() => {
                let place = which % running.len();
                let (ticket, used) = running.values_mut().nth(place).unwrap();
                *used += tokens;
                ticket.progress(7, *used);
            }
            Step::Finish(which) if !running.is_empty() => {
                let number = *running.keys().nth(which % running.len()).unwrap();
                let (ticket, _) = running.remove(&number).unwrap();
                ledger.finish(ticket, record(number)).await.unwrap();
                ended.push(number);
            }
            Step::Refuse => {
                ledger.refused(record(next)).await.unwrap();
                ended.push(next);
                next += 1;
            }
            Step::Advance(seq) => {
                let moved = Cursor { seq: Seq(seq), ..Cursor::default() };
                ledger.advance("x", moved).await.unwrap();
                cursor = Some(moved);
            }
            Step::Crash => {
                let image = crash_image(folder.path());
                let opened = Ledger::open(of(image.path())).unwrap();
                assert_eq!(opened.ledger.cursor("x").unwrap(), cursor);
                let lying: Vec<Record> =
                    found(image.path()).into_iter().map(|stored| stored.record).collect();
                let ids: Vec<String> = lying.iter().map(|record| record.id.0.clone()).collect();
                let expected: Vec<String> = ended.iter().map(|n| record(*n).id.0).collect();
                assert_eq!(ids, expected);
                assert_eq!(opened.interrupted.len(), running.len());
                for (found, (number, (_, used))) in opened.interrupted.into_iter().zip(&running) {
                    assert_eq!(found.record.id, record(*number).id);
                    assert_eq!(found.record.usage.as_ref().unwrap().tokens.output, *used);
                    opened.ledger.finish(found.ticket, found.record).await.unwrap();
                    ended.push(*number);
                }
                running.clear();
                ledger = opened.ledger;
                folder = image;
                let verified = verify(folder.path(), None, |_| {}).unwrap();
                assert_eq!(verified.records, ended.len() as u64);
            }
            Step::Progress(..) | Step::Finish(_) => {}
        }
    }
}

fn amounts() -> impl Strategy<Value = i128> {
    prop_oneof![any::<i64>().prop_map(i128::from), -(1_i128 << 100)..(1_i128 << 100)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_acknowledged_is_lost(
        steps in prop::collection::vec(step(), 1..60),
        partition_bytes in prop_oneof![Just(1_u64), Just(60_000), Just(1 << 30)],
    ) {
        runtime().block_on(play(steps, partition_bytes));
    }

    #[test]
    fn a_record_keeps_every_digit(
        pico in amounts(),
        tokens in any::<u64>(),
        tenant in "\\PC{0,40}",
        temperature in prop::num::f64::NORMAL,
        time in any::<u64>(),
    ) {
        let mut written = record(1);
        written.tenant = Some(tenant);
        written.asked.temperature = Some(temperature);
        let tokens = TokenUsage { input: tokens, output: tokens / 2, ..TokenUsage::default() };
        written.usage = Some(usage(UnixNanos(time), tokens));
        if let CostOutcome::Priced(cost) = &mut written.cost {
            cost.total = Money::new(pico, Currency::parse("JPY").unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let ledger = open(folder.path()).ledger;
            ledger.refused(written.clone()).await.unwrap();
        });
        prop_assert_eq!(&found(folder.path())[0].record, &written);
        prop_assert_eq!(verify(folder.path(), None, |_| {}).unwrap().records, 1);
    }
}
