//! A plugin's project: its language, its name, and where its component goes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::ToolError;

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
    Javascript,
}

impl Language {
    /// Its name on the command line and in folders.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Javascript => "javascript",
        }
    }
}

/// One project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    pub(crate) language: Language,
    pub(crate) name: String,
}

impl Project {
    /// Tells a project's language by its files.
    pub(crate) fn find(folder: &Path) -> Result<Self, ToolError> {
        let has = |file: &str| folder.join(file).is_file();
        let (language, name) = if has("Cargo.toml") {
            (Language::Rust, crate_name(folder)?)
        } else if has("plugin.py") {
            (Language::Python, folder_name(folder)?)
        } else if has("plugin.js") {
            (Language::Javascript, folder_name(folder)?)
        } else {
            return Err(ToolError::Project(format!(
                "{} holds no plugin: no Cargo.toml, plugin.py or plugin.js; `tollgate plugin new` writes one",
                folder.display()
            )));
        };
        Ok(Self { folder: folder.to_owned(), language, name })
    }

    /// Where `build` puts the component.
    pub(crate) fn component(&self) -> PathBuf {
        self.folder.join("build").join(format!("{}.wasm", self.name))
    }
}

/// A component by its own path, or that of the project in a folder; and the folder that its cases are in.
pub(crate) fn component(path: &Path) -> Result<(PathBuf, PathBuf), ToolError> {
    if !path.is_dir() {
        if !path.is_file() {
            let what = format!("{} is neither a component nor a project's folder", path.display());
            return Err(ToolError::Project(what));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        return Ok((path.to_owned(), folder.join("cases")));
    }
    let project = Project::find(path)?;
    let component = project.component();
    if !component.is_file() {
        return Err(ToolError::Project(format!(
            "{} is not there; `tollgate plugin build {}` makes it",
            component.display(),
            path.display()
        )));
    }
    Ok((component, path.join("cases")))
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, ToolError> {
    fs::read_to_string(path).map_err(ToolError::file(path))
}

fn crate_name(folder: &Path) -> Result<String, ToolError> {
    let path = folder.join("Cargo.toml");
    let manifest: toml::Table = read(&path)?
        .parse()
        .map_err(|error| ToolError::Project(format!("{}: {error}", path.display())))?;
    let name = manifest.get("package").and_then(|p| p.get("name")).and_then(|name| name.as_str());
    name.map(str::to_owned)
        .ok_or_else(|| ToolError::Project(format!("{} names no package", path.display())))
}

fn folder_name(folder: &Path) -> Result<String, ToolError> {
    let whole = folder.canonicalize().map_err(ToolError::file(folder))?;
    let name = whole.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| ToolError::Project(format!("{} has no name", folder.display())))
}
