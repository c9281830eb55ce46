//! Whatever is changed in a ledger behind its back is found, and named.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::{crash_image, open, serve, settings, tamper};
use tollgate_ledger::{Anchor, Ledger, LedgerSettings, VerifyError, verify};

/// A closed ledger of ten requests: entries 1 to 20.
async fn ledger(partition_bytes: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let of = LedgerSettings { partition_bytes, ..settings(folder.path()) };
    let ledger = Ledger::open(of).unwrap().ledger;
    serve(&ledger, 0..10).await;
    ledger.close().await.unwrap();
    folder
}

/// File, entry and words of what is wrong.
fn broken(folder: &Path, anchor: Option<Anchor>) -> (String, Option<u64>, String) {
    match verify(folder, anchor, |_| {}) {
        Err(VerifyError::Broken(broken)) => (broken.file, broken.seq.map(|seq| seq.0), broken.what),
        other => (format!("{other:?}"), None, String::new()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_one_file() {
    let whole = ledger(1 << 30).await;
    let anchor = verify(whole.path(), None, |_| {}).unwrap().head;
    assert_eq!(anchor.to_string().parse(), Ok(anchor));
    let cases: [(&str, Option<u64>, &str); 12] = [
        (
            "UPDATE entry SET body = replace(body, 'mistral', 'mustral') WHERE seq = 8",
            Some(8),
            "hash",
        ),
        ("UPDATE entry SET amount = '0' WHERE seq = 8", Some(8), "columns"),
        ("UPDATE entry SET tenant = 'other' WHERE seq = 8", Some(8), "columns"),
        ("UPDATE entry SET output_tokens = NULL WHERE seq = 8", Some(8), "columns"),
        ("UPDATE entry SET kind = 'aborted' WHERE seq = 8", Some(8), "hash"),
        ("UPDATE entry SET kind = 'x' WHERE seq = 8", Some(8), "kind"),
        ("UPDATE entry SET hash = zeroblob(32) WHERE seq = 8", Some(8), "hash"),
        ("DELETE FROM entry WHERE seq = 8", Some(9), "missing"),
        ("DELETE FROM entry WHERE seq = 1", Some(2), "missing"),
        (
            "CREATE TABLE t AS SELECT * FROM entry WHERE seq = 20; UPDATE t SET seq = 21; \
             INSERT INTO entry SELECT * FROM t",
            Some(21),
            "hash",
        ),
        (
            "UPDATE entry SET seq = -8 WHERE seq = 8; UPDATE entry SET seq = 8 WHERE seq = 10; \
             UPDATE entry SET seq = 10 WHERE seq = -8",
            Some(8),
            "hash",
        ),
        ("DELETE FROM entry WHERE seq > 18", None, "entry 20 was there once"),
    ];
    for (sql, seq, word) in cases {
        let copy = crash_image(whole.path());
        tamper(copy.path(), 1, sql);
        let (file, found, what) = broken(copy.path(), Some(anchor));
        assert!(found == seq && what.contains(word), "{sql}: {file}, {found:?}: {what}");
        assert!(seq.is_none() || file == "ledger-00000001.sqlite", "{sql}: {file}");
    }
    // Without an anchor a cut-off end shows only in what it leaves open.
    let copy = crash_image(whole.path());
    tamper(copy.path(), 1, "DELETE FROM entry WHERE seq = 20");
    let (_, seq, what) = broken(copy.path(), None);
    assert!(seq == Some(19) && what.contains("not in flight"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_among_files() {
    let whole = ledger(1).await;
    verify(whole.path(), None, |_| {}).unwrap();
    let file = |ordinal: u64| format!("ledger-{ordinal:08}.sqlite");
    let copy = crash_image(whole.path());
    std::fs::remove_file(copy.path().join(file(5))).unwrap();
    let (found, _, what) = broken(copy.path(), None);
    assert!(found == file(6) && what.contains("begins after entry"), "{found}: {what}");
    let copy = crash_image(whole.path());
    std::fs::remove_file(copy.path().join(file(1))).unwrap();
    let (found, _, what) = broken(copy.path(), None);
    assert!(found == file(1) && what.contains("retention"), "{found}: {what}");
    let copy = crash_image(whole.path());
    std::fs::write(copy.path().join(file(7)), "no database at all").unwrap();
    let (found, ..) = broken(copy.path(), None);
    assert!(found.contains("ledger-00000007"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_newest_file_is_not_written_on() {
    let folder = ledger(1 << 30).await;
    std::fs::write(folder.path().join("ledger-00000001.sqlite"), "no database at all").unwrap();
    let error = Ledger::open(settings(folder.path())).unwrap_err().to_string();
    assert!(error.contains("ledger-00000001.sqlite") && error.contains("damaged"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_verified_beside_who_writes() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    let writing = tokio::spawn(async move { serve(&ledger, 0..400).await });
    let mut last = 0;
    while !writing.is_finished() {
        let verified = tokio::task::block_in_place(|| verify(folder.path(), None, |_| {}));
        last = verified.unwrap().records;
    }
    writing.await.unwrap();
    assert!(last > 0);
    assert_eq!(verify(folder.path(), None, |_| {}).unwrap().records, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_keep_to_the_form() {
    let whole = ledger(1 << 30).await;
    let cases: [(&str, Option<u64>, &str); 9] = [
        ("INSERT INTO in_flight VALUES (1, 0, 'set')", Some(1), "no start without an end"),
        ("INSERT INTO in_flight VALUES (2, 0, 'set')", Some(2), "no start without an end"),
        ("UPDATE entry SET version = -1 WHERE seq = 8", None, "damaged"),
        ("UPDATE entry SET body = CAST(X'ff' AS TEXT) WHERE seq = 8", None, "damaged"),
        ("UPDATE entry SET hash = X'00' WHERE seq = 8", Some(8), "hash"),
        ("UPDATE entry SET number = number + 1 WHERE number IS NOT NULL", Some(2), "hash"),
        ("DROP TABLE entry", None, "damaged"),
        ("DELETE FROM partition", None, "does not list itself"),
        ("UPDATE entry SET seq = 0 WHERE seq = 1", None, "before its first"),
    ];
    for (sql, seq, word) in cases {
        let copy = crash_image(whole.path());
        tamper(copy.path(), 1, sql);
        let (file, found, what) = broken(copy.path(), None);
        assert!(found == seq && what.contains(word), "{sql}: {file}, {found:?}: {what}");
        assert_eq!(file, "ledger-00000001.sqlite", "{sql}: {what}");
    }
    let copy = crash_image(whole.path());
    std::fs::write(copy.path().join("ledger-00000001.sqlite"), "no database at all").unwrap();
    let (file, _, what) = broken(copy.path(), None);
    assert!(file == "ledger-00000001.sqlite" && what.contains("damaged"), "{file}: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_added_to_a_later_file_under_an_earlier_number() {
    let whole = ledger(1).await;
    let copy = crash_image(whole.path());
    let first = copy.path().join("ledger-00000002.sqlite");
    let sql = format!(
        "ATTACH '{}' AS other; INSERT INTO entry SELECT * FROM other.entry",
        first.display()
    );
    tamper(copy.path(), 9, &sql);
    let (file, _, what) = broken(copy.path(), None);
    assert!(file == "ledger-00000009.sqlite" && what.contains("before its first"), "{what}");
}

/// With the right hash, as the ledger itself would write it if it was made to.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_end_of_a_request() {
    let whole = ledger(1 << 30).await;
    tamper(whole.path(), 1, "INSERT INTO in_flight VALUES (3, 0, 'set')");
    let mut opened = open(whole.path());
    let again = opened.interrupted.pop().unwrap();
    opened.ledger.finish(again.ticket, again.record).await.unwrap();
    opened.ledger.close().await.unwrap();
    let (_, seq, what) = broken(whole.path(), None);
    assert!(seq == Some(21) && what.contains("entry 3, which was not in flight"), "{what}");
}
