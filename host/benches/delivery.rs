//! What delivery costs: `cargo xtask bench ledger [--delivered N]`.
//!
//! The program itself, on a ledger of N records of five spans each, delivers them to a file and to a receiver on this
//! machine, with the bundled plugins and without. A span's share of a core is the processor time of the gateway's process;
//! the receiver, a thread of this one, is not in it. Start-up is left out: the clock runs from a tenth of the records on.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tollgate_domain::record::Phases;
use tollgate_domain::time::Interval;
use tollgate_domain::{Record, RequestId, SpanId, TraceId, UnixNanos};
use tollgate_ledger::{LedgerReader, LedgerWriter, Seq, Stored};
use tollgate_summary::testing::{self, NEW_YEAR};

/// Of a request that was served: the root and four phases.
const SPANS: u64 = 5;
/// Clock ticks of a second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;
const BUNDLED: [&str; 4] =
    ["cost_per_token", "cost_device_seconds", "enrich_labels", "filter_redact"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|a| a == "--delivered");
    let given = given.and_then(|at| arguments.get(at + 1));
    let records: u64 = given.map_or(100_000, |number| number.parse().unwrap());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let ledger = folder.path().join("ledger");
    fill(&ledger, records);
    let receiver = receiver();
    let ndjson = "[[exporter]]\nkind = \"ndjson\"\nstart = \"beginning\"\n".to_owned();
    let otlp = format!(
        "[[exporter]]\nkind = \"otlp\"\nstart = \"beginning\"\nprotocol = \"http/protobuf\"\nendpoint = \"{receiver}\"\n"
    );
    println!(
        "\n{:<16} {:<8} {:>12} {:>20} {:>14}",
        "exporters", "plugins", "spans/s", "spans/s per core", "us per span"
    );
    let mut rows = Vec::new();
    for (name, config) in
        [("ndjson", &ndjson), ("otlp", &otlp), ("both", &(ndjson.clone() + &otlp))]
    {
        for (plugins, files) in [("none", &BUNDLED[..0]), ("bundled", &BUNDLED[..])] {
            let (per_second, per_core) = deliver(folder.path(), &ledger, config, files, records);
            let each = 1e6 / per_core;
            println!("{name:<16} {plugins:<8} {per_second:>12.0} {per_core:>20.0} {each:>14.2}");
            rows.push(format!(
                r#"{{"exporters":"{name}","plugins":"{plugins}","spans_per_s":{per_second:.0},"spans_per_s_per_core":{per_core:.0}}}"#
            ));
        }
    }
    println!("\n{{\"bench\":\"delivery\",\"records\":{records},\"rows\":[{}]}}", rows.join(","));
}

/// A ledger of so many records.
fn fill(ledger: &Path, records: u64) {
    let mut writer = LedgerWriter::create(ledger).unwrap();
    for number in 1..=records {
        writer.append(&Stored { seq: Seq(number), number, record: record(number) }).unwrap();
    }
    writer.finish().unwrap();
}

/// A request that was served, with every phase.
fn record(number: u64) -> Record {
    let (began, pico) = (NEW_YEAR + number * 1_000_000, 4_000_000);
    let tenant = format!("tenant-{}", number % 3);
    let mut record = testing::record(&tenant, "mistral-7b", began, testing::priced(pico));
    record.id = RequestId(format!("{number:032x}"));
    (record.trace.trace_id, record.trace.root) = (TraceId(u128::from(number)), SpanId(number << 8));
    let at = |millis| UnixNanos(began).plus(Duration::from_millis(millis));
    let phase = |from, to| Some(Interval::new(at(from), at(to)));
    record.phases = Phases {
        request: Interval::new(at(0), at(30)),
        tokenize: phase(0, 1),
        queue: phase(1, 2),
        prefill: phase(2, 10),
        decode: phase(10, 29),
        first_token: Some(at(11)),
    };
    record
}

/// Spans per second, and per second of processor time.
fn deliver(
    folder: &Path,
    ledger: &Path,
    config: &str,
    plugins: &[&str],
    records: u64,
) -> (f64, f64) {
    let data = tempfile::tempdir_in(folder).unwrap();
    let copy = data.path().join("ledger");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(ledger).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let exporters = config.matches("[[exporter]]").count() as u64;
    let gateway = Gateway::start(data.path(), config, plugins);
    let reader = LedgerReader::open(&copy).unwrap();
    let delivered = || -> u64 {
        let cursors = reader.cursors().unwrap();
        cursors.iter().map(|(_, cursor)| cursor.records).sum()
    };
    let all = records * exporters;
    let until = |so_many: u64| {
        while delivered() < so_many {
            thread::sleep(Duration::from_millis(10));
        }
        (delivered(), Instant::now(), gateway.processor_seconds())
    };
    let (first, began, used) = until(all / 10);
    let (last, ended, used_at_end) = until(all);
    let spans = ((last - first) * SPANS) as f64;
    (spans / (ended - began).as_secs_f64(), spans / (used_at_end - used))
}

struct Gateway(Child);

impl Gateway {
    fn start(data: &Path, config: &str, plugins: &[&str]) -> Self {
        let folder = data.join("plugins-given");
        fs::create_dir(&folder).unwrap();
        for name in plugins {
            let file = format!("{name}.wasm");
            fs::copy(components().join(&file), folder.join(file)).unwrap();
        }
        let file = data.join("tollgate.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(data).arg("--plugins").arg(folder).arg("--config").arg(file);
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(silent.spawn().unwrap())
    }

    /// Of all its threads, since it began.
    fn processor_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // The name of the program, in brackets, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        ticks / TICKS
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn components() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/wasm32-wasip2/release")
}

/// Takes whatever is posted to it.
fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || while take(&stream).is_some() {});
        }
    });
    url
}

/// One request; none once the connection is closed.
fn take(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("content-length:") {
            length = bytes.trim().parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let body = length?;
    std::io::copy(&mut reader.take(body), &mut std::io::sink()).ok()?;
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(answer.as_bytes()).ok()
}
