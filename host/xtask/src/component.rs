//! The same plugin built by `cargo component`, which many authors use: its output must load like any other.
//!
//! It compiles for `wasm32-wasip1` and adapts the module to a component afterwards, so what comes out differs from the
//! plain build in everything but what it does.

use std::path::PathBuf;

use crate::building::{need_target, plugins_folder};
use crate::process::{Outcome, cargo_in, run, target};
use crate::tools::Tool;

const TOOL: Tool = Tool { name: "cargo-component", version: "0.21.1" };
const PLUGIN: &str = "cost-per-token";

/// What `cargo component` compiles for.
const WASM: &str = "wasm32-wasip1";

/// Where its output goes: a folder of its own, so that it never replaces the plain build.
pub(crate) fn component() -> PathBuf {
    folder().join(WASM).join("release").join(format!("{}.wasm", PLUGIN.replace('-', "_")))
}

/// Builds one plugin with `cargo component`, which is installed first if it is not there.
pub(crate) fn build() -> Outcome {
    if let Err(reason) = need_target(WASM) {
        // Nothing else here is compiled for it, so being offline should not fail everything.
        println!("skipped, and with it the tests of its output: {reason}");
        return Ok(());
    }
    let program = TOOL.installed()?;
    let mut command = cargo_in(&plugins_folder(), ["component", "build", "--locked", "--release"]);
    command.args(["-p", PLUGIN, "--target-dir"]).arg(folder());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = program.parent().map(PathBuf::from).into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(tools).map_err(|error| format!("PATH: {error}"))?;
    run(command.env("PATH", path))?;
    match component().is_file() {
        true => Ok(()),
        false => Err(format!("cargo component made no {}", component().display())),
    }
}

fn folder() -> PathBuf {
    target().join("component")
}
