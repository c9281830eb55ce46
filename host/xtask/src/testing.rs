//! `cargo xtask test`: the steps that a change must pass, in the order in which they fail fastest.

use std::time::Instant;

use crate::process::{Outcome, cargo, cargo_in, run, target};
use crate::{building, component, conformance, python};

/// One step.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: fn() -> Outcome,
}

/// All steps, in order.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "formatting of gateway and plugins", run: fmt },
    Step { name: "plugins", about: "plugins and fixtures, for wasm32-wasip2", run: plugins },
    Step { name: "clippy", about: "the lints of both workspaces; a warning fails", run: clippy },
    Step { name: "unit", about: "unit, property, layering and doc tests", run: unit },
    Step { name: "doc", about: "the documentation builds; a warning fails", run: doc },
    Step { name: "component", about: "a plugin built by `cargo component`", run: component::build },
    Step {
        name: "conformance",
        about: "example plugins of every language, built and put to the same cases",
        run: conformance::conformance,
    },
    Step { name: "python", about: "the whole program, driven from outside", run: python_tests },
];

/// Runs all steps, or the one named.
pub(crate) fn test(arguments: &[String]) -> Outcome {
    let steps = match arguments {
        [] => STEPS,
        [name] => {
            let found = STEPS.iter().find(|step| step.name == name).ok_or_else(|| {
                let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
                format!("no step is named `{name}`; there are: {}", names.join(", "))
            })?;
            std::slice::from_ref(found)
        }
        [_, extra, ..] => return Err(format!("takes one step at most, and `{extra}` is a second")),
    };
    let began = Instant::now();
    for (done, step) in steps.iter().enumerate() {
        println!("\n[{}/{}] {}: {}", done + 1, steps.len(), step.name, step.about);
        let step_began = Instant::now();
        (step.run)().map_err(|reason| {
            format!("step `{0}` failed: {reason}; again with `cargo xtask test {0}`", step.name)
        })?;
        println!("[{}/{}] {}: ok in {}", done + 1, steps.len(), step.name, seconds(step_began));
    }
    println!("\nall passed in {}", seconds(began));
    Ok(())
}

fn fmt() -> Outcome {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo_in(&building::plugins_folder(), ["fmt", "--all", "--check"]))
}

fn plugins() -> Outcome {
    building::build_plugins().map(drop)
}

fn clippy() -> Outcome {
    let deny = ["--", "-D", "warnings"];
    let all = ["clippy", "--locked", "--workspace", "--all-targets"];
    run(cargo(all).args(deny))?;
    let folder = building::plugins_folder();
    run(cargo_in(&folder, all).args(deny))?;
    let wasm = ["clippy", "--locked", "--workspace", "--target", building::WASM];
    run(cargo_in(&folder, wasm).args(deny))
}

fn unit() -> Outcome {
    run(&mut cargo(["test", "--locked", "--workspace"]))?;
    run(&mut cargo_in(&building::plugins_folder(), ["test", "--locked", "--workspace"]))
}

fn doc() -> Outcome {
    let arguments = ["doc", "--locked", "--workspace", "--no-deps"];
    run(cargo(arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
    run(cargo_in(&building::plugins_folder(), arguments).env("RUSTDOCFLAGS", "-D warnings"))
}

fn python_tests() -> Outcome {
    let python = python::environment()?;
    // The whole workspace with its examples: the same features as `cargo test` has, so nothing is compiled twice.
    run(&mut cargo(["build", "--locked", "--workspace", "--bins", "--examples"]))?;
    let debug = target().join("debug");
    let mut pytest = std::process::Command::new(python);
    pytest.args(["-m", "pytest", "tests"]).current_dir(crate::process::root());
    pytest.env("TOLLGATE_BIN", debug.join("tollgate"));
    pytest.env("TOLLGATE_LOGITS", debug.join("examples").join("logits"));
    pytest.env("TOLLGATE_COMPONENTS", building::components_folder());
    // Named only if it was built here: then a test that does not find it fails instead of being skipped.
    if component::component().is_file() {
        pytest.env("TOLLGATE_COMPONENT_BUILD", component::component());
    }
    run(&mut pytest)
}

fn seconds(since: Instant) -> String {
    let total = since.elapsed().as_secs();
    match total / 60 {
        0 => format!("{total} s"),
        minutes => format!("{minutes} min {} s", total % 60),
    }
}
