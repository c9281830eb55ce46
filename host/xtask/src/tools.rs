//! Programs of cargo's that tasks need, at pinned versions below `target/tools`: installed once, by the first task that needs one.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{self, Outcome, cargo, run, target};

/// One program.
pub(crate) struct Tool {
    /// Its crate, which is also its file's name: `cargo-deny`.
    pub(crate) name: &'static str,
    /// Exact.
    pub(crate) version: &'static str,
}

impl Tool {
    /// Where it is, once it is there.
    pub(crate) fn installed(&self) -> Outcome<PathBuf> {
        let tools = target().join("tools");
        let program =
            tools.join("bin").join(format!("{}{}", self.name, std::env::consts::EXE_SUFFIX));
        // As cargo calls it: `cargo-deny deny --version`.
        let word = self.name.trim_start_matches("cargo-");
        let version = process::output(Command::new(&program).args([word, "--version"]));
        if version.is_some_and(|version| version.contains(self.version)) {
            return Ok(program);
        }
        println!(
            "installing {} {} below target/tools (once; takes minutes)",
            self.name, self.version
        );
        // It runs for a second: built without optimisation it is there in half the time.
        let mut install = cargo(["install", "--locked", "--debug", "--force"]);
        install.arg(format!("{}@{}", self.name, self.version)).arg("--root").arg(&tools);
        install.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
        run(&mut install).map_err(|_| {
            format!("{} {} could not be installed: is the network there?", self.name, self.version)
        })?;
        Ok(program)
    }
}
