//! `tollgate plugin new`: a project that builds as it is.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::project::Language;
use super::{ToolError, vendored};

/// Where a Rust project gets the SDK's sources.
const SDK: &str = "tollgate-plugin";

#[derive(Args)]
pub(crate) struct New {
    /// Name of the plugin and of its folder: lower-case letters, digits and dashes
    name: String,
    /// Language
    #[arg(long, value_enum)]
    lang: Language,
    /// What the plugin does
    #[arg(long, value_enum)]
    role: Role,
    /// A filter that judges whole traces
    #[arg(long)]
    whole_traces: bool,
    /// Folder to make the project's folder in
    #[arg(long, default_value = ".")]
    path: PathBuf,
    /// For Rust: a clone's plugins/sdk to depend on, instead of the SDK's sources in the project
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    CostModel,
    AttributeEnricher,
    ExportFilter,
}

impl New {
    /// Name of its example.
    fn example(&self) -> Result<&'static str, ToolError> {
        match (self.role, self.whole_traces) {
            (Role::CostModel, false) => Ok("cost"),
            (Role::AttributeEnricher, false) => Ok("enricher"),
            (Role::ExportFilter, false) => Ok("filter"),
            (Role::ExportFilter, true) => Ok("trace-filter"),
            (_, true) => Err(ToolError::Project(
                "only filters judge whole traces: --whole-traces goes with --role export-filter"
                    .to_owned(),
            )),
        }
    }
}

impl New {
    pub(super) fn run(self) -> Result<(), ToolError> {
        check_name(&self.name)?;
        let folder = self.path.join(&self.name);
        if folder.exists() {
            return Err(ToolError::Project(format!(
                "{} is there already; take another name or --path",
                folder.display()
            )));
        }
        for (path, content) in self.files()? {
            write(&folder.join(path), &content)?;
        }
        println!("wrote {}; next:", folder.display());
        println!("  cd {}", folder.display());
        let tools = match self.lang {
            Language::Rust => None,
            Language::Python => {
                Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
            }
            Language::Javascript => Some("npm ci"),
        };
        tools.into_iter().for_each(|command| println!("  {command}"));
        println!("  tollgate plugin build");
        println!("  tollgate plugin test");
        Ok(())
    }

    fn files(&self) -> Result<Vec<vendored::Written>, ToolError> {
        let role = self.example()?;
        let mut files = vendored::example(self.lang, role, &self.name);
        files.extend(vendored::beside(self.lang, role));
        if self.lang == Language::Rust {
            let sdk = match &self.sdk {
                Some(folder) => {
                    let folder = folder.canonicalize().map_err(ToolError::file(folder))?;
                    folder.display().to_string()
                }
                None => {
                    files.extend(vendored::rust_sdk(SDK));
                    SDK.to_owned()
                }
            };
            let own = files.iter_mut().find(|(path, _)| path == "Cargo.toml");
            if let Some((_, manifest)) = own {
                *manifest = manifest.replace("../../sdk", &sdk);
                manifest.push('\n');
                manifest.push_str(vendored::release_profile());
                // Also inside another workspace's folder the project is one of its own.
                manifest.push_str("\n[workspace]\n");
            }
        }
        Ok(files)
    }
}

fn check_name(name: &str) -> Result<(), ToolError> {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if begins
        && name.len() <= 64
        && !name.ends_with('-')
        && !name.contains("--")
        && name.chars().all(ok)
    {
        return Ok(());
    }
    Err(ToolError::Project(format!(
        "{name:?} is not a name of lower-case letters, digits and single dashes such as `acme-cost`"
    )))
}

fn write(path: &Path, content: &str) -> Result<(), ToolError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(ToolError::file(folder))?;
    }
    fs::write(path, content).map_err(ToolError::file(path))
}
