//! What putting requests on record costs: `cargo xtask bench ledger [--records N]`.
//!
//! A request is two commits, of its start and of its end; their times are added to its latency. Beside them, what the
//! same disk takes for one fdatasync. Then a ledger of N records: its size, how long opening and verifying take.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::{record, settings, started};
use tollgate_ledger::{Durability, Ledger, LedgerSettings, LedgerWriter, Seq, Stored, verify};

/// How long each setting is measured.
const FOR: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given =
        arguments.iter().position(|a| a == "--records").and_then(|at| arguments.get(at + 1));
    let records: u64 = given.map_or(200_000, |number| number.parse().unwrap());
    // On the disk that the build is on: a folder for temporary files may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sync = fdatasync(folder.path());
    println!("one fdatasync of 4 KiB: p50 {} us, p99 {} us\n", sync.0, sync.1);
    println!(
        "{:<10} {:>11} {:>12} {:>14} {:>14} {:>10} {:>14}",
        "durability",
        "concurrent",
        "requests/s",
        "added p50 us",
        "added p99 us",
        "batch",
        "bytes/request"
    );
    let mut rows = Vec::new();
    for (name, durability) in [("power", Durability::Power), ("process", Durability::Process)] {
        for concurrent in [1, 8, 64, 512] {
            let path = folder.path().join(format!("{name}-{concurrent}"));
            let row = commits(&path, durability, concurrent);
            println!(
                "{name:<10} {concurrent:>11} {:>12.0} {:>14.0} {:>14.0} {:>10.1} {:>14}",
                row.per_second, row.p50, row.p99, row.batch, row.bytes
            );
            rows.push(format!(
                r#"{{"durability":"{name}","concurrent":{concurrent},"requests_per_s":{:.0},"added_p50_us":{:.0},"added_p99_us":{:.0},"entries_per_commit":{:.1},"bytes_per_request":{}}}"#,
                row.per_second, row.p50, row.p99, row.batch, row.bytes
            ));
        }
    }
    let large = large(&folder.path().join("large"), records);
    println!(
        "\n{{\"bench\":\"ledger\",\"fdatasync_p50_us\":{},\"fdatasync_p99_us\":{},\"commits\":[{}],{large}}}",
        sync.0,
        sync.1,
        rows.join(",")
    );
}

/// What one concurrency comes to.
struct Row {
    per_second: f64,
    p50: f64,
    p99: f64,
    batch: f64,
    /// On disk, for the start and the end of a request.
    bytes: u64,
}

/// Requests that each wait for their start and for their end, so many at a time.
fn commits(folder: &Path, durability: Durability, concurrent: u64) -> Row {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger =
            Ledger::open(LedgerSettings { durability, ..settings(folder) }).unwrap().ledger;
        let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let clients: Vec<_> = (0..concurrent)
            .map(|_| {
                let (ledger, next) = (ledger.clone(), Arc::clone(&next));
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while began.elapsed() < FOR {
                        let number = next.fetch_add(1, Relaxed);
                        let (first, last) = (started(number), record(number));
                        let asked = Instant::now();
                        let ticket = ledger.start(&first, "set").await.unwrap();
                        ticket.progress(7, 1);
                        ledger.finish(ticket, last).await.unwrap();
                        took.push(asked.elapsed());
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await.unwrap());
        }
        let seconds = began.elapsed().as_secs_f64();
        let state = ledger.state();
        ledger.close().await.unwrap();
        let (p50, p99) = percentiles(&mut took);
        #[expect(clippy::cast_precision_loss, reason = "for a table")]
        let batch = state.batch.sum / state.commits as f64;
        #[expect(clippy::cast_precision_loss, reason = "for a table")]
        let per_second = took.len() as f64 / seconds;
        let bytes = size(folder) / (took.len() as u64).max(1);
        Row { per_second, p50, p99, batch, bytes }
    })
}

/// A ledger of so many records: bytes, opening, verifying.
fn large(folder: &Path, records: u64) -> String {
    let began = Instant::now();
    let mut writer = LedgerWriter::create(folder).unwrap();
    for number in 1..=records {
        writer.append(&Stored { seq: Seq(number), number, record: record(number) }).unwrap();
    }
    writer.finish().unwrap();
    let wrote = began.elapsed();
    let bytes = size(folder);
    let began = Instant::now();
    let opened = Ledger::open(settings(folder)).unwrap();
    let open = began.elapsed();
    let files = opened.ledger.state().partitions;
    drop(opened);
    let began = Instant::now();
    let verified = verify(folder, None, |_| {}).unwrap();
    assert_eq!(verified.records, records);
    let verifying = began.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "for a table")]
    let rate = |took: Duration| records as f64 / took.as_secs_f64();
    println!(
        "\n{records} records in {files} files: {} bytes each, written {:.0}/s, opened in {:.1} ms, verified {:.0}/s",
        bytes / records.max(1),
        rate(wrote),
        open.as_secs_f64() * 1e3,
        rate(verifying)
    );
    format!(
        "\"records\":{records},\"files\":{files},\"bytes_per_record\":{},\"written_per_s\":{:.0},\"open_ms\":{:.1},\"verified_per_s\":{:.0}",
        bytes / records.max(1),
        rate(wrote),
        open.as_secs_f64() * 1e3,
        rate(verifying)
    )
}

/// Bytes of all files of a ledger.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Median and 99th percentile of a write and its fdatasync, in microseconds.
fn fdatasync(folder: &Path) -> (u128, u128) {
    let mut file = std::fs::File::create(folder.join("sync")).unwrap();
    let mut took: Vec<Duration> = (0..500)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    (took[250].as_micros(), took[495].as_micros())
}

/// Median and 99th percentile in microseconds.
fn percentiles(took: &mut [Duration]) -> (f64, f64) {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e6;
    (at(50), at(99))
}
