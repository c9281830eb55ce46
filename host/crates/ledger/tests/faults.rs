//! Disks that are full, clocks that are wrong, handles that are dropped: nothing acknowledged is
//! lost, and it goes on by itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use support::{crash_image, found, open, record, serve, settings, started, until};
use tollgate_domain::{ErrorKind, Outcome, UnixNanos};
use tollgate_ledger::{Cursor, Ledger, LedgerError, LedgerErrorKind, LedgerSettings, Seq, verify};

/// A disk of its own, small; gone when dropped. Only root can mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder))
    }

    fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let path = self.0.path().join("filler");
        for size in [4096, 1] {
            let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
            while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn ids(folder: &Path) -> Vec<String> {
    found(folder).into_iter().map(|stored| stored.record.id.0).collect()
}

/// Starts and ends requests until the ledger cannot; the first that was not acknowledged.
async fn serve_until_refused(ledger: &Ledger, from: u64, acknowledged: &mut Vec<u64>) -> u64 {
    for number in from..from + 100_000 {
        let Ok(ticket) = ledger.start(&started(number), "set").await else { return number };
        if ledger.finish(ticket, record(number)).await.is_err() {
            return number;
        }
        acknowledged.push(number);
    }
    panic!("the ledger never refused");
}

/// With requests in flight the room ends, and comes back. `elsewhere`: a crash image has room.
async fn survives(folder: &Path, elsewhere: bool, exhaust: impl FnOnce(), relieve: impl FnOnce()) {
    let ledger = open(folder).ledger;
    let mut acknowledged: Vec<u64> = (0..5).collect();
    serve(&ledger, 0..5).await;
    let mut tickets = Vec::new();
    for number in 1000..1003 {
        tickets.push(ledger.start(&started(number), "set").await.unwrap());
    }
    exhaust();
    let refused = serve_until_refused(&ledger, 5, &mut acknowledged).await;
    let kept = tickets.pop().unwrap();
    for (ticket, number) in tickets.into_iter().zip(1000..) {
        ticket.progress(7, 3);
        let error = ledger.finish(ticket, record(number)).await.unwrap_err();
        assert!(!error.to_string().contains("bug"), "{error}");
    }
    let error = ledger.admits().unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Unavailable);
    assert!(ledger.start(&started(2000), "set").await.is_err());
    assert!(ledger.refused(record(2001)).await.is_err());
    assert!(ledger.advance("x", Cursor::default()).await.is_err());
    let state = ledger.state();
    assert!(state.failed_commits > 0 && state.unavailable.is_some(), "{state:?}");
    let expected: Vec<String> = acknowledged.iter().map(|number| record(*number).id.0).collect();
    if elsewhere {
        loses_nothing_if_it_dies(folder, &expected);
    }
    relieve();
    until(|| ledger.admits().is_ok()).await;
    // What is owed comes first, as what it is for the client: failed.
    let ends = found(folder);
    for number in [1000, 1001] {
        let of: Vec<_> = ends.iter().filter(|s| s.record.id == record(number).id).collect();
        assert_eq!(of.len(), 1);
        let Outcome::Failed { kind, .. } = &of[0].record.outcome else { panic!("{of:?}") };
        assert_eq!(*kind, ErrorKind::RecordUnavailable);
        assert_eq!(of[0].record.cost, record(number).cost);
    }
    serve(&ledger, 3000..3010).await;
    ledger.finish(kept, record(1002)).await.unwrap();
    let outside = found(folder);
    let inside = ledger.read(Seq(0), 1_000_000).unwrap();
    assert!(inside.iter().map(|s| s.seq).eq(outside.iter().map(|s| s.seq)));
    let unique: HashSet<&str> = outside.iter().map(|s| s.record.id.0.as_str()).collect();
    assert_eq!(unique.len(), outside.len());
    assert!(expected.iter().all(|id| unique.contains(id.as_str())));
    let told = [2000, 2001, refused].map(|number| record(number).id.0);
    let lying = outside.iter().filter(|s| told.contains(&s.record.id.0));
    for stored in lying {
        assert!(!matches!(stored.record.outcome, Outcome::Completed { .. }), "{stored:?}");
    }
    let state = ledger.state();
    assert_eq!((state.in_flight, state.abandoned), (0, 0), "{state:?}");
    assert_eq!(state.started, state.finished + state.aborted);
    ledger.close().await.unwrap();
    assert_eq!(verify(folder, None, |_| {}).unwrap().in_flight, 0);
    assert!(open(folder).interrupted.is_empty());
}

