//! Tests that `cargo xtask test` runs for a moment and that anyone may run for hours: in release, by a count.

use std::process::Command;

use crate::process::{Outcome, cargo, root, run, target};
use crate::{building, python};

/// Swaps of the plugin folder under load. `[--count N]`
pub(crate) fn swaps(arguments: &[String]) -> Outcome {
    let count = count(arguments, "--count", 1000)?;
    pytest(&["tests/test_swaps.py"], "TOLLGATE_SWAPS", count)
}

/// Kills of the gateway under load. `[--kills N]`
pub(crate) fn crash(arguments: &[String]) -> Outcome {
    let count = count(arguments, "--kills", 1000)?;
    pytest(&["tests/test_crash.py", "tests/test_otlp_crash.py"], "TOLLGATE_KILLS", count)
}

fn count(arguments: &[String], flag: &str, default: u32) -> Outcome<u32> {
    match arguments {
        [] => Ok(default),
        [given, number] if given == flag => {
            number.parse().map_err(|_| format!("{flag} takes a whole number"))
        }
        _ => Err(format!("takes `{flag} N` and nothing else")),
    }
}

fn pytest(files: &[&str], variable: &str, count: u32) -> Outcome {
    building::build_plugins()?;
    run(&mut cargo(["build", "--locked", "--release", "-p", "tollgate"]))?;
    let mut pytest = Command::new(python::environment()?);
    pytest.args(["-m", "pytest", "-s"]).args(files).current_dir(root());
    pytest.env("TOLLGATE_BIN", target().join("release").join("tollgate"));
    pytest.env("TOLLGATE_COMPONENTS", building::components_folder());
    run(pytest.env(variable, count.to_string()))
}
