//! What the tests of this crate share: a plugin folder of their own, and the components that `cargo xtask build-plugins` makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, TokenUsage, UsageSource};
use tollgate_domain::{CostOutcome, Span, SpanContext, SpanId, TraceId, UnixNanos, Usage};
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
        let folder = tempfile::tempdir().unwrap();
        for (plugin, name) in files {
            fs::copy(built(plugin), folder.path().join(name)).unwrap();
        }
        let settings = PluginHostSettings {
            folder: folder.path().to_owned(),
            rescan_every: Duration::from_secs(1),
            limits,
            ..PluginHostSettings::new("")
        };
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
    }
}
