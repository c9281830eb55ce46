//! `kill -9` of a process that writes, rotates and compresses: what was acknowledged is there.

mod fixtures;

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fixtures::record;
use tollgate_domain::Resource;
use tollgate_telemetry::{
    Compression, Exporter, ExporterSettings, FileSettings, Rotation, SinkSettings, build_exporters,
    spans,
};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Set for the process that is killed: the folder, and the number of its first trace.
const FOLDER: &str = "TOLLGATE_TEST_KILLED_FOLDER";
const FIRST: &str = "TOLLGATE_TEST_KILLED_FIRST";

const KILLS: u64 = 25;

fn exporter(folder: &Path, compress: Compression) -> Fallible<Exporter> {
    let rotation =
        Rotation { max_bytes: Some(40_000), compress: Some(compress), ..Rotation::default() };
    let file = FileSettings { rotation, ..FileSettings::new(folder.join("spans.ndjson")) };
    let settings = vec![ExporterSettings::new("ndjson", SinkSettings::Ndjson(file))];
    build_exporters(settings, &Resource::default())?.pop().ok_or_else(|| "no exporter".into())
}

/// The process that is killed. Without its variables it is no test and does nothing.
#[tokio::test]
async fn writer() -> Fallible<()> {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else {
        return Ok(());
    };
    let first: u128 = first.parse()?;
    let compress = if first.is_multiple_of(2) { Compression::Gzip } else { Compression::Zstd };
    let mut exporter = exporter(Path::new(&folder), compress)?;
    let mut out = std::io::stdout();
    for number in first.. {
        let mut spans = spans(&record("completed"), None);
        for span in &mut spans {
            span.context.trace_id.0 = number;
        }
        exporter.send(&spans).await.map_err(|error| format!("{error:?}"))?;
        writeln!(out, "\ntaken {number}")?;
        out.flush()?;
    }
    Ok(())
}

/// Starts a writer, kills it after about `milliseconds`, and returns what was acknowledged.
fn run(folder: &Path, first: u128, milliseconds: u64) -> Fallible<Vec<u128>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "writer", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let (begun, has_begun) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut taken = Vec::new();
        for line in output.lines().map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("taken ") {
                taken.extend(number.parse::<u128>());
                let _ = begun.try_send(());
            }
        }
        taken
    });
    has_begun.recv_timeout(Duration::from_secs(30))?;
    std::thread::sleep(Duration::from_millis(milliseconds));
    child.kill()?;
    child.wait()?;
    reader.join().map_err(|_| "the reader failed".into())
}

/// The traces of all files, each as often as its root is there.
fn traces(folder: &Path) -> Fallible<Vec<u128>> {
    let mut traces = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let (mut file, mut text) = (File::open(&path)?, String::new());
        match path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("gz") => flate2::read::GzDecoder::new(file).read_to_string(&mut text)?,
            Some("zst") => zstd::Decoder::new(file)?.read_to_string(&mut text)?,
            Some("ndjson") => file.read_to_string(&mut text)?,
            _ => return Err(format!("left behind: {}", path.display()).into()),
        };
        for line in text.lines() {
            let span: serde_json::Value = serde_json::from_str(line)?;
            let field = |name: &str| span.get(name).and_then(serde_json::Value::as_str);
            if field("name") == Some("inference.request") {
                let id = field("trace_id").ok_or("no id")?;
                traces.push(u128::from_str_radix(id, 16)?);
            }
        }
    }
    Ok(traces)
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let mut acknowledged = Vec::new();
    for kill in 0..KILLS {
        let first = u128::from(kill) * 1_000_000 + 1;
        acknowledged.extend(run(folder.path(), first, kill * 7 % 60)?);
    }
    // The next start finishes what the last one left half done.
    let runtime = tokio::runtime::Runtime::new()?;
    let closed = runtime.block_on(async {
        exporter(folder.path(), Compression::Gzip)?.close(Duration::from_secs(60)).await?;
        Fallible::Ok(())
    });
    closed?;
    let files = fs::read_dir(folder.path())?.count();
    assert!(files > 10, "{files} files: too few to have been killed while rotating");
    let found = traces(folder.path())?;
    let unique: HashSet<u128> = found.iter().copied().collect();
    assert_eq!(found.len(), unique.len(), "no trace twice");
    let lost: Vec<_> = acknowledged.iter().filter(|trace| !unique.contains(trace)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), acknowledged.len());
    // One that was written as the process ended may not have been acknowledged.
    assert!(unique.len() - acknowledged.len() <= KILLS as usize);
    Ok(())
}
