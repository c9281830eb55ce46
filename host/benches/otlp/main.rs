//! What received spans cost: `cargo xtask bench otlp [--rotel PATH] [--only NAME] [--spans N] [--rounds N]`.
//!
//! Spans with 20 attributes each, one in five a call of a model, go by OTLP/HTTP in requests of 500 through each subject to a
//! receiver on this machine: the program with no plugins, with a cost model, with the bundled set, with either durability of
//! the ledger; and, with `--rotel`, a stock OTLP agent in the same rounds (`pip download rotel` brings one). A span's price
//! is the processor time of the subject's process from the first request until the receiver has the last span; sender and
//! receiver are threads of this process and not in it. Of several rounds the median counts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

#[path = "../places/mod.rs"]
mod places;
mod receiver;
mod sender;
mod spans;
mod subject;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use places::from_top;
use receiver::Receiver;
use subject::{Durability, Kind, Subject};

/// Longest that spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// Spans that go before what is measured, so that connections and caches are there.
const WARM: usize = 2_000;

struct Options {
    rotel: Option<PathBuf>,
    /// The one subject that is wanted, as for a profile.
    only: Option<String>,
    program: PathBuf,
    spans: usize,
    rounds: usize,
}

/// What one round of one subject came to.
#[derive(Clone, Copy)]
struct Round {
    nanos_per_span: f64,
    spans_per_second: f64,
}

fn main() {
    let options = options();
    let bundled = &["cost_per_token", "cost_device_seconds", "enrich_labels", "filter_redact"][..];
    let tollgate = |name, plugins, durability| Kind::Tollgate { name, plugins, durability };
    let mut kinds = vec![
        tollgate("nothing", &[][..], Durability::Power),
        tollgate("price", &bundled[..1], Durability::Power),
        tollgate("price, enrich", &bundled[..3], Durability::Power),
        tollgate("price, enrich, filter", bundled, Durability::Power),
        tollgate("nothing, process", &[][..], Durability::Process),
        tollgate("price, enrich, filter, process", bundled, Durability::Process),
    ];
    kinds.extend(options.rotel.clone().map(Kind::Rotel));
    if let Some(only) = &options.only {
        kinds.retain(|kind| kind.name() == only);
        assert!(!kinds.is_empty(), "no subject is named {only:?}");
    }
    let mut rounds = vec![Vec::new(); kinds.len()];
    for number in 0..options.rounds {
        for (kind, so_far) in kinds.iter().zip(&mut rounds) {
            so_far.push(round(kind, &options, number));
        }
    }
    let rows: Vec<(&str, Round)> =
        kinds.iter().map(Kind::name).zip(rounds.into_iter().map(median)).collect();
    report(&rows, &options);
}

fn options() -> Options {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name, default| given(name).map_or(default, |number| number.parse().unwrap());
    Options {
        rotel: given("--rotel").map(from_top),
        only: given("--only"),
        program: given("--program")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tollgate")), from_top),
        spans: number("--spans", 200_000),
        rounds: number("--rounds", 3).max(1),
    }
}

/// Sends all spans through a fresh subject.
fn round(kind: &Kind, options: &Options, number: usize) -> Round {
    let receiver = Receiver::start();
    let subject = Subject::start(kind, &options.program, &receiver.endpoint());
    let seed = (number as u64 + 1) << 40;
    sender::send(subject.endpoint(), seed, WARM);
    wait(&receiver, WARM, kind);
    let (used, began) = (subject.processor_seconds(), Instant::now());
    sender::send(subject.endpoint(), seed | 1 << 32, options.spans);
    wait(&receiver, WARM + options.spans, kind);
    let (spans, took) = (options.spans as f64, began.elapsed());
    Round {
        nanos_per_span: (subject.processor_seconds() - used) * 1e9 / spans,
        spans_per_second: spans / took.as_secs_f64(),
    }
}

fn wait(receiver: &Receiver, spans: usize, kind: &Kind) {
    let begun = Instant::now();
    while receiver.spans() < spans {
        let arrived = receiver.spans();
        assert!(begun.elapsed() < PATIENCE, "{}: {arrived} of {spans} spans came", kind.name());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(receiver.spans(), spans, "{}: a span came twice", kind.name());
}

fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.nanos_per_span.total_cmp(&b.nanos_per_span));
    rounds[rounds.len() / 2]
}

fn report(rows: &[(&str, Round)], options: &Options) {
    let of = |wanted: &str| rows.iter().find(|(name, _)| *name == wanted).map(|(_, round)| *round);
    let agent = of("rotel");
    println!(
        "\n{:<32} {:>12} {:>20} {:>14} {:>12}",
        "in -> ... -> out", "ns per span", "spans/s per core", "spans/s", "of the agent"
    );
    for (name, round) in rows {
        let ratio = agent.map_or_else(String::new, |agent| {
            format!("{:.2}", agent.nanos_per_span / round.nanos_per_span)
        });
        println!(
            "{name:<32} {:>12.0} {:>20.0} {:>14.0} {ratio:>12}",
            round.nanos_per_span,
            1e9 / round.nanos_per_span,
            round.spans_per_second
        );
    }
    println!("\nstage, by the difference it makes: ns per span");
    let stages = [
        ("take, commit, deliver", None, "nothing"),
        ("price", Some("nothing"), "price"),
        ("enrich", Some("price"), "price, enrich"),
        ("filter", Some("price, enrich"), "price, enrich, filter"),
    ];
    for (stage, without, with) in stages {
        let cost = |name| of(name).map(|round| round.nanos_per_span);
        if let (Some(with), Some(without)) = (cost(with), without.map_or(Some(0.0), cost)) {
            println!("{stage:<32} {:>12.0}", with - without);
        }
    }
    let rows = rows.iter().map(|(name, round)| {
        format!(
            r#"{{"through":"{name}","ns_per_span":{:.0},"spans_per_s":{:.0}}}"#,
            round.nanos_per_span, round.spans_per_second
        )
    });
    let rows: Vec<String> = rows.collect();
    println!(
        "\n{{\"bench\":\"otlp\",\"spans\":{},\"rounds\":{},\"rows\":[{}]}}",
        options.spans,
        options.rounds,
        rows.join(",")
    );
}
