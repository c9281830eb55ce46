//! `tollgate plugin new|build|test|bench`: what authors do, each command in a file of its own.
//!
//! Results go to standard output, what a plugin logs and what goes wrong to standard error. Exit status 1 means that the
//! answer is no: a case failed, a build failed.

mod bench;
mod build;
mod diff;
mod new;
mod project;
mod test;
mod vendored;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use tollgate_plugin_host::workshop::CaseError;
use tollgate_plugin_host::{PluginHostError, chain};

/// The commands.
#[derive(Subcommand)]
pub(crate) enum AuthorCommand {
    /// Write a project of a new plugin that builds as it is
    New(new::New),
    /// Build the plugin in a folder with its language's own tools
    Build(build::Build),
    /// Run cases/NAME/in.json and compare with out.json
    Test(test::Test),
    /// Measure a plugin: time, instructions and bytes of each item
    Bench(bench::Bench),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ToolError {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// Something is not as this command needs it.
    #[error("{0}")]
    Project(String),
    /// A tool is not installed.
    #[error("{tool} is missing; install it with: {install}")]
    Missing { tool: &'static str, install: String },
    /// A tool ran and failed; it has said why.
    #[error("`{0}` failed")]
    Tool(String),
    /// The gateway would not take the component.
    #[error("{}: {}", path.display(), chain(source))]
    Plugin { path: PathBuf, source: PluginHostError },
    /// A case is not of the form of one.
    #[error("{}: {source}", path.display())]
    Case { path: PathBuf, source: CaseError },
    /// The answer is no, and has been shown.
    #[error("{0}")]
    No(String),
}

impl ToolError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Runs one command.
pub(crate) fn run(command: AuthorCommand) -> ExitCode {
    // What a plugin logs while it is tried.
    if let Err(message) = crate::log::start("info", tollgate_settings::LogFormat::Text) {
        return crate::fail(&message, 2);
    }
    let done = match command {
        AuthorCommand::New(new) => new.run(),
        AuthorCommand::Build(build) => build.run(),
        AuthorCommand::Test(test) => test.run(),
        AuthorCommand::Bench(bench) => bench.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(&error, 1),
    }
}
