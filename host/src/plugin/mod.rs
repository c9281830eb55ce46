//! The `tollgate plugin ...` commands, one file for each.

mod check;
mod inspect;
mod offline;

use std::process::ExitCode;

use clap::Subcommand;

/// What `tollgate plugin` can do.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// Take plugin files through the gate that a gateway has, without one: exit code 0 if all would serve
    Check(check::Check),
    /// Show what a plugin file is: roles, interfaces, sizes, attributes, schema of its configuration
    Inspect(inspect::Inspect),
}

/// Runs one.
pub fn run(command: PluginCommand) -> ExitCode {
    match command {
        PluginCommand::Check(check) => check.run(),
        PluginCommand::Inspect(inspect) => inspect.run(),
    }
}
