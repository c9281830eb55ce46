//! `tollgate init` and `tollgate config ...`: the settings file, from the first one to what is wrong with
//! the present one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tollgate_settings::{Given, SCHEMA_FILE, Settings, SettingsError, schema, template};

use crate::{fail, log, say};

/// What the file is called.
const FILE: &str = "tollgate.toml";

/// Where a first settings file is to be.
#[derive(Args)]
pub struct Init {
    /// Folder to write tollgate.toml and its schema into; it is made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

/// What is done about the settings file.
#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with a settings file, without starting anything
    Check {
        /// The file
        #[arg(value_name = "FILE", default_value = FILE)]
        file: PathBuf,
    },
    /// Show the JSON Schema of the settings file
    Schema,
}

/// Why the files were not written.
#[derive(Debug, thiserror::Error)]
enum InitError {
    /// One is there already.
    #[error("{} is there already; --force writes over it", .0.display())]
    There(PathBuf),
    /// The system says no.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Writes a settings file in which everything is explained and nothing is set, but where the plugins are if they cannot
/// lie where they are looked for.
pub fn init(arguments: &Init) -> ExitCode {
    match write_files(&arguments.folder, arguments.force) {
        Ok(Written { file, plugins }) => {
            let file = file.display();
            let but = plugins.map(|folder| {
                format!(
                    ", but for the folder of plugins\nmade {}, since there is none beside the program: nothing has a \
                     price until a cost model lies there",
                    folder.display()
                )
            });
            say(&format!(
                "wrote {file}: every setting, explained and commented out{}\n\n\
                 tollgate doctor --config {file}   # could a gateway run with it?\n\
                 tollgate serve --config {file}    # runs it",
                but.unwrap_or_default()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

/// Carries out a command.
pub fn run(command: ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Schema => {
            say(&schema_text());
            ExitCode::SUCCESS
        }
        ConfigCommand::Check { file } => match check(file.clone()) {
            Ok(()) => {
                say(&format!("{}: ok", file.display()));
                ExitCode::SUCCESS
            }
            Err(problem) => fail(&problem, 2),
        },
    }
}

/// The settings of flags, variables and file.
///
/// # Errors
/// Everything that is wrong with them.
pub fn resolve(given: Given) -> Result<Settings, SettingsError> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    tollgate_settings::resolve(given, variables, &program())
}

fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

fn check(file: PathBuf) -> Result<(), String> {
    let given = Given { config: Some(file), ..Given::default() };
    let settings = resolve(given).map_err(|error| error.to_string())?;
    log::filter(&settings.log).map(drop)
}

fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// What was written.
struct Written {
    file: PathBuf,
    /// The folder of plugins that was made, and that the file names: only where none lies beside the program, without
    /// which no gateway starts.
    plugins: Option<PathBuf>,
}

/// Both files or none, as far as what is there already goes.
fn write_files(folder: &Path, force: bool) -> Result<Written, InitError> {
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(cannot(folder))?;
    let (file, schema_file) = (folder.join(FILE), folder.join(SCHEMA_FILE));
    if let Some(there) = [&file, &schema_file].into_iter().find(|path| !force && path.exists()) {
        return Err(InitError::There(there.clone()));
    }
    let plugins = match tollgate_settings::plugins_beside(&program()).is_dir() {
        true => None,
        false => Some(folder.join("plugins")),
    };
    if let Some(plugins) = &plugins {
        std::fs::create_dir_all(plugins).map_err(cannot(plugins))?;
    }
    for (path, text) in [(&schema_file, schema_text()), (&file, template(plugins.as_deref()))] {
        write(path, &text, force).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => InitError::There(path.clone()),
            _ => cannot(path)(error),
        })?;
    }
    Ok(Written { file, plugins })
}

fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(!force).create(true).truncate(force);
    options.open(path)?.write_all(text.as_bytes())
}
