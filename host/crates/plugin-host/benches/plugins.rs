//! What plugins cost: a price call, spans through an enricher and a filter, loading, starting, and memory over a million
//! calls; each beside the same work in native Rust in the same run. Prints tables, then one JSON object as the last line.
//! `--load FILE`, as often as wanted, loads that cost model too, whatever language it came from. `--repeat WHAT BATCH TIMES`
//! does one thing so often and measures nothing: for callgrind, which is to look at `repeated` alone.
//!
//! All of it is the whole path as the gateway goes it: pin the set, take a warm instance, arm the deadline, lower, call,
//! lift, check, put the instance back. Machines are noisy: compare within one run.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark"
)]

#[path = "../tests/support/craft.rs"]
#[allow(dead_code, reason = "the tests craft more than one")]
mod craft;
#[path = "plugins/inputs.rs"]
mod inputs;
#[path = "plugins/measure.rs"]
mod measure;
#[path = "plugins/native.rs"]
mod native;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tollgate_domain::{Resource, Span};
use tollgate_plugin_host::{PluginHost, PluginHostSettings};

use self::inputs::{spans, usage};
use self::measure::{Figures, measure, measure_of, resident_bytes};
use self::native::Native;

const BATCHES: [usize; 3] = [1, 8, 64];
const LABELS: &str = "[[plugin]]\nfile = 'enrich_labels.wasm'\nconfig.labels = [\
    { key = 'label.team', from = 'tollgate.tenant', map = { acme-research = 'research' }, default = 'other' },\
    { key = 'label.tier', value = 'gold', when = { model = 'mistral-*' } }]\n";
const RULES: &str = "[[plugin]]\nfile = 'filter_redact.wasm'\nconfig.rules = [\
    { drop = ['user.*'] }, { exporter = 'console', drop_spans = { name = 'health' } }]\n";

fn main() {
    let words: Vec<_> = std::env::args().collect();
    if let Some(at) = words.iter().position(|word| word == "--repeat") {
        let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap();
        return repeat(words.get(at + 1).unwrap(), number(at + 2), number(at + 3));
    }
    let mut told = Vec::new();
    println!("one price call: tenant, models and counts; deadline on");
    println!("{}", Figures::HEADER);
    told.push(price());
    println!("\none span of 20 attributes, by the size of the batch (ns a span)");
    println!("{}", Figures::HEADER);
    told.push(enrich());
    told.push(filter());
    println!();
    told.push(loading());
    told.push(million());
    println!("{{\"bench\":\"plugins\",{}}}", told.join(","));
}

/// A host of one plugin, and its folder.
struct Hosted {
    host: PluginHost,
    folder: tempfile::TempDir,
}

fn component(name: &str) -> PathBuf {
    // Other builds of the same plugins can be measured in their place.
    let built = std::env::var_os("TOLLGATE_COMPONENTS").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../../plugins/target/wasm32-wasip2/release")
        },
        PathBuf::from,
    );
    let file = built.join(format!("{name}.wasm"));
    assert!(file.exists(), "{name}.wasm is missing: run `cargo xtask build-plugins`");
    file
}

fn hosted(name: &str, manifest: &str, change: impl FnOnce(&mut PluginHostSettings)) -> Hosted {
    hosted_file(&component(name), manifest, change)
}

fn hosted_file(
    file: &Path,
    manifest: &str,
    change: impl FnOnce(&mut PluginHostSettings),
) -> Hosted {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
    fs::write(folder.path().join("plugins.toml"), manifest).unwrap();
    let mut settings = PluginHostSettings::new(folder.path());
    change(&mut settings);
    let host = PluginHost::start(settings).unwrap();
    assert_eq!(host.pin().plugins().count(), 1, "{:?}", host.status());
    Hosted { host, folder }
}

/// A cost model by hand that looks at nothing and answers one line: what is left is the host, wasmtime and the contract.
fn hosted_idle() -> Hosted {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("idle.wasm");
    fs::write(&file, craft::component(craft::Craft::default())).unwrap();
    hosted_file(&file, "", |_| {})
}

