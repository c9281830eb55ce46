//! `backends.toml` as it is written, and what is checked of it.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tollgate_domain::place;
use tollgate_domain::text::one_line;
use wildmatch::WildMatch;

use crate::config::{
    BackendSettings, Balance, BreakerSettings, Configuration, HealthSettings, Kind, Secret,
};
use crate::error::UpstreamError;
use crate::matching::{Models, Tenants, is_pattern};
use crate::passing::PassThrough;
use crate::proxy::Proxy;

/// Most bytes of a file.
const LIMIT: u64 = 4 << 20;
/// Most backends, models of one, bytes of a name.
const BACKENDS: usize = 1024;
const MODELS: usize = 4096;
const NAME: usize = 256;
/// The provider of models in the gateway's own process.
const IN_PROCESS: &str = "tollgate";

/// What is wrong.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// In the text, at this place.
    Here(String),
    /// In a file that it names.
    Elsewhere(UpstreamError),
}

impl From<String> for Wrong {
    fn from(problem: String) -> Self {
        Self::Here(problem)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenFile {
    #[serde(default)]
    balance: Balance,
    retry_budget: Option<f64>,
    #[serde(default)]
    breaker: WrittenBreaker,
    #[serde(default)]
    backend: Vec<WrittenBackend>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct WrittenBreaker {
    faults: Option<u64>,
    window_ms: Option<u64>,
    pause_ms: Option<u64>,
    longest_pause_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenBackend {
    name: String,
    url: String,
    #[serde(default)]
    kind: Kind,
    provider: Option<String>,
    key_env: Option<String>,
    key_file: Option<String>,
    models: Option<Vec<WrittenModel>>,
    #[serde(default)]
    tenants: Vec<String>,
    weight: Option<u64>,
    max_in_flight: Option<u64>,
    connect_timeout_ms: Option<u64>,
    first_byte_timeout_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    ca_file: Option<String>,
    proxy: Option<String>,
    health: Option<WrittenHealth>,
    retries: Option<u64>,
    inject_usage: Option<bool>,
    pass_through: Option<WrittenPassing>,
    max_event_mib: Option<u64>,
    max_answer_mib: Option<u64>,
}

/// `true`, `false` or `["/files"]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of paths, as in [\"/files\"]")]
enum WrittenPassing {
    Usual(bool),
    Below(Vec<String>),
}

/// `"name"`, `"pattern*"` or `{ as = "gpt-4o", name = "meta-llama/..." }`.
enum WrittenModel {
    Plain(String),
    Alias(Alias),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias {
    r#as: String,
    name: String,
}

impl<'de> Deserialize<'de> for WrittenModel {
    /// By hand, so that an unknown key is named, which an untagged enum does not do.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = WrittenModel;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name, a pattern, or { as = \"...\", name = \"...\" }")
            }

            fn visit_str<E>(self, name: &str) -> Result<WrittenModel, E> {
                Ok(WrittenModel::Plain(name.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<WrittenModel, A::Error> {
                Alias::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(WrittenModel::Alias)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenHealth {
    path: String,
    every_ms: Option<u64>,
    timeout_ms: Option<u64>,
}

/// The text of a file.
pub(crate) fn read_text(path: &Path) -> Result<String, UpstreamError> {
    let unreadable = |source| UpstreamError::Unreadable { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LIMIT + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LIMIT {
        return Err(unreadable(std::io::Error::other(format!("it is larger than {LIMIT} bytes"))));
    }
    Ok(text)
}

/// Reads the text of `backends.toml`. Files that it names are read from `folder`.
pub(crate) fn parse(
    text: &str,
    folder: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Configuration, Wrong> {
    let written: WrittenFile = toml::Deserializer::parse(text)
        .map_err(|error| at_place(text, "", &error))
        .and_then(|toml| {
            serde_path_to_error::deserialize(toml)
                .map_err(|error| at_place(text, &error.path().to_string(), error.inner()))
        })?;
    let retry_budget = written.retry_budget.unwrap_or(0.1);
    if !(0.0..=1.0).contains(&retry_budget) {
        return Err("retry-budget: it must be from 0 to 1".to_owned().into());
    }
    if written.backend.len() > BACKENDS {
        return Err(format!("backend: more than {BACKENDS}").into());
    }
    let mut names = HashSet::new();
    let mut backends = Vec::with_capacity(written.backend.len());
    for (place, backend) in written.backend.into_iter().enumerate() {
        let name = one_line(&backend.name, 64);
        let wrong = |why: &str| Wrong::Here(format!("backend[{place}] ({name}): {why}"));
        if !names.insert(backend.name.clone()) {
            return Err(wrong("name: another backend has it"));
        }
        backends.push(backend.check(folder, &environment).map_err(|error| match error {
            Wrong::Here(why) => wrong(&why),
            elsewhere @ Wrong::Elsewhere(_) => elsewhere,
        })?);
    }
    Ok(Configuration {
        balance: written.balance,
        retry_budget,
        breaker: written.breaker.check()?,
        backends,
    })
}

impl WrittenBreaker {
    fn check(self) -> Result<BreakerSettings, String> {
        let ms = |key, given, default, least, most| {
            range(key, given, default, least, most).map(Duration::from_millis)
        };
        let faults = range("breaker.faults", self.faults, 5, 1, 1000)?;
        let pause = ms("breaker.pause-ms", self.pause_ms, 1000, 1, 600_000)?;
        let longest = ms("breaker.longest-pause-ms", self.longest_pause_ms, 60_000, 1, 3_600_000)?;
        Ok(BreakerSettings {
            faults: u32::try_from(faults).unwrap_or(u32::MAX),
            window: ms("breaker.window-ms", self.window_ms, 30_000, 1000, 600_000)?,
            pause,
            longest_pause: longest.max(pause),
        })
    }
}

impl WrittenBackend {
    fn check(
        self,
        folder: &Path,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<BackendSettings, Wrong> {
        name_of("name", &self.name)?;
        let provider = self.provider.unwrap_or_else(|| self.kind.name().to_owned());
        name_of("provider", &provider)?;
        if provider == IN_PROCESS {
            return Err(format!(
                "provider: `{IN_PROCESS}` is that of models in this process, which are priced by the name they are asked \
                 for by; say whose server this is"
            )
            .into());
        }
        let url = url(&self.url)?;
        let proxy = Proxy::of(&url, self.proxy.as_deref(), &environment)?;
        let key = match (self.key_env, self.key_file) {
            (Some(_), Some(_)) => {
                return Err("key-file: key-env is there already".to_owned().into());
            }
            (Some(name), None) => Some(environment(&name).ok_or_else(|| {
                format!("key-env: the environment has no {}", one_line(&name, 64))
            })?),
            (None, Some(file)) => Some(read_text(&folder.join(file)).map_err(Wrong::Elsewhere)?),
            (None, None) => None,
        };
        let key = key.map(|key| Secret(key.trim().to_owned()));
        if let Some(Secret(key)) = &key
            && (key.is_empty() || http::HeaderValue::from_str(key).is_err())
        {
            return Err("key: it is empty, or cannot stand in a header".to_owned().into());
        }
        let ca = self.ca_file.map(|file| read_text(&folder.join(file)).map(String::into_bytes));
        let ms = |key, given, default| {
            range(key, given, default, 1, 86_400_000).map(Duration::from_millis)
        };
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let mib = |n: u64| usize::try_from(n << 20).unwrap_or(usize::MAX);
        let max_in_flight = match self.max_in_flight {
            None => None,
            given => Some(small(range("max-in-flight", given, 1, 1, 1_000_000)?)),
        };
        Ok(BackendSettings {
            name: self.name,
            url,
            kind: self.kind,
            provider,
            key,
            models: models(self.models)?,
            tenants: tenants(&self.tenants)?,
            weight: small(range("weight", self.weight, 1, 1, 1000)?),
            max_in_flight,
            connect_timeout: ms("connect-timeout-ms", self.connect_timeout_ms, 2000)?,
            first_byte_timeout: ms("first-byte-timeout-ms", self.first_byte_timeout_ms, 300_000)?,
            idle_timeout: ms("idle-timeout-ms", self.idle_timeout_ms, 120_000)?,
            ca: ca.transpose().map_err(Wrong::Elsewhere)?,
            proxy,
            health: self.health.map(WrittenHealth::check).transpose()?,
            retries: small(range("retries", self.retries, 1, 0, 10)?),
            inject_usage: self.inject_usage.unwrap_or(true),
            pass_through: pass_through(self.pass_through)?,
            max_event: mib(range("max-event-mib", self.max_event_mib, 16, 1, 1024)?),
            max_answer: mib(range("max-answer-mib", self.max_answer_mib, 64, 1, 4096)?),
        })
    }
}

impl WrittenHealth {
    fn check(self) -> Result<HealthSettings, String> {
        if !self.path.starts_with('/') || self.path.parse::<Uri>().is_err() {
            return Err("health.path: it must be a path that begins with /".to_owned());
        }
        let every = range("health.every-ms", self.every_ms, 5000, 10, 3_600_000)?;
        let timeout = range("health.timeout-ms", self.timeout_ms, 2000, 1, 600_000)?;
        Ok(HealthSettings {
            path: self.path,
            every: Duration::from_millis(every),
            timeout: Duration::from_millis(timeout),
        })
    }
}

fn models(written: Option<Vec<WrittenModel>>) -> Result<Models, String> {
    let mut models = Models::default();
    let Some(written) = written else {
        models.add_pattern("*");
        return Ok(models);
    };
    if written.is_empty() || written.len() > MODELS {
        return Err(format!("models: there must be from 1 to {MODELS}; leave it out for all"));
    }
    for (place, model) in written.into_iter().enumerate() {
        let key = format!("models[{place}]");
        let (name, there) = match &model {
            WrittenModel::Plain(name) if is_pattern(name) => {
                name_of(&key, name)?;
                models.add_pattern(name);
                continue;
            }
            WrittenModel::Plain(name) => (name, name),
            WrittenModel::Alias(alias) if is_pattern(&alias.r#as) => {
                return Err(format!("{key}.as: it must be a name and not a pattern"));
            }
            WrittenModel::Alias(Alias { r#as, name }) => (r#as, name),
        };
        name_of(&key, name)?;
        name_of(&key, there)?;
        if !models.add(name, there) {
            return Err(format!("{key}: {:?} stands in it twice", one_line(name, 64)));
        }
    }
    Ok(models)
}

fn pass_through(written: Option<WrittenPassing>) -> Result<PassThrough, String> {
    let paths = match written {
        None | Some(WrittenPassing::Usual(true)) => return Ok(PassThrough::Usual),
        Some(WrittenPassing::Usual(false)) => return Ok(PassThrough::Nothing),
        Some(WrittenPassing::Below(paths)) => paths,
    };
    for (place, path) in paths.iter().enumerate() {
        let key = format!("pass-through[{place}]");
        name_of(&key, path)?;
        if !path.starts_with('/') || path.contains(['?', '#', '%']) {
            return Err(format!("{key}: it must be a path below the URL, as in \"/files\""));
        }
    }
    Ok(PassThrough::Below(paths))
}

fn tenants(written: &[String]) -> Result<Tenants, String> {
    for (place, pattern) in written.iter().enumerate() {
        name_of(&format!("tenants[{place}]"), pattern)?;
    }
    Ok(Tenants(written.iter().map(|pattern| WildMatch::new(pattern)).collect()))
}

fn url(written: &str) -> Result<Uri, String> {
    let wrong = |why: &str| format!("url: {why}, as in \"http://127.0.0.1:8000/v1\"");
    let uri: Uri =
        written.trim_end_matches('/').parse().map_err(|_| wrong("it must be an absolute URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if uri.query().is_some() || uri.authority().is_none_or(|host| host.as_str().contains('@')) {
        return Err(wrong("it must have no query and no password"));
    }
    Ok(uri)
}

fn name_of(key: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME || text.chars().any(char::is_control) {
        return Err(format!(
            "{key}: it must have from 1 to {NAME} bytes, without control characters"
        ));
    }
    Ok(())
}

fn range(
    key: &str,
    given: Option<u64>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<u64, String> {
    match given.unwrap_or(default) {
        n if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("{key}: it must be from {least} to {most}")),
    }
}

/// One line that names the key, as far as the parser got, and where it stands.
fn at_place(text: &str, path: &str, error: &toml::de::Error) -> String {
    place::fault(text, path, error.span().map(|span| span.start), error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Configuration, String> {
        let environment = |name: &str| (name == "KEY").then(|| "secret\n".to_owned());
        parse(text, Path::new("/nowhere"), environment).map_err(|wrong| match wrong {
            Wrong::Here(problem) => problem,
            Wrong::Elsewhere(error) => error.to_string(),
        })
    }

    const ONE: &str = "[[backend]]\nname = \"a\"\nurl = \"http://h:1/v1/\"\n";

    #[test]
    fn every_key_is_read() {
        let text = format!(
            "balance = \"round-robin\"\nretry-budget = 0.5\n[breaker]\nfaults = 2\nwindow-ms = 1000\npause-ms = 5\n\
             longest-pause-ms = 50\n{ONE}kind = \"anthropic\"\nprovider = \"p\"\nkey-env = \"KEY\"\n\
             models = [\"m\", {{ as = \"x\", name = \"y/z\" }}, \"q*\"]\ntenants = [\"t-*\"]\nweight = 3\nmax-in-flight = 4\n\
             connect-timeout-ms = 1\nfirst-byte-timeout-ms = 2\nidle-timeout-ms = 3\n\
             health = {{ path = \"/health\", every-ms = 10, timeout-ms = 11 }}\nproxy = \"u:p@there:1\"\nretries = 0\ninject-usage = false\n\
             pass-through = [\"/files\"]\nmax-event-mib = 1\nmax-answer-mib = 2\n"
        );
        let configuration = parsed(&text).unwrap();
        assert_eq!(configuration.balance, Balance::RoundRobin);
        assert_eq!(configuration.breaker.longest_pause, Duration::from_millis(50));
        let a = &configuration.backends[0];
        assert_eq!(a.url, "http://h:1/v1");
        assert_eq!(a.key, Some(Secret("secret".to_owned())));
        assert_eq!(a.models.named("x").as_deref(), Some("y/z"));
        assert!(a.models.named("m").is_some() && a.models.named("q1").is_none());
        assert!(a.models.fits("q1") && !a.models.fits("m"));
        assert!(a.tenants.admit(Some("t-1")) && !a.tenants.admit(None));
        assert_eq!((a.weight, a.max_in_flight, a.retries), (3, Some(4), 0));
        assert_eq!(a.pass_through, PassThrough::Below(vec!["/files".to_owned()]));
        assert_eq!(a.health.as_ref().unwrap().every, Duration::from_millis(10));
        assert_eq!(a.proxy.as_ref().map(Proxy::place).as_deref(), Some("http://there:1"));
        assert!(!format!("{a:?}").contains("secret"));
        let defaults = &parsed(ONE).unwrap().backends[0];
        assert!(defaults.models.fits("anything") && defaults.tenants.admit(None));
        assert_eq!(defaults.provider, "openai");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            ("wrong = 1\n".to_owned(), "unknown field `wrong`"),
            (
                format!("{ONE}wieght = 1\n"),
                "backend[0].wieght at line 4, column 1: unknown field `wieght`",
            ),
            (format!("{ONE}models = [{{ as = \"x\", nam = \"y\" }}]\n"), "backend[0].models[0]"),
            (format!("{ONE}models = []\n"), "backend[0] (a): models: there must be"),
            (format!("{ONE}models = [\"m\", \"m\"]\n"), "models[1]: \"m\" stands in it twice"),
            (format!("{ONE}models = [{{ as = \"x*\", name = \"y\" }}]\n"), "models[0].as"),
            (format!("{ONE}{ONE}"), "backend[1] (a): name: another backend has it"),
            (format!("{ONE}provider = \"tollgate\"\n"), "backend[0] (a): provider: `tollgate` is"),
            (format!("{ONE}weight = 0\n"), "weight: it must be from 1 to 1000"),
            (format!("{ONE}key-env = \"NO\"\n"), "key-env: the environment has no NO"),
            (format!("{ONE}key-file = \"no\"\n"), "cannot read /nowhere/no"),
            (format!("{ONE}key-file = \"no\"\nkey-env = \"KEY\"\n"), "key-file"),
            ("[[backend]]\nname = \"a\"\nurl = \"h:1\"\n".to_owned(), "url: it must"),
            ("[[backend]]\nname = \"a\"\nurl = \"ftp://h\"\n".to_owned(), "url: it must begin"),
            ("[[backend]]\nname = \"a\"\n".to_owned(), "missing field `url`"),
            ("retry-budget = 2.0\n".to_owned(), "retry-budget: it must be from 0 to 1"),
            (format!("{ONE}health = {{ path = \"x\" }}\n"), "health.path"),
            (format!("{ONE}pass-through = \"/files\"\n"), "true, false, or a list of paths"),
            (format!("{ONE}pass-through = [\"files\"]\n"), "pass-through[0]: it must be a path"),
            (format!("{ONE}proxy = \"socks5://h\"\n"), "backend[0] (a): proxy: SOCKS"),
            ("balance = \"best\"\n".to_owned(), "balance at line 1, column 11"),
        ];
        for (text, expected) in cases {
            let problem = parsed(&text).unwrap_err();
            assert!(problem.contains(expected), "{text}\n{problem}");
        }
    }
}
