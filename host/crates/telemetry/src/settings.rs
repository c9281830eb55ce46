//! Which exporters there are, and how each works.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tollgate_domain::sampling::TraceRules;

/// One exporter.
#[derive(Clone, Debug)]
pub struct ExporterSettings {
    /// Names its cursor in the ledger; no two have the same.
    pub name: String,
    /// Where it begins in a ledger that it has never read.
    pub start_at: StartAt,
    /// How it waits for whole traces; none: spans leave as they come.
    pub traces: Option<TraceRules>,
    /// Where the spans go.
    pub sink: SinkSettings,
}

impl ExporterSettings {
    /// An exporter of new records that every filter applies to.
    #[must_use]
    pub fn new(name: &str, sink: SinkSettings) -> Self {
        Self { name: name.to_owned(), start_at: StartAt::default(), traces: None, sink }
    }
}

/// Where a new exporter begins in an old ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At its end: only what comes from now on.
    #[default]
    Now,
    /// At the oldest record that is still there.
    Beginning,
}

/// Where an exporter's spans go.
#[derive(Clone, Debug)]
pub enum SinkSettings {
    /// Standard output.
    Console {
        /// How they look.
        format: ConsoleFormat,
        /// Colours if it is a terminal; false under `NO_COLOR`.
        colour: bool,
    },
    /// A file, one JSON object a span.
    Ndjson(FileSettings),
    /// A file of OTLP/JSON lines, which an OpenTelemetry Collector reads.
    OtlpJson(FileSettings),
    /// An OTLP receiver.
    Otlp(OtlpSettings),
}

/// How spans look on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleFormat {
    /// A tree for each trace, for people.
    #[default]
    Tree,
    /// The lines of the NDJSON file.
    Json,
}

/// A file that spans are appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The file that is written now.
    pub path: PathBuf,
    /// When it is put aside and the next is begun.
    pub rotation: Rotation,
    /// Whether it is made for its owner alone; else the umask says for whom.
    pub private: bool,
}

impl FileSettings {
    /// A file that grows for ever.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rotation: Rotation::default(), private: false }
    }
}

/// When a file is put aside, and what becomes of it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Before it would be larger than this; `None`: never for its size.
    pub max_bytes: Option<u64>,
    /// With the first batch after this long; `None`: never for its age.
    pub max_age: Option<Duration>,
    /// How many files that were put aside are kept; `None`: all.
    pub keep: Option<usize>,
    /// How files that were put aside are compressed.
    pub compress: Option<Compression>,
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
    /// JSON over HTTP/1.1.
    HttpJson,
}

/// How OTLP requests and files that were put aside are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard; of OTLP over HTTP only.
    Zstd,
}

/// One OTLP receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// How to speak to it.
    pub protocol: Protocol,
    /// Its whole URL, for HTTP with the path of the signal.
    pub endpoint: String,
    /// Sent with every request. Secrets: never logged.
    pub headers: Vec<(String, String)>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Compression of requests.
    pub compression: Option<Compression>,
    /// PEM file of the authorities to trust instead of the usual ones.
    pub certificate: Option<PathBuf>,
    /// PEM files of our own certificate and its key, for receivers that ask for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

impl OtlpSettings {
    /// The default receiver of traces over `protocol`, on this machine.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        let endpoint = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf | Protocol::HttpJson => "http://localhost:4318/v1/traces",
        };
        Self {
            protocol,
            endpoint: endpoint.to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            compression: None,
            certificate: None,
            client_certificate: None,
        }
    }
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header_names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("OtlpSettings")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint)
            .field("header_names", &header_names)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
