//! `[[exporter]]` tables of the file: where spans go.
//!
//! A key that means nothing for the kind of exporter is a fault, like one that means nothing at
//! all. Secrets are named by a variable or a file rather than written down, and never shown.

mod table;
mod traces;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_domain::sampling::TraceRules;

pub use self::table::{GivenExporter, GivenHeader};
pub(crate) use self::table::{KEYS_OF_KINDS, TRACE_KEYS, remove_unknown_keys};
use crate::given::Console;
use crate::ledger::bytes;
use crate::secret::{self, Secret};

/// Longest name of an exporter.
pub(crate) const LONGEST_NAME: usize = 64;

/// One place that spans go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    /// Names its place in the ledger; no two have the same.
    pub name: String,
    /// Where it begins in a ledger that it has never read.
    pub start: StartAt,
    /// How it waits for whole traces; none: spans leave as they come.
    pub traces: Option<TraceRules>,
    /// Where the spans go.
    pub destination: Destination,
}

/// Where an exporter begins in a ledger that it has never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartAt {
    /// At its end.
    #[default]
    Now,
    /// At its oldest record.
    Beginning,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Console(Console),
    /// A file, one JSON object a span.
    Ndjson(SpanFile),
    /// A file of OTLP/JSON lines.
    OtlpJson(SpanFile),
    /// An OTLP receiver.
    Otlp(Receiver),
}

/// A file of spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanFile {
    /// The file that is written.
    pub path: PathBuf,
    /// Size before which it is put aside.
    pub rotate_bytes: Option<u64>,
    /// Age at which it is put aside.
    pub rotate_after: Option<Duration>,
    /// How many files that were put aside are kept; `None`: all.
    pub keep: Option<usize>,
    /// How files that were put aside are compressed.
    pub compress: Option<Compression>,
}

/// An OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its whole URL, for HTTP with the path.
    pub endpoint: String,
    /// How to speak to it.
    pub protocol: Protocol,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// How requests are compressed.
    pub compression: Option<Compression>,
    /// PEM file of the authorities to trust instead of the usual ones.
    pub certificate: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Protobuf over HTTP.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON over HTTP.
    #[serde(rename = "http/json")]
    HttpJson,
}

/// How requests, or files that were put aside, are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// The exporters of a file without tables: the console and the tutorial's file.
pub(crate) fn by_default(console: Console, data_dir: &Path) -> Vec<Exporter> {
    let exporter = |name: &str, destination| Exporter {
        name: name.to_owned(),
        start: StartAt::default(),
        traces: None,
        destination,
    };
    let file = SpanFile {
        path: data_dir.join("spans.ndjson"),
        rotate_bytes: None,
        rotate_after: None,
        keep: None,
        compress: None,
    };
    let console =
        (console != Console::Off).then(|| exporter("console", Destination::Console(console)));
    console.into_iter().chain([exporter("ndjson", Destination::Ndjson(file))]).collect()
}

