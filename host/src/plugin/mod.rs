//! `tollgate plugin ...`: what operators do with plugins from a shell.
//!
//! Here stand the commands; each file beside this one carries some of them out. What talks to a
//! running gateway does so through its admin API.

mod client;
mod control;
mod list;
mod price;
mod show;
mod table;

use std::process::ExitCode;

use clap::Subcommand;

use client::{ClientError, Target};

/// The commands.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// List the plugins of a running gateway, or check those of a folder
    List(list::Arguments),
    /// Show everything that a running gateway knows of one plugin
    Inspect(show::Arguments),
    /// Let a running gateway look at its plugin folder now
    Reload {
        #[command(flatten)]
        target: Target,
    },
    /// Turn a plugin of a running gateway off, also after a restart
    Disable(control::Arguments),
    /// Turn it on again
    Enable(control::Arguments),
    /// Go back to the last good content of a plugin file
    Rollback(control::Arguments),
    /// Let a plugin of a running gateway price a usage record; nothing is billed
    Price(price::Arguments),
}

/// Carries out a command: its answer on standard output, or what is wrong on standard error.
pub fn run(command: PluginCommand) -> ExitCode {
    let done = match command {
        PluginCommand::List(arguments) => list::run(&arguments),
        PluginCommand::Inspect(arguments) => show::run(&arguments),
        PluginCommand::Reload { target } => control::reload(&target),
        PluginCommand::Disable(arguments) => control::run("disable", &arguments),
        PluginCommand::Enable(arguments) => control::run("enable", &arguments),
        PluginCommand::Rollback(arguments) => control::run("rollback", &arguments),
        PluginCommand::Price(arguments) => price::run(&arguments),
    };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(&error, error.exit_code()),
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    /// The gateway could not be asked, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The folder's plugins could not be looked at.
    #[error("{0}")]
    Host(String),
    /// The file with the usage record could not be read.
    #[error("cannot read the usage record {path}: {why}")]
    Usage {
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
    /// What was typed does not say what is meant.
    #[error("{0}")]
    Arguments(&'static str),
}

impl PluginError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            _ => 1,
        }
    }
}

/// An answer as JSON for programs.
fn pretty(value: &impl serde::Serialize) -> Result<String, PluginError> {
    serde_json::to_string_pretty(value).map_err(|error| PluginError::Host(error.to_string()))
}

/// A reader that has seen enough and closed the pipe is no error.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}
