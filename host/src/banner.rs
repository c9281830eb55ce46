//! What a gateway that has just started is: what is on, and where. For people as aligned lines, for programs as
//! one line of the log.
//!
//! No secret is in it: of addresses with a password in them only the place is told.

use std::fmt;
use std::net::SocketAddr;

use tollgate_engine::Passes;
use tollgate_gateway::{ModelHere, Tenancy};
use tollgate_plugin_host::PluginHost;
use tollgate_settings::{Durability, LogFormat, RedisAway, Settings};
use tollgate_telemetry::{ConsoleFormat, ExporterSettings, SinkSettings};
use tollgate_upstream::Upstreams;
use url::Url;

/// Names of other servers that are shown; of more, only how many there are.
const NAMES: usize = 8;

/// What is on, and where.
pub(crate) struct Banner {
    lines: Vec<(&'static str, String)>,
    admin: Option<SocketAddr>,
    otlp: Vec<SocketAddr>,
    format: LogFormat,
}

/// Where it is taken from.
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) otlp: &'a [SocketAddr],
    pub(crate) models: &'a [ModelHere],
    pub(crate) upstreams: Option<&'a Upstreams>,
    pub(crate) plugins: &'a PluginHost,
    pub(crate) tenancy: &'a Tenancy,
    pub(crate) exporters: &'a [ExporterSettings],
    pub(crate) metrics: Option<&'a str>,
}

impl Banner {
    /// Of these parts.
    pub(crate) fn of(parts: &Parts<'_>) -> Self {
        let mut banner = Self {
            lines: Vec::new(),
            admin: parts.admin,
            otlp: parts.otlp.to_vec(),
            format: parts.settings.log_format,
        };
        banner.line("api", format!("http://{}/v1", parts.address));
        banner.line(
            "admin",
            match parts.admin {
                Some(address) => format!("http://{address}, with /metrics"),
                None => "off; --admin-listen 127.0.0.1:9090 serves it, /metrics and the dashboard"
                    .to_owned(),
            },
        );
        if let Some(address) = parts.admin {
            let dashboard = match tollgate_http_api::has_dashboard() {
                true => format!("http://{address}/ui/"),
                false => "not in this build: it takes npm to bundle it".to_owned(),
            };
            banner.line("dashboard", dashboard);
        }
        for address in parts.otlp {
            let scheme = if parts.settings.otlp_tls.is_some() { "https" } else { "http" };
            let taken = format!("taken at {scheme}://{address}, by OTLP over gRPC and HTTP");
            banner.line("spans", taken);
        }
        for model in models(parts.models) {
            banner.line("model", model);
        }
        if let Some(upstreams) = parts.upstreams {
            banner.line("backends", backends(upstreams));
        }
        for plugin in plugins(parts.plugins) {
            banner.line("plugins", plugin);
        }
        banner.line(
            "keys",
            match parts.tenancy.keys.count() {
                0 if parts.tenancy.keys.is_open() => {
                    "none: everybody is let in, and `user` names the tenant".to_owned()
                }
                0 => "none: nobody is let in".to_owned(),
                count => format!("{count}, one of which is asked for"),
            },
        );
        banner.line("limits", limits(parts.settings));
        for exporter in exporters(parts.exporters) {
            banner.line("exporters", exporter);
        }
        if let Some(endpoint) = parts.metrics {
            banner.line("metrics", format!("pushed to {}", place(endpoint)));
        }
        banner.line("ledger", ledger(parts.settings));
        if !parts.settings.capture_content.is_empty() {
            let tenants = parts.settings.capture_content.join(", ");
            banner.line("content", format!("prompts and answers are kept of {tenants}"));
        }
        banner
    }

    /// Tells it once, and only where such things are logged: to people as lines, to programs as one line of the log, in
    /// which an address is that and nothing else.
    #[expect(clippy::print_stderr, reason = "lines for people, beside the log")]
    pub(crate) fn tell(&self) {
        let admin = self.admin.map(|address| format!("http://{address}"));
        let spans: Vec<String> = self.otlp.iter().map(ToString::to_string).collect();
        match self.format {
            LogFormat::Text if tracing::enabled!(tracing::Level::INFO) => eprintln!("{self}"),
            LogFormat::Text => {}
            LogFormat::Json => tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                api = self.text("api"),
                admin = admin.unwrap_or_default(),
                dashboard = self.text("dashboard"),
                spans = spans.join(","),
                model = self.text("model"),
                backends = self.text("backends"),
                plugins = self.text("plugins"),
                keys = self.text("keys"),
                limits = self.text("limits"),
                exporters = self.text("exporters"),
                metrics = self.text("metrics"),
                ledger = self.text("ledger"),
                content = self.text("content"),
                "started"
            ),
        }
    }

    fn line(&mut self, label: &'static str, text: String) {
        self.lines.push((label, text));
    }

    /// All lines of one label, with `; ` between them.
    fn text(&self, label: &str) -> String {
        let of = self.lines.iter().filter(|(of, _)| *of == label);
        of.map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tollgate {}", env!("CARGO_PKG_VERSION"))?;
        let mut before = "";
        for (label, text) in &self.lines {
            let shown = if *label == before { "" } else { label };
            write!(f, "\n  {shown:<10} {text}")?;
            before = label;
        }
        Ok(())
    }
}

