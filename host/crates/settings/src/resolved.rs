//! What was typed plus defaults: the settings the program runs with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exporter::{self, Exporter};
use crate::file;
use crate::given::{Console, Given, LogFormat};
use crate::ledger::{self, LedgerKeeping};
use crate::names;
use crate::secret::{self, Secret};
use crate::tenancy::{self, Tenancy};

/// The settings the program runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Folder for everything that is written.
    pub data_dir: PathBuf,
    /// Folder of plugins.
    pub plugins: PathBuf,
    /// Public minisign keys, as they were written; none: no signature is asked for.
    pub plugin_keys: Vec<String>,
    /// Address of the admin API; none: there is no admin API.
    pub admin_listen: Option<SocketAddr>,
    /// Addresses to take other programs' spans at; none: none are taken.
    pub otlp_listen: Vec<SocketAddr>,
    /// PEM files of the certificate that they are taken under TLS with, and of its key.
    pub otlp_tls: Option<(PathBuf, PathBuf)>,
    /// Most bytes that a sender of those may send in a minute.
    pub otlp_bytes_per_minute: Option<u64>,
    /// Token of the admin API; there where it is not on loopback.
    pub admin_token: Option<Secret>,
    /// Models to run in this process; none: there is none. No two have one name.
    pub models: Vec<ModelChoice>,
    /// File of other servers to forward to.
    pub backends: Option<PathBuf>,
    /// Who is let in, and what limits are shared through.
    pub tenancy: Tenancy,
    /// Where spans go, besides what OpenTelemetry's variables add. Without `[[exporter]]` tables
    /// the console and `spans.ndjson` in the data folder.
    pub exporters: Vec<Exporter>,
    /// How the ledger is kept.
    pub ledger: LedgerKeeping,
    /// Filter of the log.
    pub log: String,
    /// How the log looks.
    pub log_format: LogFormat,
    /// Patterns of tenants whose prompts and answers are kept.
    pub capture_content: Vec<String>,
    /// Most bytes that are kept of a prompt, and of an answer.
    pub capture_bytes: usize,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Where models are computed, as it was written.
    pub device: String,
    /// Requests the engine works on at once, at least 1.
    pub max_running: usize,
    /// Bytes for keys and values of the model in this process; none: what suits it.
    pub kv_memory: Option<usize>,
    /// Most tokens of one forward pass, at least 1.
    pub max_step_tokens: usize,
    /// Requests that may wait for the engine.
    pub max_queued: usize,
    /// How long a client may stop reading before it counts as gone.
    pub stall: Duration,
    /// How long requests in flight may take to finish at shutdown.
    pub drain: Duration,
}

/// A model to run in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChoice {
    /// The name that it is asked for by; none: its own.
    pub name: Option<String>,
    /// Where it comes from, as it was written.
    pub source: String,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read.
    #[error("cannot read the settings file {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("in the settings file {}: {source}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Some names mean nothing, or some values are out of range.
    #[error("{}", faults.join("\n"))]
    Faulty {
        /// One line for each.
        faults: Vec<String>,
    },
}

