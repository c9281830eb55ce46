//! Benchmarks by name. Each prints a table to read and, as its last line, one JSON object.

use crate::building;
use crate::process::{Outcome, cargo, run};

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
        about: "price, enrich and filter calls, loading, starting, a million calls; beside native Rust",
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
        about: "prompts read, tokens written by 1, 4 and 16 sequences, first token; --model FILE --packings f32,q4_k",
    },
    Bench {
        name: "gateway",
        targets: &[("tollgate", "gateway")],
        about: "what the gateway adds to a request and an event, with each thing off in turn; --smg PATH --seconds N --rounds N --quick",
    },
    Bench {
        name: "otlp",
        targets: &[("tollgate", "otlp")],
        about: "what a received span costs, by what is done with it, beside a stock agent; --rotel PATH --spans N --rounds N",
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
    building::build_plugins()?;
    bench.targets.iter().try_for_each(|(package, target)| {
        run(cargo(["bench", "-p", package, "--bench", target, "--"]).args(rest))
    })
}
