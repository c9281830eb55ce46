//! The examples of every language, written by `tollgate plugin new`, built by `plugin build`, and put to their own cases
//! and to those of `plugins/conformance`, which all of a role answer alike, whatever language they came from.
//!
//! Everything lies in `target/conformance`. The tools of Python and JavaScript are installed there once, at the versions
//! that new projects are given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::building::{self, components_folder, need_target};
use crate::process::{self, Outcome, cargo, root, run, target};
use crate::python;

/// What an example does.
struct Role {
    name: &'static str,
    /// How `plugin new` is asked for it.
    asked: &'static [&'static str],
    /// The cases that every plugin of the kind must answer alike, in `plugins/conformance`.
    cases: &'static str,
}

const ROLES: [Role; 4] = [
    Role { name: "cost", asked: &["cost-model"], cases: "cost" },
    Role { name: "enricher", asked: &["attribute-enricher"], cases: "enrichers" },
    Role { name: "filter", asked: &["export-filter"], cases: "filters" },
    Role { name: "trace-filter", asked: &["export-filter", "--whole-traces"], cases: "traces" },
];

/// Builds and tests all of them.
pub(crate) fn conformance() -> Outcome {
    need_target(building::WASM)?;
    run(&mut cargo(["build", "--locked", "--workspace", "--bins", "--examples"]))?;
    let folder = target().join("conformance");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    test(&components_folder().join("cost_per_token.wasm"), &[suite("cost")])?;
    for (language, tools) in [
        ("rust", Some(PathBuf::new())),
        ("python", Some(python_tools(&folder)?)),
        ("javascript", javascript_tools(&folder)?),
    ] {
        let Some(tools) = tools else {
            println!("skipped, and with it the examples in {language}: npm is missing");
            continue;
        };
        for role in &ROLES {
            example(&folder, language, role, &tools)?;
        }
    }
    Ok(())
}

/// Writes, builds and tests one example.
fn example(folder: &Path, language: &str, role: &Role, tools: &Path) -> Outcome {
    let name = role.name;
    let project = folder.join(format!("{language}-{name}"));
    // As an author begins; what was built before stays only where a build tool keeps it.
    let _ = fs::remove_dir_all(&project);
    let mut new = tollgate(["plugin", "new", &format!("{language}-{name}")]);
    new.args(["--lang", language, "--role"]).args(role.asked).arg("--path").arg(folder);
    if language == "rust" && name != "cost" {
        // One project proves that the SDK's own sources build; for the others they are compiled once.
        new.arg("--sdk").arg(building::plugins_folder().join("sdk"));
    }
    run(&mut new)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).map_err(|error| format!("PATH: {error}"))?;
    let mut build = tollgate(["plugin", "build"]);
    build.arg(&project).env("PATH", path).env("CARGO_TARGET_DIR", folder.join("rust-target"));
    run(&mut build)?;
    // At once, since an interpreter takes long to compile.
    test(&project, &[project.join("cases"), suite(role.cases)])
}

fn suite(kind: &str) -> PathBuf {
    building::plugins_folder().join("conformance").join(kind)
}

fn test(plugin: &Path, cases: &[PathBuf]) -> Outcome {
    let mut test = tollgate(["plugin", "test"]);
    test.arg(plugin);
    for folder in cases {
        test.arg("--cases").arg(folder);
    }
    run(&mut test)
}

fn tollgate<const N: usize>(arguments: [&str; N]) -> Command {
    let program = target().join("debug").join(format!("tollgate{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Where `componentize-py` is.
fn python_tools(folder: &Path) -> Outcome<PathBuf> {
    let requirements = root().join("plugins/sdk-python/requirements.txt");
    let venv = folder.join("venv");
    let tools = venv.join(if cfg!(windows) { "Scripts" } else { "bin" });
    installed_once(&[&requirements], &venv.join("tollgate-installed"), || {
        let system = python::system_python()?;
        run(Command::new(system).args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut install = Command::new(tools.join("python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
        run(install.arg(&requirements))
            .map_err(|_| "pip could not install componentize-py: is the network there?".to_owned())
    })?;
    Ok(tools)
}

/// Where `jco` and `esbuild` are; none without npm.
fn javascript_tools(folder: &Path) -> Outcome<Option<PathBuf>> {
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    if process::output(Command::new(npm).arg("--version")).is_none() {
        return Ok(None);
    }
    let sdk = root().join("plugins/sdk-javascript");
    let (package, lock) = (sdk.join("package.json"), sdk.join("package-lock.json"));
    let node = folder.join("node");
    installed_once(&[&package, &lock], &node.join("tollgate-installed"), || {
        for file in [&package, &lock] {
            process::copy_if_changed(file, &node.join(file.file_name().unwrap_or_default()))?;
        }
        let mut install = Command::new(npm);
        install.args(["ci", "--no-audit", "--no-fund"]).current_dir(&node);
        run(&mut install).map_err(|_| "npm could not install jco: is the network there?".to_owned())
    })?;
    Ok(Some(node.join("node_modules").join(".bin")))
}

/// Runs `install` unless it has been run for files of this content.
fn installed_once(files: &[&PathBuf], stamp: &Path, install: impl FnOnce() -> Outcome) -> Outcome {
    let mut wanted = String::new();
    for file in files {
        wanted += &fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if fs::read_to_string(stamp).is_ok_and(|made_for| made_for == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}
