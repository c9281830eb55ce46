//! What was typed, before defaults: one field for each setting.
//!
//! No secret is among them: flags show in the list of processes, and files are kept in
//! repositories. See `secret`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::exporter::GivenExporter;

/// Every setting, each as a flag, a `TOLLGATE_*` variable and a key of the file.
#[derive(Clone, Debug, Default, clap::Args, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Given {
    /// TOML file with any of the other settings as keys, such as `listen = "0.0.0.0:8080"`
    #[arg(long, env = "TOLLGATE_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Address to serve on [default: 127.0.0.1:8080]
    #[arg(long, env = "TOLLGATE_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Folder for everything that is written, spans.ndjson included [default: tollgate-data]
    #[arg(long, env = "TOLLGATE_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Folder of plugins, watched while running [default: `plugins` beside the program]
    #[arg(long, env = "TOLLGATE_PLUGINS", value_name = "DIR")]
    pub plugins: Option<PathBuf>,

    /// Public minisign keys; where there are any, each plugin needs a signature by one of
    /// them [default: none]
    #[arg(long, env = "TOLLGATE_PLUGIN_KEYS", value_name = "KEY,..", value_delimiter = ',')]
    pub plugin_keys: Option<Vec<String>>,

    /// Address of the admin API and of /metrics [default: none, neither is served]
    #[arg(long, env = "TOLLGATE_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,

    /// Addresses to take spans at by OTLP, over gRPC and HTTP alike: 127.0.0.1:4317,127.0.0.1:4318
    /// are the usual ones [default: none, no spans are taken]
    #[arg(long, env = "TOLLGATE_OTLP_LISTEN", value_name = "ADDR,..", value_delimiter = ',')]
    pub otlp_listen: Option<Vec<SocketAddr>>,

    /// PEM file of the certificate to take spans under TLS with, read again when it changes
    /// [default: none, TLS is for a proxy in front]
    #[arg(long, env = "TOLLGATE_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_certificate: Option<PathBuf>,

    /// PEM file of the key of that certificate, without a password
    #[arg(long, env = "TOLLGATE_OTLP_KEY", value_name = "FILE")]
    pub otlp_key: Option<PathBuf>,

    /// MiB, not compressed, that each key may send in a minute of spans, metrics and logs together; all
    /// senders without a key share one allowance [default: none]
    #[arg(long, env = "TOLLGATE_OTLP_MIB_PER_MINUTE", value_name = "N")]
    pub otlp_mib_per_minute: Option<u64>,

    /// File with the token of the admin API; or set TOLLGATE_ADMIN_TOKEN to the token itself
    /// [default: none]
    #[arg(long, env = "TOLLGATE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// Model to run in this process: demo, a folder, a GGUF file, a Hugging Face id, or none; the
    /// name that it is asked for by may stand before it. Repeated: as many models, each with a
    /// thread and with memory of its own [default: demo; none where there are backends]
    #[arg(
        long,
        env = "TOLLGATE_MODEL",
        value_name = "[NAME=]demo|FOLDER|FILE.gguf|HF-ID|none",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "one_or_more", default)]
    #[schemars(with = "Option<OneOrMore>")]
    pub model: Option<Vec<String>>,

    /// TOML file of other servers to forward to, watched while running [default: none]
    #[arg(long, env = "TOLLGATE_BACKENDS", value_name = "FILE")]
    pub backends: Option<PathBuf>,

    /// TOML file of API keys, limits and budgets, watched while running; `tollgate key` edits it.
    /// Or set TOLLGATE_KEYS to a list of `tenant:key` [default: none, everybody is let in]
    #[arg(long, env = "TOLLGATE_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,

    /// Let everybody in without a key also where others than this machine can reach the gateway
    /// [default: false]
    #[arg(long, env = "TOLLGATE_ANONYMOUS", value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous: Option<bool>,

    /// File with the address of a Redis that gateways share limits and budgets through; or set
    /// TOLLGATE_REDIS_URL to the address itself [default: none, each counts by itself]
    #[arg(long, env = "TOLLGATE_REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,

    /// PEM file of the authorities that are trusted instead of the system's where that address begins
    /// with rediss:// [default: the system's]
    #[arg(long, env = "TOLLGATE_REDIS_CA_FILE", value_name = "FILE")]
    pub redis_ca_file: Option<PathBuf>,

    /// What happens to requests while Redis is away: no limits, none served, or limits of this
    /// gateway by itself [default: local]
    #[arg(long, env = "TOLLGATE_REDIS_AWAY", value_enum)]
    pub redis_away: Option<RedisAway>,

    /// How traces are shown on standard output [default: tree]
    #[arg(long, env = "TOLLGATE_CONSOLE", value_enum)]
    pub console: Option<Console>,

    /// What is logged on standard error, as in `info,tollgate_engine=debug` [default: info]
    #[arg(long, env = "TOLLGATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How the log looks: text for people, or one JSON object a line [default: text]
    #[arg(long, env = "TOLLGATE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What a recorded request survives: a power cut, or only the end of the process, which is
    /// faster [default: power]
    #[arg(long, env = "TOLLGATE_LEDGER_DURABILITY", value_enum)]
    pub ledger_durability: Option<Durability>,

    /// Days after which records are deleted that every exporter has passed [default: never]
    #[arg(long, env = "TOLLGATE_LEDGER_RETAIN_DAYS", value_name = "N")]
    pub ledger_retain_days: Option<u64>,

    /// MiB of ledger beyond which the oldest records are deleted that every exporter has passed
    /// [default: none]
    #[arg(long, env = "TOLLGATE_LEDGER_RETAIN_MIB", value_name = "N")]
    pub ledger_retain_mib: Option<u64>,

    /// MiB of ledger beyond which requests are refused [default: none]
    #[arg(long, env = "TOLLGATE_LEDGER_BUDGET_MIB", value_name = "N")]
    pub ledger_budget_mib: Option<u64>,

    /// MiB that must be free on the disk, or requests are refused [default: 64]
    #[arg(long, env = "TOLLGATE_LEDGER_MIN_FREE_MIB", value_name = "N")]
    pub ledger_min_free_mib: Option<u64>,

    /// MiB after which a new file of the ledger is begun [default: 256]
    #[arg(long, env = "TOLLGATE_LEDGER_PARTITION_MIB", value_name = "N")]
    pub ledger_partition_mib: Option<u64>,

    /// Patterns of tenants whose prompts and answers are kept on record and on spans; `*` is any
    /// text [default: none]
    #[arg(long, env = "TOLLGATE_CAPTURE_CONTENT", value_name = "TENANT", value_delimiter = ',')]
    pub capture_content: Option<Vec<String>>,

    /// KiB of a prompt, and of an answer, that are kept at most [default: 16]
    #[arg(long, env = "TOLLGATE_CAPTURE_KIB", value_name = "N")]
    pub capture_kib: Option<u32>,

    /// Largest request body in bytes [default: 1048576]
    #[arg(long, env = "TOLLGATE_MAX_BODY_BYTES", value_name = "N")]
    pub max_body_bytes: Option<usize>,

    /// Where models are computed: `cpu`, an NVIDIA GPU as `cuda` or `cuda:N`, or the first GPU if this
    /// build can use one and there is one [default: auto]
    #[arg(long, env = "TOLLGATE_DEVICE", value_name = "DEVICE")]
    pub device: Option<String>,

    /// Requests that share the forward passes of the model in this process [default: 8]
    #[arg(long, env = "TOLLGATE_MAX_RUNNING", value_name = "N")]
    pub max_running: Option<usize>,

    /// MiB for keys and values of each model in this process, which are never exceeded; of the GPU's
    /// memory for a model there [default: enough for `max-running` whole contexts, at most 2048]
    #[arg(long, env = "TOLLGATE_KV_MEMORY_MIB", value_name = "N")]
    pub kv_memory_mib: Option<usize>,

    /// Most tokens of one forward pass: the more, the sooner long prompts are read; the fewer, the
    /// less others wait for that [default: 256]
    #[arg(long, env = "TOLLGATE_MAX_STEP_TOKENS", value_name = "N")]
    pub max_step_tokens: Option<usize>,

    /// Requests that may wait for the engine; one more is answered 429 [default: 256]
    #[arg(long, env = "TOLLGATE_MAX_QUEUED", value_name = "N")]
    pub max_queued: Option<usize>,

    /// Seconds after which a client that stops reading counts as gone [default: 30]
    #[arg(long, env = "TOLLGATE_STALL_SECONDS", value_name = "N")]
    pub stall_seconds: Option<u64>,

    /// Seconds that requests in flight may take to finish at shutdown [default: 30]
    #[arg(long, env = "TOLLGATE_DRAIN_SECONDS", value_name = "N")]
    pub drain_seconds: Option<u64>,

    /// `[[exporter]]` tables of the file
    #[arg(skip)]
    #[serde(rename = "exporter")]
    pub exporters: Option<Vec<GivenExporter>>,
}

