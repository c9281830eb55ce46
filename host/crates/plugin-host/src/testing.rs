//! Inputs for the tests of this crate.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use arc_swap::ArcSwap;
use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{Span, SpanContext, SpanId, TokenUsage, TraceId, UnixNanos, Usage, Value};

use crate::control::Order;
use crate::engine::Runtime;
use crate::limits::PluginHostSettings;
use crate::meter::Meters;
use crate::registry::{Registry, Shared};
use crate::set::PluginSet;
use crate::watch::Reminder;

/// A component that `cargo xtask build-plugins` has built.
pub(crate) fn built(name: &str) -> Vec<u8> {
    let plugins =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins/target/wasm32-wasip2/release");
    let content = fs::read(plugins.join(format!("{name}.wasm")));
    content.unwrap_or_else(|_| panic!("{name}.wasm is missing: run `cargo xtask build-plugins`"))
}

/// A registry without the thread that owns it.
pub(crate) struct Alone {
    pub registry: Registry,
    pub shared: Arc<Shared>,
    /// The other ends of its channels.
    pub commands: SyncSender<Order>,
    _reminders: Receiver<Reminder>,
}

impl Alone {
    pub fn new(settings: PluginHostSettings, runtime: Runtime) -> Self {
        let shared = Arc::new(Shared {
            set: ArcSwap::from_pointee(PluginSet::new(0, Vec::new())),
            status: ArcSwap::from_pointee(Vec::new()),
            meters: Meters::default(),
        });
        let (commands, obeyed) = mpsc::sync_channel(4);
        let (alarm, reminders) = mpsc::sync_channel(1);
        let registry = Registry::new(settings, runtime, Arc::clone(&shared), obeyed, alarm);
        Self { registry, shared, commands, _reminders: reminders }
    }
}

/// A span with these attributes.
pub(crate) fn span(attributes: &[(&'static str, Value)]) -> Span {
    let mut all = Attributes::new();
    for (key, value) in attributes {
        all.set(*key, value.clone());
    }
    Span {
        context: SpanContext {
            trace_id: TraceId(1),
            span_id: SpanId(2),
            sampled: true,
            trace_state: None,
        },
        parent: None,
        parent_is_remote: false,
        name: Cow::Borrowed("inference.request"),
        kind: SpanKind::Server,
        interval: Interval::new(UnixNanos(1), UnixNanos(2)),
        status: SpanStatus::Unset,
        attributes: all,
        events: Vec::new(),
        received: None,
    }
}

/// Usage of a model.
pub(crate) fn usage(model: &str) -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: model.to_owned(),
        response_model: model.to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_750_000_000_000_000_000),
        tokens: TokenUsage { input: 12, output: 34, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}