/// Dying now would lose nothing of what was acknowledged.
fn loses_nothing_if_it_dies(folder: &Path, acknowledged: &[String]) {
    let image = crash_image(folder);
    let dead = open(image.path());
    let lying = ids(image.path());
    assert!(acknowledged.iter().all(|id| lying.contains(id)));
    let in_flight: Vec<String> = dead.interrupted.iter().map(|i| i.record.id.0.clone()).collect();
    assert!((1000..1003).all(|number| in_flight.contains(&record(number).id.0)), "{in_flight:?}");
    verify(image.path(), None, |_| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        return eprintln!("skipped: only root can mount a small disk");
    };
    survives(&disk.ledger(), true, || disk.fill(), || disk.free()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_on_a_full_disk_it_leaves_what_it_owes_in_flight() {
    let Some(disk) = SmallDisk::mount() else {
        return eprintln!("skipped: only root can mount a small disk");
    };
    let ledger = open(&disk.ledger()).ledger;
    let ticket = ledger.start(&started(1000), "set").await.unwrap();
    ticket.progress(7, 4);
    disk.fill();
    let mut acknowledged = Vec::new();
    serve_until_refused(&ledger, 0, &mut acknowledged).await;
    ledger.finish(ticket, record(1000)).await.unwrap_err();
    ledger.close().await.unwrap_err();
    disk.free();
    let opened = open(&disk.ledger());
    let found = opened.interrupted.iter().find(|i| i.record.id == record(1000).id).unwrap();
    assert_eq!(found.record.usage.as_ref().unwrap().tokens.output, 4);
    let expected: Vec<String> = acknowledged.iter().map(|number| record(*number).id.0).collect();
    let lying = ids(&disk.ledger());
    assert!(expected.iter().all(|id| lying.contains(id)));
    verify(&disk.ledger(), None, |_| {}).unwrap();
}

/// Set in the child of [`files_that_may_not_grow`]: the ledger's folder.
const CHILD: &str = "TOLLGATE_TEST_LIMITED";

/// Writes fail with another error than on a full disk. The limit is the process's: in a child, which
/// does not die of the signal.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_may_not_grow() {
    let limit = |bytes: &str| {
        let mut limit = Command::new("prlimit");
        let pid = std::process::id().to_string();
        limit.args(["--pid", &pid, &format!("--fsize={bytes}:unlimited")]).status()
    };
    if let Some(folder) = std::env::var_os(CHILD) {
        let exhaust = || assert!(limit("300000").unwrap().success());
        let relieve = || assert!(limit("unlimited").unwrap().success());
        return survives(Path::new(&folder), false, exhaust, relieve).await;
    }
    if !limit("unlimited").is_ok_and(|status| status.success()) {
        return eprintln!("skipped: there is no prlimit here, or it may not");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new("sh");
    child.args(["-c", "trap '' XFSZ; exec \"$0\" --exact files_that_may_not_grow --nocapture"]);
    child.arg(std::env::current_exe().unwrap()).env(CHILD, folder.path());
    let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_where_the_next_file_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let of = || LedgerSettings { partition_bytes: 1, ..settings(folder.path()) };
    let ledger = Ledger::open(of()).unwrap().ledger;
    let obstacle = folder.path().join("ledger-00000003.sqlite");
    std::fs::create_dir(&obstacle).unwrap();
    let mut acknowledged = Vec::new();
    serve_until_refused(&ledger, 0, &mut acknowledged).await;
    std::fs::remove_dir(&obstacle).unwrap();
    until(|| ledger.admits().is_ok()).await;
    serve(&ledger, 100..105).await;
    ledger.close().await.unwrap();
    let lying = ids(folder.path());
    let expected = acknowledged.into_iter().chain(100..105).map(|number| record(number).id.0);
    assert!(expected.into_iter().all(|id| lying.contains(&id)));
    verify(folder.path(), None, |_| {}).unwrap();
    assert!(Ledger::open(of()).unwrap().interrupted.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_handles_end_it_and_leave_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path());
    let clone = opened.ledger.clone();
    let ticket = clone.start(&started(1), "set").await.unwrap();
    drop(opened);
    assert!(matches!(Ledger::open(settings(folder.path())), Err(LedgerError::InUse { .. })));
    drop(clone);
    let mut next = None;
    until(|| {
        next = Ledger::open(settings(folder.path())).ok();
        next.is_some()
    })
    .await;
    let next = next.unwrap();
    assert_eq!(next.interrupted.len(), 1);
    ticket.progress(1, 1);
    drop(ticket);
    // Closed, it is closed for all who have it, at once, and the next may have the folder.
    let clone = next.ledger.clone();
    let head = clone.head();
    next.ledger.close().await.unwrap();
    assert!(matches!(clone.start(&started(2), "set").await, Err(LedgerError::Closed)));
    assert!(matches!(clone.advance("x", Cursor::default()).await, Err(LedgerError::Closed)));
    assert!(matches!(clone.clone().close().await, Err(LedgerError::Closed)));
    for _ in 0..20 {
        open(folder.path()).ledger.close().await.unwrap();
    }
    assert_eq!(head.borrow().seq, Seq(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_that_are_given_up_are_found_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).ledger;
    for number in 0..50 {
        let record = started(number);
        let start = ledger.start(&record, "set");
        let _ = tokio::time::timeout(Duration::from_micros(number * 4), start).await;
    }
    ledger.clone().close().await.unwrap();
    let state = ledger.state();
    assert_eq!((state.in_flight, state.abandoned), (state.started, state.started));
    let opened = open(folder.path());
    assert_eq!(opened.interrupted.len() as u64, state.started);
    verify(folder.path(), None, |_| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn age_deletes_whatever_the_clock_once_said() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(LedgerSettings {
        partition_bytes: 1,
        retain_for: Some(Duration::from_secs(3600)),
        ..settings(folder.path())
    })
    .unwrap()
    .ledger;
    let now = UnixNanos::from(SystemTime::now());
    let of = |number: u64, at: UnixNanos| {
        let mut record = record(number);
        (record.phases.request.start, record.phases.request.end) = (at, at);
        record
    };
    // What is ahead is as old as what follows it.
    let ahead = now.plus(Duration::from_secs(1 << 30));
    let old = record(0).phases.request.end;
    for (number, at) in (0..).zip([old, ahead, UnixNanos(0), ahead, now, ahead, now]) {
        ledger.refused(of(number, at)).await.unwrap();
    }
    until(|| found(folder.path()).len() <= 4).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(ids(folder.path()), [3, 4, 5, 6].map(|number| record(number).id.0));
    let verified = verify(folder.path(), None, |_| {}).unwrap();
    assert_eq!((verified.records, verified.head.seq), (4, Seq(7)));
}
