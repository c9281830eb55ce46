//! A table as it was typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Protocol, StartAt};
use crate::given::Console;
use crate::resolved::unknown;
use crate::secret::Secret;

/// The kinds, and which keys mean something for each besides `kind`, `name` and `start`.
pub(crate) const KEYS_OF_KINDS: [(&str, &[&str]); 4] = [
    ("console", &["format"]),
    ("ndjson", FILE_KEYS),
    ("otlp-json", FILE_KEYS),
    ("otlp", OTLP_KEYS),
];

/// Keys of a table of any kind.
const COMMON_KEYS: &[&str] = &["name", "kind", "start"];
/// Keys of a table of any kind that are about whole traces.
pub(crate) const TRACE_KEYS: &[&str] = &[
    "trace-wait-seconds",
    "keep-errors",
    "keep-slower-seconds",
    "keep-cost",
    "sample",
    "trace-memory-mib",
];
const FILE_KEYS: &[&str] = &["path", "rotate-mib", "rotate-hours", "keep", "compress"];
const OTLP_KEYS: &[&str] = &[
    "endpoint",
    "protocol",
    "headers",
    "timeout-seconds",
    "compression",
    "certificate",
    "client-certificate",
    "client-key",
];

/// All keys of a table, each once.
pub(super) fn keys() -> Vec<&'static str> {
    let mut keys = COMMON_KEYS.to_vec();
    for key in TRACE_KEYS.iter().chain(KEYS_OF_KINDS.iter().flat_map(|(_, of_kind)| *of_kind)) {
        if !keys.contains(key) {
            keys.push(key);
        }
    }
    keys
}

/// One `[[exporter]]` table. Which keys it may have depends on its kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GivenExporter {
    /// Names its place in the ledger [default: its kind]
    pub name: Option<String>,
    /// `console`, `ndjson`, `otlp-json` or `otlp`
    pub kind: Option<String>,
    /// Where it begins in a ledger that it has never read [default: now]
    pub start: Option<StartAt>,
    /// Seconds after its first span at which a whole trace is decided, by all that came until then;
    /// what comes later follows [default: none, spans leave as they come]
    pub trace_wait_seconds: Option<u64>,
    /// Whole traces: whether all with an error leave [default: true]
    pub keep_errors: Option<bool>,
    /// Whole traces: all that took as many seconds leave
    pub keep_slower_seconds: Option<f64>,
    /// Whole traces: all that cost as much leave, as in `0.05 USD`
    pub keep_cost: Option<String>,
    /// Whole traces: share of all others that leave, from 0 to 1 [default: 1.0]
    pub sample: Option<f64>,
    /// Whole traces: MiB of spans that wait; beyond, the oldest trace is decided early [default: 256]
    pub trace_memory_mib: Option<u64>,
    /// console: how traces are shown [default: tree]
    pub format: Option<Console>,
    /// Files: what is written [default: spans.ndjson or spans.jsonl in the data folder]
    pub path: Option<PathBuf>,
    /// Files: size in MiB before which it is put aside
    pub rotate_mib: Option<u64>,
    /// Files: age in hours at which it is put aside
    pub rotate_hours: Option<u64>,
    /// Files: how many that were put aside are kept [default: all]
    pub keep: Option<u64>,
    /// Files: how those are compressed, `gzip`, `zstd` or `none` [default: none]
    pub compress: Option<String>,
    /// otlp: URL of the receiver
    pub endpoint: Option<String>,
    /// otlp: how to speak to it [default: gRPC on port 4317, else http/protobuf]
    pub protocol: Option<Protocol>,
    /// otlp: sent with every request
    pub headers: Option<BTreeMap<String, GivenHeader>>,
    /// otlp: how long an attempt may take [default: 10]
    pub timeout_seconds: Option<u64>,
    /// otlp: how requests are compressed, `gzip`, `zstd` or `none` [default: none]
    pub compression: Option<String>,
    /// otlp: PEM file of the authorities to trust [default: the usual ones]
    pub certificate: Option<PathBuf>,
    /// otlp: PEM file of our own certificate
    pub client_certificate: Option<PathBuf>,
    /// otlp: PEM file of its key
    pub client_key: Option<PathBuf>,
}

/// Value of a header, or where it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "the value of a header is text, { env = \"VARIABLE\" } or { file = \"PATH\" }"
)]
pub enum GivenHeader {
    /// The value itself.
    Text(Secret),
    /// Of a variable.
    Env {
        /// The variable's name.
        env: String,
    },
    /// Of a file.
    File {
        /// The file's path.
        file: PathBuf,
    },
}

impl GivenExporter {
    /// What messages call it: the how-manieth, and its name or kind.
    pub(super) fn place(&self, at: usize) -> String {
        place(at, self.name.as_deref().or(self.kind.as_deref()))
    }

    /// The keys that are still set.
    pub(super) fn left(&self) -> Vec<&'static str> {
        let set = [
            ("name", self.name.is_some()),
            ("kind", self.kind.is_some()),
            ("start", self.start.is_some()),
            ("trace-wait-seconds", self.trace_wait_seconds.is_some()),
            ("keep-errors", self.keep_errors.is_some()),
            ("keep-slower-seconds", self.keep_slower_seconds.is_some()),
            ("keep-cost", self.keep_cost.is_some()),
            ("sample", self.sample.is_some()),
            ("trace-memory-mib", self.trace_memory_mib.is_some()),
            ("format", self.format.is_some()),
            ("path", self.path.is_some()),
            ("rotate-mib", self.rotate_mib.is_some()),
            ("rotate-hours", self.rotate_hours.is_some()),
            ("keep", self.keep.is_some()),
            ("compress", self.compress.is_some()),
            ("endpoint", self.endpoint.is_some()),
            ("protocol", self.protocol.is_some()),
            ("headers", self.headers.is_some()),
            ("timeout-seconds", self.timeout_seconds.is_some()),
            ("compression", self.compression.is_some()),
            ("certificate", self.certificate.is_some()),
            ("client-certificate", self.client_certificate.is_some()),
            ("client-key", self.client_key.is_some()),
        ];
        set.into_iter().filter_map(|(key, is_set)| is_set.then_some(key)).collect()
    }
}

fn place(at: usize, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("[[exporter]] number {} ({name})", at.saturating_add(1)),
        None => format!("[[exporter]] number {}", at.saturating_add(1)),
    }
}

/// Takes the keys out that mean nothing, and names for each the one that was probably meant.
pub(crate) fn remove_unknown_keys(tables: &mut toml::Value) -> Vec<String> {
    let known: Vec<String> = keys().into_iter().map(str::to_owned).collect();
    let mut faults = Vec::new();
    for (at, table) in tables.as_array_mut().into_iter().flatten().enumerate() {
        let Some(table) = table.as_table_mut() else { continue };
        let text = |key: &str| table.get(key).and_then(toml::Value::as_str);
        let place = place(at, text("name").or(text("kind")));
        let wrong: Vec<String> = table.keys().filter(|key| !known.contains(key)).cloned().collect();
        for key in wrong {
            table.remove(&key);
            faults.push(unknown(&format!("key of {place}"), &key, &known));
        }
    }
    faults
}
