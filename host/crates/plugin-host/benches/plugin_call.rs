//! One call of a cost plugin through the whole path, beside the same arithmetic in native Rust.
//!
//! The whole path: pin the set, take a warm instance, arm the deadline, lower the usage (tenant, models, counts), call, lift
//! the lines, sum them, put the instance back. Prints a table, then one JSON object as the last line.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark"
)]

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use tollgate_domain::usage::{Phase, TokenUsage, UsageSource};
use tollgate_domain::{
    Cost, CostKind, CostLine, CostOutcome, Currency, Money, PluginIdentity, UnixNanos,
    UnpricedReason, Usage,
};
use tollgate_plugin_host::{PluginHost, PluginHostSettings};

const WARM_UP: usize = 2_000;
const CALLS: usize = 200_000;
/// Native calls are timed in groups: one is shorter than the clock can tell.
const GROUP: u32 = 64;
const LONGEST: Duration = Duration::from_secs(5);

fn main() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../plugins/target/wasm32-wasip2/release/cost_per_token.wasm");
    assert!(built.exists(), "cost_per_token.wasm is missing: run `cargo xtask build-plugins`");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(built, folder.path().join("cost.wasm")).unwrap();
    let host = PluginHost::start(PluginHostSettings::new(folder.path())).unwrap();
    let mut fresh = PluginHostSettings::new(folder.path());
    fresh.limits.calls_per_instance = (1, 1);
    let fresh = PluginHost::start(fresh).unwrap();

    let usage = usage();
    let native = Native::new();
    let by_plugin = host.pin().price(Some("acme"), &usage);
    let expected = native.price(Some("acme"), &usage);
    assert_eq!(
        by_plugin.cost().map(|cost| cost.total),
        expected.cost().map(|cost| cost.total),
        "the two must agree: {by_plugin:?}"
    );

    let plugin = measure(1, || host.pin().price(black_box(Some("acme")), black_box(&usage)));
    let fresh = measure(1, || fresh.pin().price(black_box(Some("acme")), black_box(&usage)));
    let native = measure(GROUP, || native.price(black_box(Some("acme")), black_box(&usage)));
    println!("one price call: tenant, models and counts; deadline on; {} calls", plugin.calls);
    println!("{:<24}{:>10}{:>10}{:>12}{:>10}", "", "p50 ns", "p99 ns", "p99.95 ns", "mean ns");
    for (name, f) in [
        ("plugin, whole path", &plugin),
        ("with a fresh instance", &fresh),
        ("native Rust", &native),
    ] {
        println!("{name:<24}{:>10.0}{:>10.0}{:>12.0}{:>10.0}", f.p50, f.p99, f.p9995, f.mean);
    }
    let ratio = plugin.p50 / native.p50.max(0.1);
    println!("{:<24}{ratio:>10.1}", "ratio of the medians");
    println!(
        "{{\"bench\":\"plugin_call\",\"calls\":{},\"plugin\":{},\"fresh\":{},\"native\":{},\"ratio_p50\":{ratio:.2}}}",
        plugin.calls,
        plugin.json(),
        fresh.json(),
        native.json()
    );
}

struct Figures {
    calls: usize,
    p50: f64,
    p99: f64,
    p9995: f64,
    mean: f64,
}

impl Figures {
    fn json(&self) -> String {
        let Self { p50, p99, p9995, mean, .. } = self;
        format!(
            "{{\"p50_ns\":{p50:.1},\"p99_ns\":{p99:.1},\"p99_95_ns\":{p9995:.1},\"mean_ns\":{mean:.1}}}"
        )
    }
}

fn measure<R>(group: u32, mut call: impl FnMut() -> R) -> Figures {
    for _ in 0..WARM_UP {
        black_box(call());
    }
    let began = Instant::now();
    let mut samples = Vec::with_capacity(CALLS);
    while samples.len() < CALLS && began.elapsed() < LONGEST {
        let start = Instant::now();
        for _ in 0..group {
            black_box(call());
        }
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(group));
    }
    samples.sort_by(f64::total_cmp);
    let at = |part: usize| samples.get(samples.len() * part / 10_000).copied().unwrap_or_default();
    let count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
    Figures {
        calls: samples.len(),
        p50: at(5_000),
        p99: at(9_900),
        p9995: at(9_995),
        mean: samples.iter().sum::<f64>() / f64::from(count),
    }
}

/// The tutorial's table, as a gateway without plugins would have it.
struct Native {
    rates: HashMap<&'static str, (i64, i64)>,
    default: (i64, i64),
    identity: PluginIdentity,
}

impl Native {
    fn new() -> Self {
        let rates = [
            ("gpt-3.5-turbo", (500_000, 1_500_000)),
            ("gpt-4o-mini", (150_000, 600_000)),
            ("mistral-7b", (100_000, 200_000)),
            ("llama-3-8b", (100_000, 200_000)),
        ];
        let identity = PluginIdentity {
            name: "native".to_owned(),
            version: "0.1.0".to_owned(),
            digest: "0".repeat(64),
        };
        Self { rates: rates.into(), default: (200_000, 400_000), identity }
    }

    fn price(&self, _tenant: Option<&str>, usage: &Usage) -> CostOutcome {
        let (input, output) =
            self.rates.get(usage.response_model.as_str()).copied().unwrap_or(self.default);
        let line = |kind, quantity: u64, rate: i64| {
            let amount_pico = i64::try_from(quantity).ok()?.checked_mul(rate)?;
            Some(CostLine { kind, quantity, amount_pico })
        };
        let lines = (|| {
            Some(vec![
                line(CostKind::Input, usage.tokens.input, input)?,
                line(CostKind::Output, usage.tokens.output, output)?,
            ])
        })();
        let Some(lines) = lines else {
            return CostOutcome::Unpriced { reason: UnpricedReason::MissingUsage };
        };
        let total =
            Money::new(lines.iter().map(|line| i128::from(line.amount_pico)).sum(), Currency::USD);
        CostOutcome::Priced(Cost { total, lines, plugin: self.identity.clone() })
    }
}

fn usage() -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: "gpt-4o-mini".to_owned(),
        response_model: "gpt-4o-mini".to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_760_000_000_000_000_000),
        tokens: TokenUsage { input: 1234, output: 567, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}
