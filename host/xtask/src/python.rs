//! The Python environment of the whole-program tests, in `target/venv` and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Outcome, root, run, target};

/// Oldest Python that the pinned packages run on.
const OLDEST: (u32, u32) = (3, 11);

/// Python with everything in `tests/requirements.txt`, at exactly the versions of `tests/constraints.txt`.
pub(crate) fn environment() -> Outcome<PathBuf> {
    let venv = target().join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = requirements()?;
    let stamp = venv.join("tollgate-requirements");
    if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) && works(&python) {
        return Ok(python);
    }
    let system = system_python()?;
    println!("making a Python environment in target/venv (once; takes minutes)");
    run(Command::new(&system).args(["-m", "venv", "--clear"]).arg(&venv)).map_err(|_| {
        format!("`{system} -m venv` failed: Python's venv module is missing (Debian: python3-venv)")
    })?;
    let tests = root().join("tests");
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.arg("-r").arg(tests.join("requirements.txt"));
    install.arg("-c").arg(tests.join("constraints.txt"));
    run(&mut install).map_err(|_| {
        "pip could not install tests/requirements.txt: is the network there?".to_owned()
    })?;
    fs::write(&stamp, wanted)
        .map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
    Ok(python)
}

fn requirements() -> Outcome<String> {
    let mut all = String::new();
    for name in ["requirements.txt", "constraints.txt"] {
        let path = root().join("tests").join(name);
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        all.push_str(&text);
    }
    Ok(all)
}

fn works(python: &Path) -> bool {
    process::output(Command::new(python).args(["-c", "import pytest"])).is_some()
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