fn price() -> String {
    let warm = hosted("cost_per_token", "", |_| {});
    let fresh = hosted("cost_per_token", "", |settings| {
        settings.limits.calls_per_instance = (1, 1);
    });
    let idle = hosted_idle();
    let (usage, native) = (usage(), Native::new());
    let (by_plugin, expected) =
        (warm.host.pin().price(Some("acme"), &usage), native.price(Some("acme"), &usage));
    assert_eq!(
        by_plugin.cost().map(|cost| cost.total),
        expected.cost().map(|cost| cost.total),
        "the two must agree: {by_plugin:?}"
    );
    let ask = |host: &PluginHost| host.pin().price(black_box(Some("acme")), black_box(&usage));
    let plugin = measure(1, 1, || ask(&warm.host));
    let fresh = measure(1, 1, || ask(&fresh.host));
    let idle = measure(1, 1, || ask(&idle.host));
    let native = measure(64, 1, || native.price(black_box(Some("acme")), black_box(&usage)));
    println!("{}", plugin.row("plugin"));
    println!("{}", idle.row("  one that only answers"));
    println!("{}", fresh.row("with a fresh instance"));
    println!("{}", native.row("native Rust"));
    format!(
        "\"price\":{{\"plugin\":{},\"only_answers\":{},\"fresh\":{},\"native\":{}}}",
        plugin.json(),
        idle.json(),
        fresh.json(),
        native.json()
    )
}

fn enrich() -> String {
    let enricher = hosted("enrich_labels", LABELS, |_| {});
    let resource = Resource::default();
    let rows = BATCHES.map(|batch| {
        let fresh = spans(batch);
        let mut enriched = fresh.clone();
        assert!(enricher.host.pin().enrich(Some("acme"), &resource, &mut enriched).is_empty());
        let mut by_hand = fresh.clone();
        native::enrich(&mut by_hand);
        assert_eq!(enriched, by_hand, "the two must agree");
        // The same keys are set again and again, so the spans stay as large as they are.
        let plugin = measure(1, batch, || {
            enricher.host.pin().enrich(Some("acme"), &resource, black_box(&mut enriched))
        });
        let native = measure(8, batch, || native::enrich(black_box(&mut by_hand)));
        println!("{}", plugin.row(&format!("enrich, batch of {batch}")));
        println!("{}", native.row("  native Rust"));
        format!("{{\"batch\":{batch},\"plugin\":{},\"native\":{}}}", plugin.json(), native.json())
    });
    format!("\"enrich\":[{}]", rows.join(","))
}

fn filter() -> String {
    let filter = hosted("filter_redact", RULES, |_| {});
    let resource = Resource::default();
    let rows = BATCHES.map(|batch| {
        let whole = spans(batch);
        let through =
            |spans: Vec<Span>| filter.host.pin().filter("console", None, &resource, spans);
        assert_eq!(
            through(whole.clone()).kept,
            native::filter(whole.clone()),
            "the two must agree"
        );
        // Filters take the spans, so each try has its own: copies that share their attributes would be taken apart when one
        // is removed.
        let own = || whole.iter().map(apart).collect::<Vec<_>>();
        let plugin = measure_of(1, batch, own, through);
        let native = measure_of(8, batch, own, native::filter);
        println!("{}", plugin.row(&format!("filter, batch of {batch}")));
        println!("{}", native.row("  native Rust"));
        format!("{{\"batch\":{batch},\"plugin\":{},\"native\":{}}}", plugin.json(), native.json())
    });
    format!("\"filter\":[{}]", rows.join(","))
}

/// A span that shares nothing with the one that it is a copy of.
fn apart(span: &Span) -> Span {
    let attributes: Vec<_> = span.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    Span { attributes: attributes.into(), ..span.clone() }
}

/// Loads: a start of the host over a folder with one plugin, the whole gate included; with the compiler in this process, and
/// with the machine code that an earlier start kept.
fn loading() -> String {
    let load = |folder: &Path, state: Option<&Path>| {
        let settings = PluginHostSettings {
            state: state.map(Path::to_owned),
            ..PluginHostSettings::new(folder)
        };
        let began = Instant::now();
        let host = PluginHost::start(settings).unwrap();
        assert_eq!(host.pin().plugins().count(), 1);
        began.elapsed().as_secs_f64() * 1e3
    };
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let bundled = [("cost_per_token", ""), ("enrich_labels", LABELS), ("filter_redact", RULES)];
    let bundled = bundled.map(|(name, manifest)| (component(name), manifest.to_owned()));
    let mut rows = Vec::new();
    println!("{:<28}{:>10}{:>12}{:>14}", "load", "cold ms", "cached ms", "instances/s");
    for (file, manifest) in bundled.into_iter().chain(loaded_too()) {
        let name = file.file_stem().unwrap().to_string_lossy();
        let plugin = hosted_file(&file, &manifest, |_| {});
        let (folder, kept) = (plugin.folder.path(), tempfile::tempdir().unwrap());
        let cold = median((0..5).map(|_| load(folder, None)).collect());
        // A folder of its own: machine code is kept in private ones only.
        let state = kept.path().join("state");
        load(folder, Some(&state));
        let cached = median((0..5).map(|_| load(folder, Some(&state))).collect());
        let fresh =
            hosted_file(&file, &manifest, |settings| settings.limits.calls_per_instance = (1, 1));
        let (resource, mut one, usage) = (Resource::default(), spans(1), usage());
        let starting = measure(1, 1, || match &*name {
            "enrich_labels" => drop(fresh.host.pin().enrich(None, &resource, &mut one)),
            "filter_redact" => {
                drop(fresh.host.pin().filter("console", None, &resource, one.clone()));
            }
            _ => drop(fresh.host.pin().price(None, &usage)),
        });
        let per_second = 1e9 / starting.p50.max(1.0);
        println!("{name:<28}{cold:>10.1}{cached:>12.1}{per_second:>14.0}");
        rows.push(format!(
            "{{\"plugin\":\"{name}\",\"cold_ms\":{cold:.2},\"cached_ms\":{cached:.2},\
             \"instances_per_second\":{per_second:.0}}}"
        ));
    }
    format!("\"loading\":[{}]", rows.join(","))
}

