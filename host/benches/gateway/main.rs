//! What a gateway adds: `cargo xtask bench gateway [--smg PATH] [--seconds N] [--rounds N] [--quick]`.
//!
//! The program itself forwards to an upstream with fixed answers. The gateway has a core alone; load, upstream and a receiver
//! of OTLP, threads of this process, share another. Measured are the upstream itself (`direct`), the gateway with
//! everything on, with each thing off in turn, and with nothing but forwarding; a name with `+` is what is left when `direct`
//! of the same round is taken off. Two programs that do nothing but forward are the floor of what a gateway can cost here: one
//! copies bytes, the other reads and writes HTTP with the library that the gateway has. Requests per second and core are those of one second of the gateway's processor time,
//! what it spends on delivering their traces afterwards included. An event of a stream comes either as soon as the one before
//! was sent (`fast`, on one connection) or as a batch of sequences makes them (`paced`, on all connections); what a plain
//! request takes is taken off.
//!
//! SMG is measured in the same run if it is on the PATH or named: `python3 -m venv target/smg && target/smg/bin/pip install
//! smg`, then `--smg target/smg/bin/smg`. Figures of two runs do not compare: machines drift.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and ends at the first fault"
)]

mod client;
mod cores;
mod floors;
mod load;
mod options;
#[path = "../places/mod.rs"]
mod places;
mod process;
mod report;
mod round;
mod servers;
mod subject;
mod variants;

use std::fs;
use std::path::Path;

use cores::Cores;
use floors::FLOORS;
use options::Options;
use round::{Figures, add_differences, measure, medians};
use servers::{Receiver, Upstream};
use subject::{Subject, Surroundings};
use variants::{VARIANTS, Variant};

/// Its row.
const SMG: &str = "SMG, nothing on";

/// Something to measure.
enum Plan {
    Direct,
    Floor(&'static str),
    Tollgate(&'static Variant),
    Smg(std::path::PathBuf),
}

fn main() {
    floors::serve_if_asked();
    let Some(options) = Options::given() else { return };
    if !cfg!(target_os = "linux") {
        println!("it reads /proc, and runs on Linux only");
        return;
    }
    let cores = Cores::choose();
    let around = Surroundings { cores, upstream: Upstream::start(), receiver: Receiver::start() };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let plans = plans(&options);
    let began = load_average();
    let mut rounds: Vec<Vec<Figures>> = plans.iter().map(|_| Vec::new()).collect();
    for number in 1..=options.rounds {
        let mut direct = Figures::new();
        for ((name, plan), measured) in plans.iter().zip(&mut rounds) {
            let own = folder.path().join(name.replace(' ', "-"));
            fs::create_dir_all(&own).unwrap();
            let subject = start(plan, &own, &around);
            let mut figures = measure(&subject, &around.upstream, &options);
            match plan {
                Plan::Direct => direct.clone_from(&figures),
                _ => add_differences(&mut figures, &direct),
            }
            println!("round {number} of {}: {}", options.rounds, report::line(name, &figures));
            measured.push(figures);
        }
    }
    let names = plans.iter().map(|(name, _)| name.clone());
    let rows: Vec<(String, Figures)> =
        names.zip(rounds.iter().map(|figures| medians(figures))).collect();
    let load = [began, load_average()];
    explain(&options, cores, load);
    report::print(&rows);
    let row = |wanted: &str| rows.iter().find(|(name, _)| name == wanted);
    if let (Some(ours), Some(smg)) = (row(VARIANTS[0].name), row(SMG)) {
        report::compare(ours, smg);
    } else if options.smg().is_none() {
        println!("\nSMG was not measured: it is not on the PATH, and --smg names none");
    }
    report::print_json(&options, load, &rows);
}

/// What is measured, in order: SMG right after what it is compared with.
fn plans(options: &Options) -> Vec<(String, Plan)> {
    let mut plans: Vec<(String, Plan)> =
        VARIANTS.iter().map(|variant| (variant.name.to_owned(), Plan::Tollgate(variant))).collect();
    if let Some(program) = options.smg() {
        plans.insert(1, (SMG.to_owned(), Plan::Smg(program)));
    }
    if options.quick {
        plans.retain(|(_, plan)| !matches!(plan, Plan::Tollgate(variant) if !variant.is_quick));
    }
    if let Some(words) = &options.only {
        plans.retain(|(name, _)| name.contains(words));
    }
    let floors = FLOORS.iter().map(|floor| ((*floor).to_owned(), Plan::Floor(floor)));
    let direct = ("direct".to_owned(), Plan::Direct);
    std::iter::once(direct).chain(floors).chain(plans).collect()
}

fn start(plan: &Plan, folder: &Path, around: &Surroundings) -> Subject {
    match plan {
        Plan::Direct => Subject::direct(around),
        Plan::Floor(floor) => Subject::floor(floor, folder, around),
        Plan::Tollgate(variant) => Subject::tollgate(variant, folder, around),
        Plan::Smg(program) => Subject::smg(program, folder, around),
    }
}

/// Of the last minute, as far as it is known.
fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|one| one.parse().ok()).unwrap_or_default()
}

fn explain(options: &Options, cores: Cores, [before, after]: [f64; 2]) {
    let Options { seconds, rounds, connections, rate, pace, .. } = options;
    println!(
        "\ngateway on core {}, load on core {}; medians of {rounds} rounds of {seconds} s; closed and paced on {connections} \
         connections, open loop of {rate} requests/s, paced events {pace} ms apart; load average {before} before, {after} after",
        cores.gateway, cores.load
    );
    if cores.gateway == cores.load {
        println!("there is one core only: all figures are those of a gateway that shares it");
    }
}
