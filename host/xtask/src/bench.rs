//! Benchmarks by name. Each prints a table to read and, as its last line, one JSON object.

use crate::building;
use crate::process::{Outcome, cargo, run};
use crate::python;

/// One benchmark: some `[[bench]]` of some crates.
struct Bench {
    name: &'static str,
    /// Package and target.
    targets: &'static [(&'static str, &'static str)],
    about: &'static str,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "plugins",
        targets: &[("tollgate-plugin-host", "plugins")],
        about: "price, enrich and filter calls, loading, starting, a million calls; beside native Rust; --load FILE",
    },
    Bench {
        name: "ledger",
        targets: &[("tollgate-ledger", "ledger"), ("tollgate", "delivery")],
        about: "commits by concurrency and durability, disk, opening and verifying, delivery; --records N --delivered N",
    },
    Bench {
        name: "upstream",
        targets: &[("tollgate-upstream", "upstream")],
        about: "what a streamed event costs: framing, reading, stripping, the account; and a round trip",
    },
    Bench {
        name: "engine",
        targets: &[("tollgate-engine", "engine")],
        about: "prompts read, tokens written by 1, 4 and 16 sequences, first token; --beside llama.cpp --model FILE --shapes 15m,110m --packings f32,q4_k --threads N --turns N",
    },
    Bench {
        name: "gateway",
        targets: &[("tollgate", "gateway")],
        about: "what the gateway adds to a request and an event, with each thing off in turn; --smg PATH --seconds N --rounds N --quick",
    },
    Bench {
        name: "otlp",
        targets: &[("tollgate", "otlp")],
        about: "what a received span costs, by what is done with it, beside a stock agent; --rotel PATH --only NAME --spans N --rounds N",
    },
    Bench {
        name: "attribute-shapes",
        targets: &[("tollgate-plugin-host", "attribute_shapes")],
        about: "ways for span attributes to cross into a plugin and edits to come back",
    },
];

/// Runs the benchmark of that name, or lists them.
pub(crate) fn bench(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else {
        return Err("which one? `cargo xtask bench --list` names them".to_owned());
    };
    if name == "--list" {
        for bench in BENCHES {
            println!("{:<18} {}", bench.name, bench.about);
        }
        return Ok(());
    }
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        return Err(format!("no benchmark is named `{name}`; there are: {}", names.join(", ")));
    };
    let rest = &beside(rest)?;
    building::build_plugins()?;
    bench.targets.iter().try_for_each(|(package, target)| {
        run(cargo(["bench", "-p", package, "--bench", target, "--"]).args(rest))
    })
}

/// The arguments with llama.cpp installed, where the engine is to be measured beside it.
fn beside(arguments: &[String]) -> Outcome<Vec<String>> {
    let Some(at) = arguments.iter().position(|argument| argument == "--beside") else {
        return Ok(arguments.to_vec());
    };
    match arguments.get(at + 1).map(String::as_str) {
        Some("llama.cpp") => {}
        _ => return Err("ours can be measured `--beside llama.cpp` and nothing else".to_owned()),
    }
    let python = python::with_llama_cpp()?.to_string_lossy().into_owned();
    let mut all = arguments.to_vec();
    all.splice(at..=at + 1, ["--llama-python".to_owned(), python]);
    Ok(all)
}
