//! Fuzzing by target: `host/fuzz` is built with coverage on the pinned toolchain and left to look for failures.
//!
//! libFuzzer needs coverage counters only, and stable rustc makes these by options of LLVM; no nightly and no sanitizer is
//! needed (there is next to no unsafe code to sanitize). Only our own crates under test get counters, by this program standing
//! in for rustc: everything below them is what the tests have compiled anyway, and a try does not have to look through the
//! counters of a whole wasm compiler that never runs. What is found new goes to `target/fuzz/found`, what fails to
//! `target/fuzz/failed`; `--keep` adds the smallest set of inputs with the same coverage to `host/fuzz/corpus`, which
//! `cargo test` replays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Outcome, cargo, root, run, target};

const TARGETS: &[&str] = &["answers", "manifest", "otlp-protobuf", "otlp-json", "upstream"];

/// Set for the program that stands in for rustc.
const STAND_IN: &str = "TOLLGATE_FUZZ_STAND_IN";

/// Crates that are watched.
const WATCHED: &[&str] = &[
    "fuzz_answers",
    "fuzz_manifest",
    "fuzz_otlp_protobuf",
    "fuzz_otlp_json",
    "fuzz_upstream",
    "tollgate_plugin_host",
    "tollgate_telemetry",
    "tollgate_upstream",
    "tollgate_domain",
];

/// Edge counters, a table of their places, and the operands of comparisons.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Largest input: an operator's file is longer, a failure hardly ever.
const MOST_BYTES: u32 = 4096;

/// `TARGET [--seconds N] [--keep]`
pub(crate) fn fuzz(arguments: &[String]) -> Outcome {
    let mut words = arguments.iter().map(String::as_str);
    let name = words.next().ok_or_else(|| format!("which target? {}", TARGETS.join(" or ")))?;
    if !TARGETS.contains(&name) {
        return Err(format!("no target is named `{name}`; there are: {}", TARGETS.join(", ")));
    }
    let (mut seconds, mut keep) = (60_u32, false);
    while let Some(word) = words.next() {
        match word {
            "--keep" => keep = true,
            "--seconds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                seconds = number.ok_or("--seconds takes a whole number")?;
            }
            other => return Err(format!("`{other}` is neither --seconds nor --keep")),
        }
    }
    let program = build(name)?;
    let folder = target().join("fuzz");
    let (found, failed) = (folder.join("found").join(name), folder.join("failed").join(name));
    let corpus = root().join("host/fuzz/corpus").join(name);
    for folder in [&found, &failed, &corpus] {
        fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    if keep {
        return run(Command::new(program)
            .args(["-set_cover_merge=1", "-use_counters=0", "-max_len=512"])
            .args([corpus, found]));
    }
    let mut fuzzer = Command::new(program);
    // The first folder takes what is new, the second is only read.
    fuzzer.arg(&found).arg(&corpus);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MOST_BYTES}"));
    fuzzer.arg(format!("-artifact_prefix={}/", failed.display()));
    fuzzer.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048"]);
    let words = root().join("host/fuzz").join(format!("{name}.dict"));
    if words.is_file() {
        fuzzer.arg(format!("-dict={}", words.display()));
    }
    run(&mut fuzzer).map_err(|reason| format!("{reason}; what fails is in {}", shorten(&failed)))
}

/// If cargo called this program in place of rustc: rustc, with counters for the crates that are watched.
pub(crate) fn stand_in() -> Option<Outcome> {
    std::env::var_os(STAND_IN)?;
    let mut words = std::env::args_os().skip(1);
    let mut rustc = Command::new(words.next()?);
    let words: Vec<_> = words.collect();
    let name = words.iter().skip_while(|word| *word != "--crate-name").nth(1);
    let watched = name.and_then(|name| name.to_str()).is_some_and(|name| WATCHED.contains(&name));
    rustc.args(&words);
    if watched {
        rustc.args(COVERAGE);
    }
    Some(process::become_silently(&mut rustc))
}

fn build(name: &str) -> Outcome<PathBuf> {
    let bin = format!("fuzz-{name}");
    let stand_in = std::env::current_exe().map_err(|error| error.to_string())?;
    // The whole workspace: the same features of what lies below as `cargo test` has, so none of it is compiled again.
    let selected = ["--workspace", "--features", "tollgate-fuzz/fuzzing", "--bin", &bin];
    let mut command = cargo(["build", "--locked"]);
    command.args(selected).env("RUSTC_WORKSPACE_WRAPPER", stand_in).env(STAND_IN, "1");
    run(command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "2"))?;
    Ok(target().join("debug").join(format!("{bin}{}", std::env::consts::EXE_SUFFIX)))
}

fn shorten(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
