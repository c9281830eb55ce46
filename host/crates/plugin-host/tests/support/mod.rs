//! What the tests of this crate share: a plugin folder of their own, the components that `cargo xtask build-plugins` makes,
//! and texts to compare with.

pub mod craft;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, TokenUsage, UsageSource};
use tollgate_domain::{
    CostOutcome, FaultKind, Span, SpanContext, SpanId, TraceId, UnixNanos, Usage,
};
use tollgate_plugin_host::{Limits, PluginHost, PluginHostSettings};

/// The file of a plugin that was built from `plugins/`.
pub fn built(name: &str) -> PathBuf {
    let plugins =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/target/wasm32-wasip2/release");
    let file = plugins.join(format!("{name}.wasm"));
    assert!(file.exists(), "{name}.wasm is missing: run `cargo xtask build-plugins`");
    file
}

/// A plugin folder that goes with the test, and its host.
pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub host: PluginHost,
}

impl Fixture {
    /// With `files` copied under new names, and limits with which a bad plugin is not kept out by its trial call.
    pub fn new(files: &[(&str, &str)], limits: Limits) -> Self {
        Self::prepared(limits, |folder| {
            for (plugin, name) in files {
                fs::copy(built(plugin), folder.join(name)).unwrap();
            }
        })
    }

    /// With whatever `prepare` puts into the folder before the host sees it.
    pub fn prepared(limits: Limits, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut settings = PluginHostSettings::new(folder.path());
        settings.rescan_every = Duration::from_secs(1);
        settings.limits = limits;
        Self { host: PluginHost::start(settings).unwrap(), folder }
    }

    /// Puts a file into the folder at once, as a careful operator does.
    pub fn place(&self, name: &str, bytes: &[u8]) {
        let temporary = self.folder.path().join(".arriving");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, self.folder.path().join(name)).unwrap();
    }

    /// Waits until something holds.
    pub fn until(&self, what: &str, holds: impl Fn(&PluginHost) -> bool) {
        until(&self.host, what, holds);
    }

    /// Configures `file` by plugins.toml and waits for the swap.
    pub fn configure(&self, file: &str, config: &str) {
        let before = self.host.pin().generation();
        let text = format!("[[plugin]]\nfile = \"{file}\"\norder = -1\nconfig = {config}\n");
        self.place("plugins.toml", text.as_bytes());
        self.until(config, |host| host.pin().generation() > before);
    }

    /// The decimal amount that this usage costs now.
    pub fn amount(&self, model: &str, input: u64, output: u64) -> String {
        amount(&self.host.pin().price(None, &usage(model, input, output)))
    }
}

pub fn amount(outcome: &CostOutcome) -> String {
    outcome.cost().map_or_else(|| format!("{outcome:?}"), |cost| cost.total.decimal())
}

pub fn usage(model: &str, input: u64, output: u64) -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: model.to_owned(),
        response_model: model.to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_760_000_000_000_000_000),
        tokens: TokenUsage { input, output, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}

/// A span of a request.
pub fn span() -> Span {
    let mut attributes = Attributes::new();
    attributes.set("llm.model", "m");
    Span {
        context: SpanContext {
            trace_id: TraceId(1),
            span_id: SpanId(2),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: "inference.request".into(),
        kind: SpanKind::Server,
        interval: Interval::new(UnixNanos(1), UnixNanos(2)),
        status: SpanStatus::Unset,
        attributes,
        events: Vec::new(),
        received: None,
    }
}

/// Waits until something holds of a host.
pub fn until(host: &PluginHost, what: &str, holds: impl Fn(&PluginHost) -> bool) {
    let began = Instant::now();
    while !holds(host) {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "not in time: {what}; {:#?}",
            host.status()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
/// Why a file is not used, as the operator reads it, or what serves from it.
pub fn verdict(host: &PluginHost, file: &str) -> String {
    let status = host.status();
    let Some(status) = status.iter().find(|status| status.file == file) else {
        return "not seen".to_owned();
    };
    match (&status.error, &status.identity) {
        (Some(error), _) => format!("{}: {}", error.kind, error.message),
        (None, Some(identity)) => format!("serves as {}", identity.name),
        (None, None) => "neither serves nor is refused".to_owned(),
    }
}

/// The outcome of a price call in one line.
pub fn shown(outcome: &CostOutcome) -> String {
    match outcome {
        CostOutcome::PluginFailed(fault) => told(fault.kind, &fault.message),
        other => amount(other),
    }
}

/// A fault in one line. Where in its source a guest panicked is its own business.
pub fn told(kind: FaultKind, message: &str) -> String {
    assert!(!message.contains('\n') && message.len() < 4096, "{message}");
    let message =
        message.split_whitespace().map(|word| if word.contains(".rs:") { "FILE" } else { word });
    format!("{}: {}", kind.name(), message.collect::<Vec<_>>().join(" "))
}

/// Compares with `tests/expected/NAME`; `UPDATE_EXPECTED=1 cargo test` rewrites it: read the difference.
pub fn expect(name: &str, lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected").join(name);
    let found = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differences: Vec<String> = found
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line))
        .map(|line| format!("+ {line}"))
        .chain(
            expected
                .lines()
                .filter(|line| !found.lines().any(|other| other == *line))
                .map(|line| format!("- {line}")),
        )
        .collect();
    assert!(
        found == expected,
        "{name}:\n{}\nif this is meant, run with UPDATE_EXPECTED=1",
        differences.join("\n")
    );
}
