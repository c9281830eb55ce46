//! `cargo xtask ...`: every task a person or CI runs, each on a fresh machine with nothing but rustup.
//!
//! A task does what it needs first (targets, plugins, a Python environment), shows what it runs, and when something is
//! missing says in one line what. Nothing here depends on another crate, so the first command starts within seconds.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod building;
mod component;
mod conformance;
mod deny;
mod endurance;
mod fixtures;
mod fuzz;
mod process;
mod python;
mod release;
mod testing;
mod tools;

use std::process::ExitCode;

use process::Outcome;

/// One command.
struct Task {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TASKS: &[Task] = &[
    Task {
        name: "serve",
        arguments: "[ARGS]",
        about: "build everything in release, then serve; ARGS go to `tollgate serve`",
        run: building::serve,
    },
    Task {
        name: "test",
        arguments: "[STEP]",
        about: "pass all tests, or one step of them",
        run: testing::test,
    },
    Task {
        name: "build",
        arguments: "",
        about: "build plugins and gateway in release: target/release/tollgate",
        run: building::build,
    },
    Task {
        name: "build-plugins",
        arguments: "",
        about: "build the plugins and fixtures alone, for wasm32-wasip2",
        run: building::build_plugins_task,
    },
    Task {
        name: "bench",
        arguments: "NAME|--list",
        about: "measure; a table, then one JSON object as the last line",
        run: bench::bench,
    },
    Task {
        name: "fuzz",
        arguments: "TARGET [--seconds N] [--keep]",
        about: "look for input that breaks the checks of what plugins and operators hand in",
        run: fuzz::fuzz,
    },
    Task {
        name: "swaps",
        arguments: "[--count N]",
        about: "replace the plugin under load, 1000 times unless told otherwise",
        run: endurance::swaps,
    },
    Task {
        name: "crash",
        arguments: "[--kills N]",
        about: "kill the gateway under load, 1000 times unless told otherwise, and look for what is lost",
        run: endurance::crash,
    },
    Task {
        name: "release",
        arguments: "[--again] [--profile NAME]",
        about: "pack what is given to others, in target/dist/out: archive, licences, bill of materials, checksums",
        run: release::release,
    },
    Task {
        name: "deny",
        arguments: "[--offline]",
        about: "licences, sources, bans and advisories of all dependencies, by cargo-deny",
        run: deny::deny,
    },
    Task {
        name: "train-demo",
        arguments: "[ARGS]",
        about: "train the embedded demo model from its corpus and seed",
        run: building::train_demo,
    },
];

fn main() -> ExitCode {
    if let Some(outcome) = fuzz::stand_in() {
        return ended("rustc", outcome);
    }
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        help();
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("xtask: no task is named `{name}`; `cargo xtask help` lists them all");
        return ExitCode::FAILURE;
    };
    ended(&name, (task.run)(&rest))
}

fn ended(name: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask {name}: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn help() {
    println!("cargo xtask TASK\n");
    for task in TASKS {
        println!("  {:<34} {}", format!("{} {}", task.name, task.arguments), task.about);
    }
    println!("\nSteps of `test`, in order:\n");
    for step in testing::STEPS {
        println!("  {:<34} {}", step.name, step.about);
    }
}
