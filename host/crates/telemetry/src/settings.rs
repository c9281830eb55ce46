//! Which exporters run, and how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Which exporters to start.
#[derive(Clone, Debug, Default)]
pub struct ExporterSettings {
    /// No exporter at all, whatever else is set: `OTEL_SDK_DISABLED`.
    pub disabled: bool,
    /// Spans on standard output.
    pub console: ConsoleFormat,
    /// Colours on the console if it is a terminal; false under `NO_COLOR`.
    pub colour: bool,
    /// Spans in a file, one JSON object a line.
    pub ndjson: Option<PathBuf>,
    /// Spans to an OTLP receiver.
    pub otlp: Option<OtlpSettings>,
}

/// How spans look on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsoleFormat {
    /// A tree for each trace, for people.
    Tree,
    /// The lines of the NDJSON file.
    Json,
    /// Not at all.
    #[default]
    Off,
}

impl ConsoleFormat {
    /// Reads `tree`, `json` or `off`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "tree" => Some(Self::Tree),
            "json" => Some(Self::Json),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
}

/// How OTLP is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard; over HTTP only.
    Zstd,
}

/// One OTLP receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// How to speak to it.
    pub protocol: Protocol,
    /// Its whole URL, for HTTP with the path of traces.
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
    /// How long a batch is retried before it counts as failed.
    pub retry_for: Duration,
}

impl OtlpSettings {
    /// The default receiver of `protocol`, on this machine.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        let endpoint = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::HttpProtobuf => "http://localhost:4318/v1/traces",
        };
        Self {
            protocol,
            endpoint: endpoint.to_owned(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            compression: None,
            certificate: None,
            client_certificate: None,
            retry_for: Duration::from_secs(300),
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