/// How traces are shown on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// A tree for people.
    Tree,
    /// One JSON object a line.
    Json,
    /// Not at all.
    Off,
}

/// What happens to requests while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedisAway {
    /// They are served without limits.
    Open,
    /// They are refused.
    Closed,
    /// Each gateway limits them by itself.
    #[default]
    Local,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What a recorded request survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A power cut.
    #[default]
    Power,
    /// The end of the process, but not a power cut.
    Process,
}

/// A text, or a list of texts.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string or an array of strings")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(match Option::deserialize(from)? {
        Some(OneOrMore::One(one)) => Some(vec![one]),
        Some(OneOrMore::More(all)) => Some(all),
        None => None,
    })
}

impl Given {
    /// The counts that must not be 0, by their names.
    pub(crate) fn at_least_one(&self) -> [(&'static str, Option<u64>); 11] {
        let wide = |count: Option<usize>| count.map(|count| count as u64);
        [
            ("max-running", wide(self.max_running)),
            ("max-step-tokens", wide(self.max_step_tokens)),
            ("kv-memory-mib", wide(self.kv_memory_mib)),
            ("max-queued", wide(self.max_queued)),
            ("max-body-bytes", wide(self.max_body_bytes)),
            ("stall-seconds", self.stall_seconds),
            ("otlp-mib-per-minute", self.otlp_mib_per_minute),
            ("ledger-retain-days", self.ledger_retain_days),
            ("ledger-retain-mib", self.ledger_retain_mib),
            ("ledger-budget-mib", self.ledger_budget_mib),
            ("ledger-partition-mib", self.ledger_partition_mib),
        ]
    }

    /// These settings, each missing one taken from `other`.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            config: self.config.or(other.config),
            listen: self.listen.or(other.listen),
            data_dir: self.data_dir.or(other.data_dir),
            plugins: self.plugins.or(other.plugins),
            plugin_keys: self.plugin_keys.or(other.plugin_keys),
            admin_listen: self.admin_listen.or(other.admin_listen),
            otlp_listen: self.otlp_listen.or(other.otlp_listen),
            otlp_certificate: self.otlp_certificate.or(other.otlp_certificate),
            otlp_key: self.otlp_key.or(other.otlp_key),
            otlp_mib_per_minute: self.otlp_mib_per_minute.or(other.otlp_mib_per_minute),
            admin_token_file: self.admin_token_file.or(other.admin_token_file),
            model: self.model.or(other.model),
            backends: self.backends.or(other.backends),
            keys_file: self.keys_file.or(other.keys_file),
            anonymous: self.anonymous.or(other.anonymous),
            redis_url_file: self.redis_url_file.or(other.redis_url_file),
            redis_ca_file: self.redis_ca_file.or(other.redis_ca_file),
            redis_away: self.redis_away.or(other.redis_away),
            console: self.console.or(other.console),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            ledger_durability: self.ledger_durability.or(other.ledger_durability),
            ledger_retain_days: self.ledger_retain_days.or(other.ledger_retain_days),
            ledger_retain_mib: self.ledger_retain_mib.or(other.ledger_retain_mib),
            ledger_budget_mib: self.ledger_budget_mib.or(other.ledger_budget_mib),
            ledger_min_free_mib: self.ledger_min_free_mib.or(other.ledger_min_free_mib),
            ledger_partition_mib: self.ledger_partition_mib.or(other.ledger_partition_mib),
            capture_content: self.capture_content.or(other.capture_content),
            capture_kib: self.capture_kib.or(other.capture_kib),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            device: self.device.or(other.device),
            max_running: self.max_running.or(other.max_running),
            kv_memory_mib: self.kv_memory_mib.or(other.kv_memory_mib),
            max_step_tokens: self.max_step_tokens.or(other.max_step_tokens),
            max_queued: self.max_queued.or(other.max_queued),
            stall_seconds: self.stall_seconds.or(other.stall_seconds),
            drain_seconds: self.drain_seconds.or(other.drain_seconds),
            exporters: self.exporters.or(other.exporters),
        }
    }
}
