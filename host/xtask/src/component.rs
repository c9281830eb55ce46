//! The same plugin built by `cargo component`, which many authors use: its output must load like any other.
//!
//! It compiles for `wasm32-wasip1` and adapts the module to a component afterwards, so what comes out differs from the
//! plain build in everything but what it does.

use std::path::PathBuf;
use std::process::Command;

use crate::building::{need_target, plugins_folder};
use crate::process::{self, Outcome, cargo, cargo_in, run, target};

const VERSION: &str = "0.21.1";
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
    let program = installed()?;
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

fn installed() -> Outcome<PathBuf> {
    let tools = target().join("tools");
    let name = format!("cargo-component{}", std::env::consts::EXE_SUFFIX);
    let program = tools.join("bin").join(name);
    let version = process::output(Command::new(&program).args(["component", "--version"]));
    if version.is_some_and(|version| version.contains(VERSION)) {
        return Ok(program);
    }
    println!("installing cargo-component {VERSION} below target/tools (once; takes minutes)");
    // It runs for a second: built without optimisation it is there in half the time.
    let mut install = cargo(["install", "--locked", "--debug", "--force"]);
    install.arg(format!("cargo-component@{VERSION}")).arg("--root").arg(&tools);
    install.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
    run(&mut install).map_err(|_| {
        format!("cargo-component {VERSION} could not be installed: is the network there?")
    })?;
    Ok(program)
}
