//! `tollgate plugin ...`: what authors and operators do with plugins from a shell.
//!
//! Here stand the commands; the files beside this one carry them out, those for authors in `author`. What talks to a running
//! gateway does so through its admin API; what needs none takes files through the same gate.

#[expect(clippy::print_stdout, reason = "commands whose answers are their output")]
mod author;
mod check;
mod control;
mod inspect;
mod list;
mod offline;
mod place;
mod price;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use crate::admin::{ClientError, Target};
pub(crate) use offline::Gate;

/// The commands.
#[derive(Subcommand)]
pub enum PluginCommand {
    #[command(flatten)]
    Author(author::AuthorCommand),
    /// Take plugin files through the gate that a gateway has, without one: exit code 0 if all would serve
    Check(check::Check),
    /// Show what a plugin file is, or with --admin all that a running gateway knows of one
    Inspect(inspect::Inspect),
    /// List the plugins of a running gateway, or check those of a folder: exit code 1 if one of the folder is not used
    List(list::Arguments),
    /// Let a running gateway look at its plugin folder now: exit code 1 if something in it is not used
    Reload {
        #[command(flatten)]
        target: Target,
    },
    /// Turn a plugin off, also after a restart
    Disable(control::Arguments),
    /// Turn it on again, also where its content was rolled back from
    Enable(control::Arguments),
    /// Go back to the last good content of a plugin file
    Rollback(control::Arguments),
    /// Let a plugin of a running gateway price a usage record; nothing is billed
    Price(price::Arguments),
}

/// Carries out a command: its answer on standard output, or what is wrong on standard error.
pub fn run(command: PluginCommand) -> ExitCode {
    let done = match command {
        PluginCommand::Author(command) => return author::run(command),
        PluginCommand::Check(check) => return check.run(),
        PluginCommand::Inspect(inspect) => return inspect.run(),
        PluginCommand::List(arguments) => return listed(list::run(&arguments)),
        PluginCommand::Reload { target } => return listed(control::reload(&target)),
        PluginCommand::Disable(arguments) => control::run(control::Order::Disable, &arguments),
        PluginCommand::Enable(arguments) => control::run(control::Order::Enable, &arguments),
        PluginCommand::Rollback(arguments) => control::run(control::Order::Rollback, &arguments),
        PluginCommand::Price(arguments) => price::run(&arguments),
    };
    finish(done)
}

/// An answer on standard output, or what is wrong on standard error.
fn finish(done: Result<String, PluginError>) -> ExitCode {
    match done {
        Ok(text) => {
            crate::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(&error, error.exit_code()),
    }
}

/// A list on standard output, and below it, as an error, what of it is not used.
fn listed(done: Result<list::Listed, PluginError>) -> ExitCode {
    match done {
        Ok(list::Listed { text, not_used: None }) => finish(Ok(text)),
        Ok(list::Listed { text, not_used: Some(not_used) }) => {
            crate::say(&text);
            crate::fail(&not_used, 1)
        }
        Err(error) => finish(Err(error)),
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
