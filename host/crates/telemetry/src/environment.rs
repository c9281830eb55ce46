//! OpenTelemetry's environment variables.
//!
//! All of them are read here, and not by the OTLP crate, so that one rule holds for all: empty
//! is unset, the traces variable wins over the general one, and what cannot be understood is
//! warned about and ignored, except for an endpoint, which is an error.
//!
//! Which protocol: the specification's default is `http/protobuf`, but half of all guides say
//! `OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317` and mean gRPC. So `..._PROTOCOL` wins,
//! else port 4317 means gRPC, else `http/protobuf`.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use crate::error::TelemetryError;
use crate::settings::{Compression, ConsoleFormat, ExporterSettings, OtlpSettings, Protocol};
use crate::text;

/// The port that means gRPC.
const GRPC_PORT: u16 = 4317;

/// What the environment says of exporters; `env` looks a variable up.
///
/// `OTEL_TRACES_EXPORTER` is a list of `otlp`, `console`, `none`. Without it OTLP is on if an
/// OTLP endpoint is set. The NDJSON file is not OpenTelemetry's, so it is never set here and
/// `none` does not concern it; `OTEL_SDK_DISABLED` turns off everything.
///
/// # Errors
/// [`TelemetryError::Setting`] if the OTLP endpoint is no URL.
pub fn from_environment(
    env: impl Fn(&str) -> Option<String>,
) -> Result<ExporterSettings, TelemetryError> {
    let env = Environment { get: env };
    let list = env.get("OTEL_TRACES_EXPORTER").map(|list| exporters(&list));
    let named = |name: &str| list.as_ref().map(|list| list.iter().any(|item| item == name));
    let none = named("none") == Some(true);
    let otlp = !none && named("otlp").unwrap_or(env.traces("ENDPOINT").is_some());
    let console = !none && named("console") == Some(true);
    Ok(ExporterSettings {
        disabled: env.is_true("OTEL_SDK_DISABLED"),
        console: if console { ConsoleFormat::Tree } else { ConsoleFormat::Off },
        colour: env.get("NO_COLOR").is_none() && env.get("TERM").as_deref() != Some("dumb"),
        ndjson: None,
        otlp: if otlp { Some(env.otlp()?) } else { None },
    })
}

fn exporters(list: &str) -> Vec<String> {
    let items = list.split(',').map(|item| item.trim().to_ascii_lowercase());
    let items: Vec<String> = items.filter(|item| !item.is_empty()).collect();
    for item in &items {
        if !["otlp", "console", "none"].contains(&item.as_str()) {
            ignored("OTEL_TRACES_EXPORTER", item, "known are otlp, console and none");
        }
    }
    items
}

struct Environment<F> {
    get: F,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn get(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Name and value of the OTLP variable for traces, else of the one for all signals.
    fn traces(&self, suffix: &str) -> Option<(String, String)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].iter().find_map(|prefix| {
            let name = format!("{prefix}{suffix}");
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

    fn otlp(&self) -> Result<OtlpSettings, TelemetryError> {
        let endpoint = self.endpoint()?;
        let port = endpoint.as_ref().and_then(|(_, url)| url.port());
        let protocol = self.protocol().unwrap_or(match port {
            Some(GRPC_PORT) => Protocol::Grpc,
            _ => Protocol::HttpProtobuf,
        });
        let mut settings = OtlpSettings::new(protocol);
        if let Some((name, url)) = endpoint {
            settings.endpoint = whole_endpoint(&name, url, protocol);
        }
        settings.headers = self.headers();
        settings.timeout = self.timeout().unwrap_or(settings.timeout);
        settings.compression = self.compression(protocol);
        settings.certificate = self.path("CERTIFICATE");
        settings.client_certificate = self.path("CLIENT_CERTIFICATE").zip(self.path("CLIENT_KEY"));
        Ok(settings)
    }

    fn endpoint(&self) -> Result<Option<(String, Url)>, TelemetryError> {
        let Some((name, value)) = self.traces("ENDPOINT") else { return Ok(None) };
        let scheme = match self.traces("INSECURE") {
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
        let (name, value) = self.traces("PROTOCOL")?;
        match value.to_ascii_lowercase().as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::HttpProtobuf),
            _ => {
                ignored(&name, &value, "known are grpc and http/protobuf");
                None
            }
        }
    }

    fn headers(&self) -> Vec<(String, String)> {
        let Some((name, value)) = self.traces("HEADERS") else { return Vec::new() };
        text::pairs(&value).unwrap_or_else(|_| {
            // Not the value: headers hold secrets.
            ignored(&name, "<not shown>", "it must be name=value,name=value");
            Vec::new()
        })
    }

    fn timeout(&self) -> Option<Duration> {
        let (name, value) = self.traces("TIMEOUT")?;
        let milliseconds = value.parse().ok().filter(|milliseconds| *milliseconds > 0);
        if milliseconds.is_none() {
            ignored(&name, &value, "it must be a number of milliseconds");
        }
        milliseconds.map(Duration::from_millis)
    }

    fn compression(&self, protocol: Protocol) -> Option<Compression> {
        let (name, value) = self.traces("COMPRESSION")?;
        match (value.to_ascii_lowercase().as_str(), protocol) {
            ("none", _) => None,
            ("gzip", _) => Some(Compression::Gzip),
            ("zstd", Protocol::HttpProtobuf) => Some(Compression::Zstd),
            _ => {
                ignored(&name, &value, "known are gzip, none, and over HTTP zstd");
                None
            }
        }
    }

    fn path(&self, suffix: &str) -> Option<PathBuf> {
        self.traces(suffix).map(|(_, value)| PathBuf::from(value))
    }
}

/// The general endpoint of HTTP is a base that the path of traces is added to.
fn whole_endpoint(name: &str, mut url: Url, protocol: Protocol) -> String {
    if protocol == Protocol::HttpProtobuf && !name.contains("TRACES") {
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    url.to_string()
}

fn ignored(name: &str, value: &str, problem: &str) {
    tracing::warn!(name, value, "environment variable ignored: {problem}");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn read(variables: Variables) -> Result<ExporterSettings, TelemetryError> {
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
            let found = (settings.console == ConsoleFormat::Tree, settings.otlp.is_some());
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
            let found = match read(variables).map(|settings| settings.otlp) {
                Ok(Some(otlp)) => format!("{:?} {}", otlp.protocol, otlp.endpoint),
                Ok(None) => "off".to_owned(),
                Err(_) => "configuration".to_owned(),
            };
            assert_eq!(found, wanted, "{variables:?}");
        }
    }

    #[test]
    fn the_rest() {
        let otlp = read(&[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret,x=y"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ]);
        let otlp = otlp.ok().and_then(|settings| settings.otlp);
        let Some(otlp) = otlp else { unreachable!("OTLP is on") };
        assert_eq!(otlp.headers.first().map(|(_, v)| v.as_str()), Some("Bearer s3cret"));
        assert_eq!(otlp.timeout, Duration::from_millis(1500));
        assert_eq!(otlp.compression, Some(Compression::Gzip));
        assert!(!format!("{otlp:?}").contains("s3cret"), "a secret in the log");
    }
}
