//! Python environments: of the whole-program tests in `target/venv`, of llama.cpp for the benchmark beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Outcome, root, run, target};

/// Oldest Python that the pinned packages run on.
const OLDEST: (u32, u32) = (3, 11);

/// Python with everything in `tests/requirements.txt`, at exactly the versions of `tests/constraints.txt`.
pub(crate) fn environment() -> Outcome<PathBuf> {
    let tests = root().join("tests");
    made("venv", &tests.join("requirements.txt"), Some(&tests.join("constraints.txt")), "pytest")
}

/// Python with llama.cpp, which `cargo xtask bench engine` measures ours beside.
pub(crate) fn with_llama_cpp() -> Outcome<PathBuf> {
    let wanted = root().join("host/crates/engine/benches/engine/requirements.txt");
    made("venv-llama-cpp", &wanted, None, "xllamacpp")
}

/// The environment of that name, made if it is not there or was made for something else.
fn made(
    name: &str,
    requirements: &Path,
    constraints: Option<&Path>,
    module: &str,
) -> Outcome<PathBuf> {
    let venv = target().join(name);
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let stamp = venv.join("tollgate-requirements");
    let mut wanted = String::new();
    for path in [Some(requirements), constraints].into_iter().flatten() {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        wanted.push_str(&text);
    }
    if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted)
        && imports(&python, module)
    {
        return Ok(python);
    }
    let system = system_python()?;
    println!("making a Python environment in target/{name} (once; takes minutes)");
    run(Command::new(&system).args(["-m", "venv", "--clear"]).arg(&venv)).map_err(|_| {
        format!("`{system} -m venv` failed: Python's venv module is missing (Debian: python3-venv)")
    })?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.arg("-r").arg(requirements);
    if let Some(constraints) = constraints {
        install.arg("-c").arg(constraints);
    }
    run(&mut install).map_err(|_| {
        format!("pip could not install {}: is the network there?", requirements.display())
    })?;
    fs::write(&stamp, wanted)
        .map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
    Ok(python)
}

fn imports(python: &Path, module: &str) -> bool {
    process::output(Command::new(python).args(["-c", &format!("import {module}")])).is_some()
}

/// A Python that is new enough, with venv.
pub(crate) fn system_python() -> Outcome<String> {
    let check = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < {OLDEST:?})");
    ["python3", "python3.13", "python3.12", "python3.11", "python"]
        .into_iter()
        .find(|name| process::output(Command::new(name).args(["-c", &check])).is_some())
        .map(str::to_owned)
        .ok_or_else(|| {
            let (major, minor) = OLDEST;
            format!(
                "Python {major}.{minor} or newer with venv is missing \
                 (Debian: python3 python3-venv); the whole-program tests need it"
            )
        })
}
