//! `backends.toml`, read and checked: which servers there are, which models they serve to whom, and how patient we are.
//!
//! ```toml
//! balance = "least-loaded"        # or "round-robin"
//! retry-budget = 0.1              # 0 to 1: retries for each request, of those that a server may have worked on
//!
//! [breaker]
//! faults = 5                      # 1 to 1000: least faults in the window that open it, if they are half of the attempts
//! window-ms = 30000               # 1000 to 600000
//! pause-ms = 1000                 # 1 to 600000: the first pause; each failed probe doubles it
//! longest-pause-ms = 60000        # at most 3600000
//!
//! [[backend]]
//! name = "vllm-a"                 # must be there
//! url = "http://127.0.0.1:8000/v1" # must be there
//! kind = "openai"                 # or "anthropic"
//! provider = "vllm"               # gen_ai.provider.name; default: the kind; never "tollgate", which is this process
//! key-env = "VLLM_KEY"            # or key-file; default: no key is sent
//! models = ["small", { as = "gpt-4o", name = "meta-llama/Llama-3.3-70B-Instruct" }, "qwen*"]  # default: ["*"]
//! tenants = ["acme-*"]            # default: all
//! weight = 1                      # 1 to 1000
//! max-in-flight = 256             # default: no limit
//! connect-timeout-ms = 2000       # to the server, or to its proxy, and again for that one's answer to CONNECT
//! first-byte-timeout-ms = 300000
//! idle-timeout-ms = 120000        # between two pieces of an answer
//! ca-file = "ca.pem"              # trusted instead of the system's
//! proxy = "http://proxy:3128"     # or https://, with USER:PASSWORD@ too; or "none"; default: HTTPS_PROXY, HTTP_PROXY,
//!                                 # ALL_PROXY and NO_PROXY of the environment, but for what is loopback
//! health = { path = "/health", every-ms = 5000, timeout-ms = 2000 }  # path: from the root of the server
//! retries = 1                     # 0 to 10: further attempts at this backend, once all others have been tried; none after an
//!                                 # answer that would come out the same (401, 403, 404, 407, a redirect)
//! inject-usage = true             # false for a server that refuses `stream_options`
//! pass-through = true             # what else below /v1 goes on with the backend's key: true, all but paths that are known to be
//!                                 # the operator's (`passing.rs`); false, nothing; ["/files", "/batches"], these and what is below
//! max-event-mib = 16              # 1 to 1024: of one event of a stream
//! max-answer-mib = 64             # 1 to 4096: of an answer that is not streamed
//! ```
//!
//! A model is served by the backends that name it, else by those with a pattern for it. `as` is what clients ask for, `name` what
//! the server is asked for, and what the price is looked up by. Relative paths start at the file's
//! folder.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::Uri;

use crate::error::UpstreamError;
use crate::matching::{Models, Tenants};
use crate::passing::PassThrough;
use crate::proxy::Proxy;
use crate::written;

/// How a server wants to be spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// OpenAI's API, as vLLM, llama.cpp's server and many others have it.
    #[default]
    Openai,
    /// Anthropic's Messages API; chat completions are translated.
    Anthropic,
}

impl Kind {
    /// Its name in `backends.toml`, and the default of `provider`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// Who of several goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// Whoever has the fewest requests under way for its weight.
    #[default]
    LeastLoaded,
    /// In turn, by weight.
    RoundRobin,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Configuration {
    pub balance: Balance,
    /// Retries earned by each request.
    pub retry_budget: f64,
    pub breaker: BreakerSettings,
    pub backends: Vec<BackendSettings>,
}

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerSettings {
    pub faults: u32,
    pub window: Duration,
    pub pause: Duration,
    pub longest_pause: Duration,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BackendSettings {
    pub name: String,
    /// Scheme and authority are there; the path has no `/` at its end.
    pub url: Uri,
    pub kind: Kind,
    pub provider: String,
    pub key: Option<Secret>,
    pub models: Models,
    pub tenants: Tenants,
    pub weight: u32,
    pub max_in_flight: Option<u32>,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub idle_timeout: Duration,
    /// PEM.
    pub ca: Option<Vec<u8>>,
    pub proxy: Option<Proxy>,
    pub health: Option<HealthSettings>,
    pub retries: u32,
    pub inject_usage: bool,
    pub pass_through: PassThrough,
    pub max_event: usize,
    pub max_answer: usize,
}

/// How a backend is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthSettings {
    /// From the root of the server.
    pub path: String,
    pub every: Duration,
    pub timeout: Duration,
}

/// A key, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Configuration {
    /// Reads the file and those it names.
    pub fn read(path: &Path) -> Result<Self, UpstreamError> {
        let text = written::read_text(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        written::parse(&text, folder, |name| std::env::var(name).ok()).map_err(
            |wrong| match wrong {
                written::Wrong::Here(problem) => {
                    UpstreamError::Configuration { path: path.to_owned(), problem }
                }
                written::Wrong::Elsewhere(error) => error,
            },
        )
    }
}
