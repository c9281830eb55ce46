//! Building: the plugins for `wasm32-wasip2`, the gateway, and the plugin folder beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixtures;
use crate::process::{self, Outcome, cargo, cargo_in, copy_if_changed, root, run, target};

/// What plugins are compiled for.
pub(crate) const WASM: &str = "wasm32-wasip2";

/// Builds everything in release and becomes the gateway.
pub(crate) fn serve(arguments: &[String]) -> Outcome {
    let program = build_all()?;
    process::become_it(Command::new(program).arg("serve").args(arguments))
}

/// Builds everything in release.
pub(crate) fn build(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let program = build_all()?;
    println!("built {}, plugins beside it in plugins/", program.display());
    Ok(())
}

/// Builds the plugins and fixtures alone.
pub(crate) fn build_plugins_task(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    for plugin in build_plugins()? {
        println!("  {}", plugin.component.display());
    }
    Ok(())
}

/// Trains the demo model.
pub(crate) fn train_demo(arguments: &[String]) -> Outcome {
    let command = ["run", "--release", "-p", "tollgate-model", "--example", "train_demo", "--"];
    run(cargo(command).args(arguments))
}

/// A plugin's package and the component it was built into.
pub(crate) struct Plugin {
    /// `cost-per-token`.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Its component.
    pub(crate) component: PathBuf,
}

impl Plugin {
    /// Whether it comes with the gateway, and is no fixture and no example.
    fn is_bundled(&self) -> bool {
        self.folder.parent() == Some(&plugins_folder())
    }
}

/// Where the plugins' workspace lies.
pub(crate) fn plugins_folder() -> PathBuf {
    root().join("plugins")
}

/// Where the plugins' components are built.
pub(crate) fn components_folder() -> PathBuf {
    plugins_folder().join("target").join(WASM).join("release")
}

/// Builds every plugin, fixture and example in Rust.
pub(crate) fn build_plugins() -> Outcome<Vec<Plugin>> {
    need_target(WASM)?;
    let plugins = find_plugins()?;
    fixtures::build_variants()?;
    let mut command =
        cargo_in(&plugins_folder(), ["build", "--locked", "--release", "--target", WASM]);
    command.arg("--target-dir").arg(plugins_folder().join("target"));
    for plugin in &plugins {
        command.args(["-p", &plugin.name]);
    }
    run(&mut command)?;
    Ok(plugins)
}

/// Adds a compilation target, if this toolchain lacks it.
pub(crate) fn need_target(target: &str) -> Outcome {
    let mut list = Command::new("rustup");
    list.args(["target", "list", "--installed"]).current_dir(root());
    match process::output(&mut list) {
        Some(installed) if installed.lines().any(|line| line.trim() == target) => return Ok(()),
        Some(_) => {}
        // A toolchain that some other tool manages: it may have the target all the same.
        None if has_target_without_rustup(target) => return Ok(()),
        None => {
            return Err(format!(
                "rustup is missing and this toolchain has no {target}: install rustup, it brings both"
            ));
        }
    }
    println!("adding the target {target}");
    run(Command::new("rustup").args(["target", "add", target]).current_dir(root())).map_err(|_| {
        format!("the target {target} is missing and rustup could not add it: is the network there?")
    })
}

fn has_target_without_rustup(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(root());
    process::output(&mut rustc).is_some_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Plugins, gateway, and the bundled plugins in the folder beside the gateway, where it looks for them.
fn build_all() -> Outcome<PathBuf> {
    println!("[1/2] plugins, for {WASM}");
    let plugins = build_plugins()?;
    println!("[2/2] gateway, in release (the first time takes minutes)");
    run(&mut cargo(["build", "--locked", "--release", "-p", "tollgate"]))?;
    let release = target().join("release");
    for plugin in plugins.iter().filter(|plugin| plugin.is_bundled()) {
        copy_if_changed(
            &plugin.component,
            &release.join("plugins").join(format!("{}.wasm", plugin.name)),
        )?;
    }
    Ok(release.join(format!("tollgate{}", std::env::consts::EXE_SUFFIX)))
}

/// The packages of the plugins' workspace that become components.
fn find_plugins() -> Outcome<Vec<Plugin>> {
    let top = plugins_folder();
    let mut plugins = Vec::new();
    let mut folders = subfolders(&top)?;
    for more in ["fixtures", "examples"] {
        folders.extend(subfolders(&top.join(more))?);
    }
    for folder in folders {
        let is_component = fs::read_to_string(folder.join("Cargo.toml"))
            .is_ok_and(|manifest| manifest.contains("\"cdylib\""));
        if !is_component {
            continue;
        }
        // Packages are named as their folders.
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let component = components_folder().join(format!("{}.wasm", name.replace('-', "_")));
        plugins.push(Plugin { name, folder, component });
    }
    match plugins.is_empty() {
        true => Err(format!("no plugin is found in {}", top.display())),
        false => Ok(plugins),
    }
}

/// Packages of the plugins that come with the gateway.
pub(crate) fn bundled_plugins() -> Outcome<Vec<String>> {
    let plugins = find_plugins()?.into_iter().filter(Plugin::is_bundled);
    Ok(plugins.map(|plugin| plugin.name).collect())
}

fn subfolders(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    Ok(folders)
}

pub(crate) fn no_arguments(arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(word) => Err(format!("takes no arguments, and `{word}` is one")),
    }
}
