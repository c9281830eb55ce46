//! OpenTelemetry's environment variables.
//!
//! All of them are read here, and not by the OTLP crate, so that one rule holds for all: empty
//! is unset, a signal's own variable wins over the general one, and what cannot be understood is
//! warned about and ignored, except for an endpoint, which is an error.
//!
//! Which protocol: the specification's default is `http/protobuf`, but half of all guides say
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317` and mean gRPC. So `..._PROTOCOL` wins,
//! else port 4317 means gRPC, else `http/protobuf`.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::error::TelemetryError;
use crate::settings::{Compression, OtlpSettings, Protocol};
use crate::text;

/// The port that means gRPC.
const GRPC_PORT: u16 = 4317;

/// What the environment says of exporters.
#[derive(Clone, Debug, Default)]
pub struct FromEnvironment {
    /// No exporter at all, whatever else is set: `OTEL_SDK_DISABLED`.
    pub disabled: bool,
    /// Traces on the console, too.
    pub console: bool,
    /// Colours on a terminal; false under `NO_COLOR`.
    pub colour: bool,
    /// Where traces are sent.
    pub traces: Option<OtlpSettings>,
    /// Where metrics are sent.
    pub metrics: Option<OtlpSettings>,
}

/// Reads the environment; `env` looks a variable up.
///
/// `OTEL_TRACES_EXPORTER` is a list of `otlp`, `console`, `none`, `OTEL_METRICS_EXPORTER` likewise
/// of `otlp`, `prometheus` (which is the admin API's), `none`. Without it OTLP is on for that
/// signal if an OTLP endpoint is set. The span files are not OpenTelemetry's, so they are never
/// set here and `none` does not concern them; `OTEL_SDK_DISABLED` turns off everything.
///
/// # Errors
/// [`TelemetryError::Setting`] if an OTLP endpoint is no URL.
pub fn from_environment(
    env: impl Fn(&str) -> Option<String>,
) -> Result<FromEnvironment, TelemetryError> {
    let get = &env;
    let traces = Environment { get, signal: Signal::Traces };
    let metrics = Environment { get, signal: Signal::Metrics };
    Ok(FromEnvironment {
        disabled: traces.is_true("OTEL_SDK_DISABLED"),
        console: traces.exporters().is_some_and(|list| named(&list, "console")),
        colour: traces.get("NO_COLOR").is_none() && traces.get("TERM").as_deref() != Some("dumb"),
        traces: traces.otlp()?,
        metrics: metrics.otlp()?,
    })
}

/// Whether a list of exporters has `name`; `none` takes all others with it.
fn named(list: &[String], name: &str) -> bool {
    let has = |name: &str| list.iter().any(|item| item == name);
    has(name) && !has("none")
}

/// What is sent.
#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// Its part of a variable's name.
    fn infix(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    /// Its path over HTTP.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The exporters that the list may name.
    fn exporters(self) -> &'static [&'static str] {
        match self {
            Self::Traces => &["otlp", "console", "none"],
            Self::Metrics => &["otlp", "prometheus", "none"],
        }
    }
}

struct Environment<F> {
    get: F,
    signal: Signal,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The list of this signal's exporters, if there is one.
    fn exporters(&self) -> Option<Vec<String>> {
        let name = format!("OTEL_{}_EXPORTER", self.signal.infix());
        let list = self.get(&name)?;
        let items = list.split(',').map(|item| item.trim().to_ascii_lowercase());
        let items: Vec<String> = items.filter(|item| !item.is_empty()).collect();
        let known = self.signal.exporters();
        for item in &items {
            if !known.contains(&item.as_str()) {
                ignored(&name, item, &format!("known are {}", known.join(", ")));
            }
        }
        Some(items)
    }

    /// Name and value of the signal's own OTLP variable, else of the one for all signals.
    fn variable(&self, suffix: &str) -> Option<(String, String)> {
        let own = format!("{}_{suffix}", self.signal.infix());
        [own.as_str(), suffix].iter().find_map(|suffix| {
            let name = format!("OTEL_EXPORTER_OTLP_{suffix}");
            self.get(&name).map(|value| (name, value))
        })
    }

    fn is_true(&self, name: &str) -> bool {
        let Some(value) = self.get(name) else { return false };
        if !["true", "false"].contains(&value.to_ascii_lowercase().as_str()) {
            ignored(name, &value, "it is either true or false");
        }
        value.eq_ignore_ascii_case("true")
    }

    fn otlp(&self) -> Result<Option<OtlpSettings>, TelemetryError> {
        let is_on = match self.exporters() {
            Some(list) => named(&list, "otlp"),
            None => self.variable("ENDPOINT").is_some(),
        };
        if is_on { self.otlp_settings().map(Some) } else { Ok(None) }
    }

    fn otlp_settings(&self) -> Result<OtlpSettings, TelemetryError> {
        let endpoint = self.endpoint()?;
        let port = endpoint.as_ref().and_then(|(_, url)| url.port());
        let protocol = self.protocol().unwrap_or(match port {
            Some(GRPC_PORT) => Protocol::Grpc,
            _ => Protocol::HttpProtobuf,
        });
        let mut settings = OtlpSettings::new(protocol);
        settings.endpoint = match endpoint {
            Some((name, url)) => self.whole_endpoint(&name, url, protocol),
            None => settings.endpoint.replace(Signal::Traces.path(), self.signal.path()),
        };
        settings.headers = self.headers();
        settings.timeout = self.timeout().unwrap_or(settings.timeout);
        settings.compression = self.compression(protocol);
        settings.certificate = self.path("CERTIFICATE");
        settings.client_certificate = self.client_certificate();
        Ok(settings)
    }

    fn endpoint(&self) -> Result<Option<(String, Url)>, TelemetryError> {
        let Some((name, value)) = self.variable("ENDPOINT") else { return Ok(None) };
        let scheme = match self.variable("INSECURE") {
            _ if value.contains("://") => "",
            Some((_, insecure)) if insecure.eq_ignore_ascii_case("true") => "http://",
            _ => "https://",
        };
        let url = Url::parse(&format!("{scheme}{value}")).ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let problem = "it must be a URL such as http://localhost:4317".to_owned();
        url.map(|url| Some((name.clone(), url))).ok_or(TelemetryError::Setting {
            name,
            value,
            problem,
        })
    }

    fn protocol(&self) -> Option<Protocol> {
        let (name, value) = self.variable("PROTOCOL")?;
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            "http/json" => Some(Protocol::HttpJson),
            _ => {
                ignored(&name, &value, "known are grpc, http/protobuf and http/json");
                None
            }
        }
    }

    fn headers(&self) -> Vec<(String, String)> {
        let Some((name, value)) = self.variable("HEADERS") else { return Vec::new() };
        text::pairs(&value).unwrap_or_else(|_| {
            // Not the value: headers hold secrets.
            ignored(&name, "<not shown>", "it must be name=value,name=value");
            Vec::new()
        })
    }

    fn timeout(&self) -> Option<Duration> {
        let (name, value) = self.variable("TIMEOUT")?;
        let milliseconds = value.parse().ok().filter(|milliseconds| *milliseconds > 0);
        if milliseconds.is_none() {
            ignored(&name, &value, "it must be a number of milliseconds");
        }
        milliseconds.map(Duration::from_millis)
    }

    fn compression(&self, protocol: Protocol) -> Option<Compression> {
        let (name, value) = self.variable("COMPRESSION")?;
        match (value.to_ascii_lowercase().as_str(), protocol) {
            ("none", _) => None,
            ("gzip", _) => Some(Compression::Gzip),
            ("zstd", Protocol::HttpProtobuf | Protocol::HttpJson) => Some(Compression::Zstd),
            _ => {
                ignored(&name, &value, "known are gzip, none, and over HTTP zstd");
                None
            }
        }
    }

    fn client_certificate(&self) -> Option<(PathBuf, PathBuf)> {
        let (certificate, key) = (self.path("CLIENT_CERTIFICATE"), self.path("CLIENT_KEY"));
        if certificate.is_some() != key.is_some() {
            tracing::warn!(
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY belong \
                 together; the one that is set is ignored"
            );
        }
        certificate.zip(key)
    }

    fn path(&self, suffix: &str) -> Option<PathBuf> {
        self.variable(suffix).map(|(_, value)| PathBuf::from(value))
    }

    /// The general endpoint of HTTP is a base that the path of the signal is added to.
    fn whole_endpoint(&self, name: &str, mut url: Url, protocol: Protocol) -> String {
        if protocol != Protocol::Grpc && !name.contains(self.signal.infix()) {
            let path = format!("{}{}", url.path().trim_end_matches('/'), self.signal.path());
            url.set_path(&path);
        }
        url.to_string()
    }
}

fn ignored(name: &str, value: &str, problem: &str) {
    tracing::warn!(name, value, "environment variable ignored: {problem}");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn read(variables: Variables) -> Result<FromEnvironment, TelemetryError> {
        from_environment(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_exported() {
        const END: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        const LIST: &str = "OTEL_TRACES_EXPORTER";
        let cases: [(Variables, bool, bool); 9] = [
            (&[], false, false),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false, false),
            (&[END], false, true),
            (&[(LIST, "otlp")], false, true),
            (&[(LIST, "Console, otlp")], true, true),
            (&[(LIST, "console"), END], true, false),
            (&[(LIST, "none"), END], false, false),
            (&[(LIST, "zipkin,console")], true, false),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x")], false, true),
        ];
        for (variables, console, otlp) in cases {
            let settings = read(variables).unwrap_or_default();
            let found = (settings.console, settings.traces.is_some());
            assert_eq!(found, (console, otlp), "{variables:?}");
        }
        assert!(read(&[("OTEL_SDK_DISABLED", "TRUE")]).is_ok_and(|settings| settings.disabled));
        assert!(read(&[("NO_COLOR", "1")]).is_ok_and(|settings| !settings.colour));
    }

    #[test]
    fn where_to_and_how() {
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
        let cases: [(Variables, &str); 11] = [
            (&[("OTEL_TRACES_EXPORTER", "otlp")], "HttpProtobuf http://localhost:4318/v1/traces"),
            (&[(general, "http://localhost:4317")], "Grpc http://localhost:4317/"),
            (
                &[(general, "http://c:4317"), (protocol, "http/protobuf")],
                "HttpProtobuf http://c:4317/v1/traces",
            ),
            (&[(general, "http://c:9999"), (protocol, "GRPC")], "Grpc http://c:9999/"),
            (&[(general, "http://c"), (protocol, "smoke")], "HttpProtobuf http://c/v1/traces"),
            (&[(general, "https://c/otlp/")], "HttpProtobuf https://c/otlp/v1/traces"),
            (&[(traces, "https://c/in"), (general, "http://d")], "HttpProtobuf https://c/in"),
            (&[(general, "c:4317")], "Grpc https://c:4317/"),
            (
                &[(general, "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")],
                "Grpc http://c:4317/",
            ),
            (&[(general, "http://")], "configuration"),
            (&[(general, "unix:///tmp/x")], "configuration"),
        ];
        for (variables, wanted) in cases {
            let found = match read(variables).map(|settings| settings.traces) {
                Ok(Some(otlp)) => format!("{:?} {}", otlp.protocol, otlp.endpoint),
                Ok(None) => "off".to_owned(),
                Err(_) => "configuration".to_owned(),
            };
            assert_eq!(found, wanted, "{variables:?}");
        }
    }

    #[test]
    fn metrics_have_variables_of_their_own() {
        const END: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let metrics = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        let protocol = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL";
        let cases: [(Variables, &str); 8] = [
            (&[], "off"),
            (&[END], "HttpProtobuf http://c:4318/v1/metrics"),
            (&[END, (protocol, "http/json")], "HttpJson http://c:4318/v1/metrics"),
            (&[END, (metrics, "http://m/in")], "HttpProtobuf http://m/in"),
            (&[(metrics, "http://m:4317")], "Grpc http://m:4317/"),
            (&[("OTEL_METRICS_EXPORTER", "otlp")], "HttpProtobuf http://localhost:4318/v1/metrics"),
            (&[END, ("OTEL_METRICS_EXPORTER", "prometheus")], "off"),
            (&[END, ("OTEL_METRICS_EXPORTER", "otlp,none")], "off"),
        ];
        for (variables, wanted) in cases {
            let read = read(variables).unwrap_or_default();
            let shown = |otlp: OtlpSettings| format!("{:?} {}", otlp.protocol, otlp.endpoint);
            assert_eq!(read.metrics.map_or("off".to_owned(), shown), wanted, "{variables:?}");
        }
        let only = read(&[(metrics, "http://m/in")]).unwrap_or_default();
        assert!(only.traces.is_none(), "a receiver of metrics gets no traces");
    }

    #[test]
    fn the_rest() {
        let otlp = read(&[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret,x=y"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "general.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "me.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "me.key"),
        ]);
        let otlp = otlp.ok().and_then(|settings| settings.traces);
        let Some(otlp) = otlp else { unreachable!("OTLP is on") };
        assert_eq!(otlp.headers.first().map(|(_, v)| v.as_str()), Some("Bearer s3cret"));
        assert_eq!(otlp.timeout, Duration::from_millis(1500));
        assert_eq!(otlp.compression, Some(Compression::Gzip));
        assert_eq!(otlp.certificate, Some("ca.pem".into()));
        assert_eq!(otlp.client_certificate, Some(("me.pem".into(), "me.key".into())));
        assert!(!format!("{otlp:?}").contains("s3cret"), "a secret in the log");
    }
}
