//! `tollgate plugin build`: a language's own tools, then a component without what only debuggers read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::ToolError;
use super::project::{Language, Project};

const WASM: &str = "wasm32-wasip2";

#[derive(Args)]
pub(crate) struct Build {
    /// The project's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl Build {
    pub(super) fn run(self) -> Result<(), ToolError> {
        let project = Project::find(&self.folder)?;
        let built = match project.language {
            Language::Rust => rust(&project)?,
            Language::Python => python(&project)?,
            Language::Javascript => javascript(&project)?,
        };
        let component = project.component();
        let content = fs::read(&built).map_err(ToolError::file(&built))?;
        let stripped = tollgate_plugin_host::strip(&content)
            .map_err(|source| ToolError::Plugin { path: built.clone(), source })?;
        make_parent(&component)?;
        // In one step, since the folder may be one that a gateway watches.
        let partial = component.with_extension("partial");
        fs::write(&partial, &stripped.bytes).map_err(ToolError::file(&partial))?;
        fs::rename(&partial, &component).map_err(ToolError::file(&component))?;
        println!("{}", component.display());
        println!("  size    {} KiB", stripped.bytes.len().div_ceil(1024));
        println!("  sha256  {}", stripped.digest);
        let roles: Vec<&str> = stripped.roles.iter().map(|role| role.name()).collect();
        println!("  roles   {}", roles.join(", "));
        let limit = tollgate_plugin_host::Limits::default().component_bytes;
        if u64::try_from(stripped.bytes.len()).unwrap_or(u64::MAX) > limit {
            println!(
                "  larger than the {} MiB a gateway takes by default; its plugins.toml needs\n\
                 \x20   [[plugin]]\n    file = \"{}.wasm\"\n    limits = {{ component-mib = {} }}",
                limit >> 20,
                project.name,
                stripped.bytes.len().div_ceil(1 << 20)
            );
        }
        Ok(())
    }
}

fn rust(project: &Project) -> Result<PathBuf, ToolError> {
    let mut target = Command::new("rustc");
    target.args(["--print", "target-libdir", "--target", WASM]).current_dir(&project.folder);
    let library = output(&mut target).ok_or(ToolError::Missing {
        tool: "Rust",
        install: "curl https://sh.rustup.rs -sSf | sh (or see https://rustup.rs)".to_owned(),
    })?;
    if !Path::new(library.trim()).is_dir() {
        let install = format!("rustup target add {WASM}");
        return Err(ToolError::Missing { tool: "Rust's target wasm32-wasip2", install });
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--target", WASM]).current_dir(&project.folder);
    run(&mut cargo)?;
    let folder = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => project.folder.join("target"),
    };
    let file = format!("{}.wasm", project.name.replace('-', "_"));
    Ok(folder.join(WASM).join("release").join(file))
}

fn python(project: &Project) -> Result<PathBuf, ToolError> {
    let own = if cfg!(windows) { ".venv/Scripts" } else { ".venv/bin" };
    let tool = find(&project.folder.join(own), "componentize-py").ok_or(ToolError::Missing {
        tool: "componentize-py",
        install: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt".to_owned(),
    })?;
    let built = project.folder.join("build").join("built.wasm");
    make_parent(&built)?;
    let mut command = Command::new(tool);
    command.args(["--quiet", "-d", "wit", "-w", "plugin", "componentize", "--stub-wasi"]);
    command.args(["-p", ".", "-o", "build/built.wasm", "plugin"]).current_dir(&project.folder);
    run(&mut command)?;
    Ok(built)
}

fn javascript(project: &Project) -> Result<PathBuf, ToolError> {
    let own = project.folder.join("node_modules").join(".bin");
    let missing = |tool| move || ToolError::Missing { tool, install: "npm ci".to_owned() };
    let esbuild = find(&own, "esbuild").ok_or_else(missing("esbuild"))?;
    let jco = find(&own, "jco").ok_or_else(missing("jco"))?;
    let built = project.folder.join("build").join("built.wasm");
    make_parent(&built)?;
    // One file, since the engine that goes into the component finds no others.
    let mut bundle = Command::new(esbuild);
    bundle.args(["plugin.js", "--bundle", "--format=esm", "--log-level=warning"]);
    bundle.arg("--outfile=build/bundle.js").current_dir(&project.folder);
    run(&mut bundle)?;
    let mut command = Command::new(jco);
    command.args(["componentize", "build/bundle.js", "-w", "wit", "-n", "plugin"]);
    command.args(["--disable", "all", "-o", "build/built.wasm"]).current_dir(&project.folder);
    run(&mut command)?;
    Ok(built)
}

/// A tool of the project's own, or else one that is installed for everybody.
fn find(own: &Path, name: &str) -> Option<PathBuf> {
    let everywhere = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(own.to_owned()).chain(std::env::split_paths(&everywhere));
    let names = [name.to_owned(), format!("{name}.cmd"), format!("{name}.exe")];
    let mut paths = folders
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>());
    // Absolute, since it is started in the project's folder.
    std::path::absolute(paths.find(|path| path.is_file())?).ok()
}

fn run(command: &mut Command) -> Result<(), ToolError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(ToolError::Tool(shown)),
        Err(error) => Err(ToolError::Project(format!("cannot start `{shown}`: {error}"))),
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn make_parent(path: &Path) -> Result<(), ToolError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(ToolError::file(folder))
}