/// Merges what was given (flags and variables, already merged by clap) with the file it names and
/// the defaults. `environment` holds all variables set, to find misspelt ones and the secrets;
/// `program` is the path of the running program.
///
/// # Errors
/// Says everything that is wrong at once, each with what to write instead.
pub fn resolve(
    given: Given,
    environment: impl IntoIterator<Item = (String, String)>,
    program: &Path,
) -> Result<Settings, SettingsError> {
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    let mut faults = unknown_variables(&environment);
    let mut mistyped = false;
    let given = match given.config.clone() {
        Some(path) => {
            let read = file::read(&path, &mut faults)?;
            mistyped = read.mistyped;
            given.or(read.given)
        }
        None => given,
    };
    faults.extend(zeros(&given));
    let token_file = given.admin_token_file.clone();
    let (console, tables) = (given.console, given.exporters.clone());
    let variable = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let tenancy = tenancy::resolve(&given, variable, &mut faults);
    if !mistyped && given.otlp_certificate.is_some() != given.otlp_key.is_some() {
        faults.push("otlp-certificate and otlp-key belong together; set both".to_owned());
    }
    let mut settings = with_defaults(given, tenancy, program);
    settings.exporters = match tables {
        None => exporter::by_default(console.unwrap_or(Console::Tree), &settings.data_dir),
        Some(tables) => {
            exporter::resolve(tables, console, &settings.data_dir, variable, &mut faults)
        }
    };
    faults.extend(ledger::faults(&settings.ledger));
    faults.extend(model_faults(&settings.models));
    if settings.plugin_keys.iter().any(|key| key.trim().is_empty()) {
        faults.push("plugin-keys has an empty key; leave it out".to_owned());
    }
    match secret::admin_token(variable(secret::ADMIN_TOKEN), token_file.as_deref()) {
        Ok(token) => settings.admin_token = token,
        Err(fault) => faults.push(fault),
    }
    faults.extend(unguarded(&settings));
    if faults.is_empty() { Ok(settings) } else { Err(SettingsError::Faulty { faults }) }
}

/// Counts of which none makes no sense.
fn zeros(given: &Given) -> impl Iterator<Item = String> {
    let zeros = given.at_least_one().into_iter().filter(|(_, count)| *count == Some(0));
    zeros.map(|(name, _)| format!("{name} is 0; it must be at least 1"))
}

impl Settings {
    /// Where clients and senders of spans are listened for, each with the name of its setting.
    pub fn listens(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let otlp = self.otlp_listen.iter().map(|address| ("otlp-listen", *address));
        [("listen", self.listen)].into_iter().chain(otlp)
    }
}

impl ModelChoice {
    /// From `NAME=SOURCE` or `SOURCE`. What begins like a path is one, whatever is in it.
    fn of(written: impl AsRef<str>) -> Self {
        let written = written.as_ref();
        match written.split_once('=') {
            Some((name, source)) if !written.starts_with(['.', '/', '~']) => {
                Self { name: Some(name.to_owned()), source: source.to_owned() }
            }
            _ => Self { name: None, source: written.to_owned() },
        }
    }
}

/// Names that are none, or of two models.
fn model_faults(models: &[ModelChoice]) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, model) in models.iter().enumerate() {
        let name = model.name.as_deref();
        if name.is_some_and(|name| name.trim().is_empty()) || model.source.trim().is_empty() {
            faults
                .push("model has an empty name or source; write SOURCE or NAME=SOURCE".to_owned());
        } else if models.iter().take(place).any(|other| other.name == model.name && name.is_some())
        {
            let name = name.unwrap_or_default();
            faults.push(format!("model names two models {name}; give each a name of its own"));
        }
    }
    faults
}

/// An admin API that others can reach needs a token.
fn unguarded(settings: &Settings) -> Option<String> {
    let address = settings.admin_listen?;
    let safe = address.ip().is_loopback() || settings.admin_token.is_some();
    (!safe).then(|| {
        format!(
            "admin-listen is {address}, which others can reach, and there is no token; put one \
             into a file that admin-token-file names or into {}, or listen on 127.0.0.1",
            secret::ADMIN_TOKEN
        )
    })
}

fn unknown_variables(environment: &[(String, String)]) -> Vec<String> {
    let known = names::variables();
    environment
        .iter()
        .filter(|(name, _)| name.starts_with("TOLLGATE_") && !known.contains(name))
        .map(|(name, _)| unknown("environment variable", name, &known))
        .collect()
}

/// The fault of a name that means nothing.
pub(crate) fn unknown(what: &str, name: &str, known: &[String]) -> String {
    match names::nearest(name, known) {
        Some(nearest) => format!("unknown {what}: {name}; did you mean {nearest}?"),
        None => format!("unknown {what}: {name}"),
    }
}