/// What `--load` names, with the limits that an interpreter needs.
fn loaded_too() -> Vec<(PathBuf, String)> {
    let words: Vec<_> = std::env::args_os().collect();
    let after = words.windows(2).filter(|pair| pair.first().is_some_and(|word| word == "--load"));
    let files = after.filter_map(|pair| pair.get(1).map(PathBuf::from));
    let manifest = |file: &Path| {
        let name = file.file_name().unwrap().to_string_lossy();
        let limits = "{ component-mib = 64, compile-s = 60, compile-mib = 4096 }";
        format!("[[plugin]]\nfile = '{name}'\nlimits = {limits}\n")
    };
    files.map(|file| (file.clone(), manifest(&file))).collect()
}

fn repeat(what: &str, batch: usize, times: usize) {
    let resource = Resource::default();
    match what {
        "price" => {
            let (priced, usage) = (hosted("cost_per_token", "", |_| {}), usage());
            repeated(times, || priced.host.pin().price(Some("acme"), &usage));
        }
        "idle" => {
            let (priced, usage) = (hosted_idle(), usage());
            repeated(times, || priced.host.pin().price(Some("acme"), &usage));
        }
        "enrich" => {
            let (enricher, mut spans) = (hosted("enrich_labels", LABELS, |_| {}), spans(batch));
            repeated(times, || enricher.host.pin().enrich(Some("acme"), &resource, &mut spans));
        }
        "filter" => {
            let (filter, spans) = (hosted("filter_redact", RULES, |_| {}), spans(batch));
            let own: Vec<Vec<Span>> =
                (0..times).map(|_| spans.iter().map(apart).collect()).collect();
            let (mut own, mut answers) = (own.into_iter(), Vec::with_capacity(times));
            let through = |spans| filter.host.pin().filter("console", None, &resource, spans);
            repeated(times, || answers.push(through(own.next().unwrap())));
        }
        other => panic!("{other} is none of price, idle, enrich and filter"),
    }
}

/// By itself, so that a profiler can be told to look at nothing else.
#[inline(never)]
fn repeated<R>(times: usize, mut call: impl FnMut() -> R) {
    for _ in 0..times {
        black_box(call());
    }
}

/// A million price calls and what the process holds meanwhile.
fn million() -> String {
    let priced = hosted("cost_per_token", "", |_| {});
    let usage = usage();
    let mut resident = Vec::new();
    println!("\n{:<28}{:>14}", "calls", "resident KiB");
    for calls in (0..=1_000_000_u32).step_by(100_000) {
        if calls > 0 {
            for _ in 0..100_000 {
                let outcome = priced.host.pin().price(Some("acme"), &usage);
                assert!(outcome.cost().is_some(), "{outcome:?}");
            }
        }
        let bytes = resident_bytes();
        println!("{calls:<28}{:>14}", bytes >> 10);
        resident.push(bytes);
    }
    // After the first hundred thousand, when everything is warm.
    let warm = resident.get(1).copied().unwrap_or_default();
    let last = resident.last().copied().unwrap_or_default();
    let growth = i64::try_from(last).unwrap_or_default() - i64::try_from(warm).unwrap_or_default();
    println!("{:<28}{:>14}", "growth after the first 100k", growth >> 10);
    format!("\"million\":{{\"resident_bytes\":{resident:?},\"growth_bytes\":{growth}}}")
}
