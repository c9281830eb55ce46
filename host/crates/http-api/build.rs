//! Bundles the dashboard, so that it is served from the binary.
//!
//! The sources are copied into cargo's folder for output and bundled there with npm, at the
//! versions of `package-lock.json` and without running scripts of packages: nothing is written
//! beside the sources. Cargo runs this again only when a source changes. Where npm is missing or
//! cannot reach its registry, the build goes on with a page that says how to get the real one, and
//! looks again at the next build; sources that do not bundle are an error. With the variable
//! `TOLLGATE_DASHBOARD=required`, as releases set it, a missing npm is an error, too. Without the
//! feature `dashboard` npm is not even looked for.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The variable that says `required` where a program without its dashboard is of no use.
const REQUIRED: &str = "TOLLGATE_DASHBOARD";

fn main() -> Outcome<()> {
    let sources = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../../assets/dashboard");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let copy = out.join("dashboard");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={REQUIRED}");
    if std::env::var_os("CARGO_FEATURE_DASHBOARD").is_none() {
        fs::write(out.join("dashboard.rs"), "&[]\n")?;
        return Ok(());
    }
    let files = files(&sources, &["node_modules", "dist"])?;
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    // A new file is in none of these.
    println!("cargo::rerun-if-changed={}", sources.join("src").display());
    println!("cargo::rerun-if-changed={}", sources.join("src/pages").display());
    copy_over(&files, &sources, &copy)?;
    let dist = copy.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    match install(&copy) {
        Ok(()) => {
            let built = npm(&copy, &["run", "--silent", "build"]);
            built.map_err(|why| format!("the dashboard's sources do not bundle: {why}"))?;
        }
        Err(why) if std::env::var_os(REQUIRED).is_some_and(|value| value == "required") => {
            return Err(format!(
                "the dashboard cannot be bundled: {why}; install Node.js 18 or newer with npm (Debian: nodejs npm)"
            )
            .into());
        }
        Err(why) => {
            println!(
                "cargo::warning=the dashboard is left out: {why}; install Node.js 18 or newer with npm (Debian: nodejs npm) and build again, or build with --no-default-features to do without it"
            );
            // Cargo runs this again as long as that is not there.
            println!("cargo::rerun-if-changed={}", out.join("npm-was-missing").display());
        }
    }
    fs::write(out.join("dashboard.rs"), table(&dist)?)?;
    Ok(())
}

fn variable(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// All files below a folder, but for those folders of it.
fn files(folder: &Path, without: &[&str]) -> Outcome<Vec<PathBuf>> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let left_out =
                path.file_name().and_then(OsStr::to_str).is_none_or(|n| without.contains(&n));
            match path.is_dir() {
                _ if left_out => {}
                true => waiting.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies the sources, and removes copies of those that are gone. What is installed stays.
fn copy_over(files: &[PathBuf], sources: &Path, copy: &Path) -> Outcome<()> {
    let old = copy.join("src");
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    for file in files {
        let to = copy.join(file.strip_prefix(sources)?);
        fs::create_dir_all(to.parent().unwrap_or(copy))?;
        fs::copy(file, to)?;
    }
    Ok(())
}

/// Installs what the lock names, if that is not what is installed.
fn install(copy: &Path) -> Result<(), String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (lock, stamp) = (read(&copy.join("package-lock.json"))?, copy.join("installed"));
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    npm(copy, &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])?;
    fs::write(&stamp, lock).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn npm(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let done = Command::new(program).args(arguments).current_dir(folder).output();
    let done = done.map_err(|error| format!("npm cannot be run ({error})"))?;
    if done.status.success() {
        return Ok(());
    }
    // Cargo takes a warning of one line.
    let said = String::from_utf8_lossy(&done.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(format!("`npm {}` failed: {}", arguments.join(" "), said.join(" ")))
}

/// Rust's text of a table of what was built: name, content.
fn table(dist: &Path) -> Outcome<String> {
    let mut text = String::from("&[\n");
    for file in if dist.is_dir() { files(dist, &[])? } else { Vec::new() } {
        let name = file.strip_prefix(dist)?.to_str().ok_or("a file's name is no text")?;
        let path = file.to_str().ok_or("the path of the output folder is no text")?;
        writeln!(text, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    text.push_str("]\n");
    Ok(text)
}
