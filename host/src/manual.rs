//! `tollgate completions` and `tollgate man`: what shells and `man` want to know of the command line, made
//! from the command line itself.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

use crate::{fail, say};

/// Which shell.
#[derive(clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Which pages.
#[derive(clap::Args)]
pub struct Man {
    /// Write the pages of all commands, tollgate.1 and so on, into this folder [default: the page of
    /// tollgate itself, on standard output]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Shows what the shell is to read.
pub fn completions(mut command: clap::Command, arguments: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "tollgate", &mut script);
    say(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Shows a manual page, or writes all of them.
pub fn man(command: clap::Command, arguments: &Man) -> ExitCode {
    let command = command.disable_help_subcommand(true);
    let done = match &arguments.out {
        Some(folder) => {
            std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder))
        }
        None => page(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = arguments.out.as_deref().unwrap_or(Path::new("standard output")).display();
            fail(&format!("cannot write manual pages to {place}: {error}"), 1)
        }
    }
}

fn page(command: clap::Command) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    match io::stdout().lock().write_all(&page) {
        // A reader that has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