/// Where plugins are looked for, if nothing else is said.
#[must_use]
pub fn plugins_beside(program: &Path) -> PathBuf {
    program.parent().unwrap_or(Path::new(".")).join("plugins")
}

fn with_defaults(given: Given, tenancy: Tenancy, program: &Path) -> Settings {
    let ledger = ledger::keeping(&given);
    Settings {
        listen: given.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
        data_dir: given.data_dir.unwrap_or_else(|| "tollgate-data".into()),
        plugins: given.plugins.unwrap_or_else(|| plugins_beside(program)),
        plugin_keys: given.plugin_keys.unwrap_or_default(),
        admin_listen: given.admin_listen,
        otlp_listen: given.otlp_listen.unwrap_or_default(),
        otlp_tls: given.otlp_certificate.zip(given.otlp_key),
        otlp_bytes_per_minute: given.otlp_mib_per_minute.map(|mib| mib.saturating_mul(1 << 20)),
        admin_token: None,
        models: match (given.model, &given.backends) {
            (Some(models), _) => {
                models.iter().filter(|m| *m != "none").map(ModelChoice::of).collect()
            }
            (None, Some(_)) => Vec::new(),
            (None, None) => vec![ModelChoice { name: None, source: "demo".to_owned() }],
        },
        backends: given.backends,
        tenancy,
        exporters: Vec::new(),
        ledger,
        log: given.log.unwrap_or_else(|| "info".to_owned()),
        log_format: given.log_format.unwrap_or_default(),
        capture_content: given.capture_content.unwrap_or_default(),
        capture_bytes: given.capture_kib.unwrap_or(16) as usize * 1024,
        max_body_bytes: given.max_body_bytes.unwrap_or(1 << 20),
        device: given.device.unwrap_or_else(|| "auto".to_owned()),
        max_running: given.max_running.unwrap_or(8),
        kv_memory: given.kv_memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
        max_step_tokens: given.max_step_tokens.unwrap_or(256),
        max_queued: given.max_queued.unwrap_or(256),
        stall: Duration::from_secs(given.stall_seconds.unwrap_or(30)),
        drain: Duration::from_secs(given.drain_seconds.unwrap_or(30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_file(text: &str, flags: Given) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.toml");
        std::fs::write(&path, text).unwrap();
        resolve(Given { config: Some(path), ..flags }, [], Path::new("/opt/bin/tollgate"))
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = Given { model: Some(vec!["flag".into()]), ..Given::default() };
        let text = "model = \"file\"\nlisten = \"127.0.0.1:9\"\nconsole = \"off\"";
        let settings = resolve_file(text, flags).unwrap();
        assert_eq!(settings.models[0].source, "flag");
        assert_eq!(settings.listen.port(), 9);
        assert_eq!(settings.plugins, Path::new("/opt/bin/plugins"));
        let names: Vec<&str> = settings.exporters.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["ndjson"], "the console is off");
    }

    #[test]
    fn faults_are_named_all_at_once() {
        let error = resolve_file("lisen = 1\nmax-running = 0", Given::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("lisen; did you mean listen?"), "{text}");
        assert!(text.contains("max-running is 0"), "{text}");
        let error =
            resolve(Given::default(), [("TOLLGATE_LISTN".into(), "x".into())], Path::new("x"));
        assert!(error.unwrap_err().to_string().contains("did you mean TOLLGATE_LISTEN?"));
    }

    #[test]
    fn a_wrong_type_is_shown_with_its_place() {
        let text = resolve_file("\nlisten = 8080", Given::default()).unwrap_err().to_string();
        assert!(text.contains("line 2"), "{text}");
    }

    const TOKEN: &str = "0123456789abcdef-xyz";

    fn resolve_admin(listen: &str, token: Option<&str>) -> Result<Settings, String> {
        let given = Given { admin_listen: listen.parse().ok(), ..Given::default() };
        let variable = token.map(|token| (secret::ADMIN_TOKEN.to_owned(), token.to_owned()));
        resolve(given, variable, Path::new("x")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_admin_api_that_others_can_reach_needs_a_token() {
        for (listen, token, fine) in [
            ("127.0.0.1:9", None, true),
            ("[::1]:9", None, true),
            ("0.0.0.0:9", Some(TOKEN), true),
            ("0.0.0.0:9", None, false),
            ("[::]:9", None, false),
            ("127.0.0.1:9", Some("short"), false),
        ] {
            let resolved = resolve_admin(listen, token);
            assert_eq!(resolved.is_ok(), fine, "{listen} {token:?}: {resolved:?}");
        }
        let text = resolve_admin("0.0.0.0:9", None).unwrap_err();
        for word in ["0.0.0.0:9", "admin-token-file", "TOLLGATE_ADMIN_TOKEN", "127.0.0.1"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(resolve_admin("", None).unwrap().admin_listen, None);
    }

    #[test]
    fn a_token_is_never_shown_and_never_a_key_of_the_file() {
        let settings = resolve_admin("0.0.0.0:9", Some(TOKEN)).unwrap();
        assert_eq!(settings.admin_token.as_ref().map(Secret::reveal), Some(TOKEN));
        assert!(!format!("{settings:?}").contains(TOKEN), "{settings:?}");
        let text = format!("admin-token = {TOKEN:?}");
        let error = resolve_file(&text, Given::default()).unwrap_err().to_string();
        assert!(error.contains("did you mean admin-token-file?"), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
    }

    #[test]
    fn several_models_have_names() {
        let model = |name: Option<&str>, source: &str| ModelChoice {
            name: name.map(str::to_owned),
            source: source.to_owned(),
        };
        for (text, expected) in [
            ("model = \"./a=b\"", vec![model(None, "./a=b")]),
            ("model = \"a/b=demo\"", vec![model(Some("a/b"), "demo")]),
            ("model = [\"a=demo\", \"/x/y\"]", vec![model(Some("a"), "demo"), model(None, "/x/y")]),
        ] {
            assert_eq!(resolve_file(text, Given::default()).unwrap().models, expected, "{text}");
        }
        for (text, fault) in [
            ("model = [\"a=demo\", \"a=x.gguf\"]", "two models a"),
            ("model = \"=demo\"", "empty name"),
            ("model = \"\"", "empty name"),
            ("model = 7", "a string or an array of strings"),
        ] {
            let error = resolve_file(text, Given::default()).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn a_model_runs_here_unless_there_are_backends() {
        for (text, model) in [
            ("", Some("demo")),
            ("backends = \"b.toml\"", None),
            ("backends = \"b.toml\"\nmodel = \"demo\"", Some("demo")),
            ("model = \"none\"", None),
        ] {
            let settings = resolve_file(text, Given::default()).unwrap();
            assert_eq!(settings.models.first().map(|m| m.source.as_str()), model, "{text}");
        }
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let settings = resolve_file("otlp-certificate = \"a\"\notlp-key = \"b\"", Given::default());
        assert_eq!(settings.unwrap().otlp_tls, Some(("a".into(), "b".into())));
        let error = resolve_file("otlp-key = \"b\"", Given::default()).unwrap_err();
        assert!(error.to_string().contains("belong together"), "{error}");
    }

    #[test]
    fn plugin_keys_are_a_list() {
        let text = "plugin-keys = [\"RWa\", \"RWb\"]\nadmin-listen = \"127.0.0.1:7\"";
        let settings = resolve_file(text, Given::default()).unwrap();
        assert_eq!(settings.plugin_keys, ["RWa", "RWb"]);
        assert_eq!(settings.admin_listen.map(|address| address.port()), Some(7));
        let error = resolve_file("plugin-keys = [\"\"]", Given::default()).unwrap_err();
        assert!(error.to_string().contains("plugin-keys"), "{error}");
    }
}