/// The exporters of all tables, and whatever is wrong with them. `console` is what was asked for
/// outside of them, `variable` looks a variable of the environment up.
pub(crate) fn resolve(
    tables: Vec<GivenExporter>,
    console: Option<Console>,
    data_dir: &Path,
    variable: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Vec<Exporter> {
    let mut exporters = Vec::with_capacity(tables.len());
    for (at, table) in tables.into_iter().enumerate() {
        let place = table.place(at);
        let mut said = Vec::new();
        exporters.extend(one(table, data_dir, &variable, &mut said));
        faults.extend(said.into_iter().map(|fault| format!("{place}: {fault}")));
    }
    if let Some(console) = console {
        let is_console = |e: &Exporter| matches!(e.destination, Destination::Console(_));
        if exporters.iter().any(is_console) {
            faults.push(
                "console is set and there is an [[exporter]] of kind console; keep one of them"
                    .to_owned(),
            );
        } else if console != Console::Off {
            exporters.extend(by_default(console, data_dir).into_iter().filter(is_console));
        }
    }
    faults.extend(twice(&exporters));
    exporters
}

/// Names and files that two exporters share.
fn twice(exporters: &[Exporter]) -> Vec<String> {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    let mut faults = Vec::new();
    for exporter in exporters {
        let name = &exporter.name;
        if !names.insert(name) {
            faults.push(format!("two exporters are named {name}; give each a name of its own"));
        }
        if let Destination::Ndjson(file) | Destination::OtlpJson(file) = &exporter.destination
            && !paths.insert(&file.path)
        {
            let path = file.path.display();
            faults.push(format!("two exporters write to {path}; give each a path of its own"));
        }
    }
    faults
}

fn one(
    mut table: GivenExporter,
    data_dir: &Path,
    variable: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Option<Exporter> {
    let Some(kind) = table.kind.take() else {
        faults.push("kind is missing; it is console, ndjson, otlp-json or otlp".to_owned());
        return None;
    };
    let name = table.name.take().unwrap_or_else(|| kind.clone());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
        faults
            .push(format!("name is {name:?}; it must be 1 to {LONGEST_NAME} of a-z, 0-9, - and _"));
    }
    let start = table.start.take().unwrap_or_default();
    let traces = traces::resolve(&mut table, faults);
    let destination = match kind.as_str() {
        "console" => Destination::Console(console(&mut table, faults)),
        "ndjson" => Destination::Ndjson(file(&mut table, data_dir, "spans.ndjson", faults)),
        "otlp-json" => Destination::OtlpJson(file(&mut table, data_dir, "spans.jsonl", faults)),
        "otlp" => Destination::Otlp(receiver(&mut table, variable, faults)?),
        _ => {
            faults.push(format!("kind is {kind:?}; it must be console, ndjson, otlp-json or otlp"));
            return None;
        }
    };
    for key in table.left() {
        faults.push(format!("{key} means nothing for kind = {kind:?}; leave it out"));
    }
    Some(Exporter { name, start, traces, destination })
}

fn console(table: &mut GivenExporter, faults: &mut Vec<String>) -> Console {
    let console = table.format.take().unwrap_or(Console::Tree);
    if console == Console::Off {
        faults.push("format is \"off\"; leave the exporter out instead".to_owned());
    }
    console
}

fn file(
    table: &mut GivenExporter,
    data_dir: &Path,
    default: &str,
    faults: &mut Vec<String>,
) -> SpanFile {
    const HOUR: u64 = 60 * 60;
    let (mib, hours) = (table.rotate_mib.take(), table.rotate_hours.take());
    let keep = table.keep.take();
    let compress = compression("compress", table.compress.take(), faults);
    for (key, value) in [("rotate-mib", mib), ("rotate-hours", hours), ("keep", keep)] {
        if value == Some(0) {
            faults.push(format!("{key} is 0; it must be at least 1"));
        }
    }
    if mib.or(hours).is_none() && (keep.is_some() || compress.is_some()) {
        faults.push(
            "keep and compress are about files that were rotated; set rotate-mib or rotate-hours"
                .to_owned(),
        );
    }
    SpanFile {
        path: table.path.take().unwrap_or_else(|| data_dir.join(default)),
        rotate_bytes: mib.map(bytes),
        rotate_after: hours.map(|hours| Duration::from_secs(hours.saturating_mul(HOUR))),
        keep: keep.map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        compress,
    }
}

fn receiver(
    table: &mut GivenExporter,
    variable: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Option<Receiver> {
    let given = table.endpoint.take();
    let asked = table.protocol.take();
    let headers = headers(table, variable, faults);
    let timeout = table.timeout_seconds.take().unwrap_or(10);
    if timeout == 0 {
        faults.push("timeout-seconds is 0; it must be at least 1".to_owned());
    }
    let compression = compression("compression", table.compression.take(), faults);
    let certificate = table.certificate.take();
    let client_certificate = match (table.client_certificate.take(), table.client_key.take()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            faults.push("client-certificate and client-key belong together; set both".to_owned());
            None
        }
    };
    let Some((endpoint, protocol)) = endpoint(given.as_deref(), asked) else {
        faults.push(format!(
            "endpoint is {:?}; it must be a URL such as \"http://localhost:4317\"",
            given.unwrap_or_default()
        ));
        return None;
    };
    if protocol == Protocol::Grpc && compression == Some(Compression::Zstd) {
        faults.push("compression is \"zstd\"; over gRPC it is \"gzip\" or \"none\"".to_owned());
    }
    let timeout = Duration::from_secs(timeout);
    Some(Receiver {
        endpoint,
        protocol,
        headers,
        timeout,
        compression,
        certificate,
        client_certificate,
    })
}

/// The whole URL. Port 4317 means gRPC where nothing else is said; a URL without a path means the
/// usual one.
fn endpoint(given: Option<&str>, asked: Option<Protocol>) -> Option<(String, Protocol)> {
    let given = given.unwrap_or(match asked {
        Some(Protocol::Grpc) => "http://localhost:4317",
        _ => "http://localhost:4318",
    });
    let mut url = url::Url::parse(given).ok()?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return None;
    }
    let by_port = if url.port() == Some(4317) { Protocol::Grpc } else { Protocol::HttpProtobuf };
    let protocol = asked.unwrap_or(by_port);
    if protocol != Protocol::Grpc && url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Some((url.to_string(), protocol))
}

fn headers(
    table: &mut GivenExporter,
    variable: impl Fn(&str) -> Option<String>,
    faults: &mut Vec<String>,
) -> Vec<(String, Secret)> {
    let mut headers = Vec::new();
    for (name, given) in table.headers.take().into_iter().flatten() {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            faults.push(format!("headers has {name:?}, which is no name of a header"));
            continue;
        }
        let value = match given {
            GivenHeader::Text(text) => secret::header_value(text.reveal()),
            GivenHeader::File { file } => {
                secret::read(&file).and_then(|text| secret::header_value(&text))
            }
            GivenHeader::Env { env } => match variable(&env) {
                Some(text) => secret::header_value(&text),
                None => Err(format!("is in the variable {env}, which is not set")),
            },
        };
        match value {
            Ok(value) => headers.push((name, value)),
            Err(problem) => faults.push(format!("the value of header {name} {problem}")),
        }
    }
    headers
}

fn compression(key: &str, given: Option<String>, faults: &mut Vec<String>) -> Option<Compression> {
    match given?.as_str() {
        "none" => None,
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        other => {
            faults.push(format!("{key} is {other:?}; it must be gzip, zstd or none"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