fn models(models: &[ModelHere]) -> Vec<String> {
    if models.is_empty() {
        return vec!["none in this process".to_owned()];
    }
    let lines = models.iter().map(|ModelHere { engine, aliases }| {
        let info = engine.info();
        let aliases = match aliases.as_slice() {
            [] => String::new(),
            aliases => format!(", also called {}", aliases.join(", ")),
        };
        let does = if info.generates { "" } else { ", embeddings only" };
        let passes = match info.passes {
            Passes::Shared => String::new(),
            passes => format!(", {}", passes.name()),
        };
        format!(
            "{} ({}, {}, context {}{passes}{does}){aliases}",
            info.name, info.architecture, info.device, info.context_length
        )
    });
    lines.collect()
}

fn backends(upstreams: &Upstreams) -> String {
    let all = upstreams.status();
    let names: Vec<&str> = all.iter().take(NAMES).map(|backend| &*backend.name).collect();
    let more = if all.len() > names.len() { ", ..." } else { "" };
    format!("{}: {}{more}", all.len(), names.join(", "))
}

/// Those that serve, in the order in which they are asked, then what is not as it should be.
fn plugins(host: &PluginHost) -> Vec<String> {
    let status = host.status();
    let set = host.pin();
    let mut lines: Vec<String> = Vec::new();
    for identity in set.plugins() {
        let known = status.iter().find(|status| status.identity.as_ref() == Some(identity));
        let roles = known.into_iter().flat_map(|status| &status.roles).map(|role| role.name());
        let shadow = if known.is_some_and(|status| status.shadow) { ", in the shadow" } else { "" };
        let roles: Vec<&str> = roles.collect();
        let number = lines.len().saturating_add(1);
        let (name, version) = (&identity.name, &identity.version);
        lines.push(format!("{number}. {name} {version} ({}{shadow})", roles.join(", ")));
    }
    let refused = status.iter().filter(|status| status.error.is_some());
    lines.extend(refused.map(|status| format!("refused: {}", status.file)));
    if lines.is_empty() {
        lines.push("none: nothing is priced".to_owned());
    }
    lines
}

fn limits(settings: &Settings) -> String {
    let tenancy = &settings.tenancy;
    match (&tenancy.redis_url, tenancy.redis_away) {
        (None, _) => "counted by this gateway alone".to_owned(),
        (Some(_), away) => {
            let away = match away {
                RedisAway::Open => "no limits",
                RedisAway::Closed => "nothing is served",
                RedisAway::Local => "each gateway counts by itself",
            };
            format!("shared through Redis; while that is away: {away}")
        }
    }
}

fn exporters(exporters: &[ExporterSettings]) -> Vec<String> {
    let lines = exporters.iter().map(|exporter| {
        let to = match &exporter.sink {
            SinkSettings::Console { format: ConsoleFormat::Tree, .. } => {
                "trees on standard output".to_owned()
            }
            SinkSettings::Console { format: ConsoleFormat::Json, .. } => {
                "JSON on standard output".to_owned()
            }
            SinkSettings::Ndjson(file) | SinkSettings::OtlpJson(file) => {
                file.path.display().to_string()
            }
            SinkSettings::Otlp(otlp) => place(&otlp.endpoint),
        };
        format!("{}: {to}", exporter.name)
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { vec!["none: no span goes anywhere".to_owned()] } else { lines }
}

fn ledger(settings: &Settings) -> String {
    let survives = match settings.ledger.durability {
        Durability::Power => "survives a power cut",
        Durability::Process => "survives the end of the process, but no power cut",
    };
    let kept = match (settings.ledger.retain_for, settings.ledger.retain_bytes) {
        (None, None) => "kept for ever".to_owned(),
        (Some(time), None) => format!("kept for {} days", time.as_secs() / 86_400),
        (None, Some(bytes)) => format!("kept up to {} MiB", bytes >> 20),
        (Some(time), Some(bytes)) => {
            format!("kept for {} days, up to {} MiB", time.as_secs() / 86_400, bytes >> 20)
        }
    };
    format!("{}; {survives}; {kept}", settings.data_dir.join("ledger").display())
}

/// A URL without who logs in there, and without a query, which may be a key as well.
fn place(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => {
            format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/'))
        }
        _ => "a receiver".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (url, shown) in [
            ("http://localhost:4317", "http://localhost:4317"),
            (
                "https://user:secret@otlp.example/v1/traces?key=secret",
                "https://otlp.example/v1/traces",
            ),
            ("nonsense", "a receiver"),
        ] {
            assert_eq!(place(url), shown);
        }
    }

    #[test]
    fn what_belongs_together_has_one_label() {
        let lines =
            vec![("api", "x".to_owned()), ("plugins", "a".to_owned()), ("plugins", "b".to_owned())];
        let banner = Banner { lines, admin: None, otlp: Vec::new(), format: LogFormat::Text };
        let version = env!("CARGO_PKG_VERSION");
        let wanted = format!("tollgate {version}\n  api        x\n  plugins    a\n             b");
        assert_eq!(banner.to_string(), wanted);
        assert_eq!((banner.text("plugins").as_str(), banner.text("none").as_str()), ("a; b", ""));
    }
}
