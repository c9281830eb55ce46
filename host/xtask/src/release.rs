//! `cargo xtask release`: what is given to others, in `target/dist/out`.
//!
//! The same sources, toolchain and C compiler make the same bytes, wherever the repository lies: compilers are told to write a
//! fixed name in the place of the three folders that a build knows (repository, build outputs, cargo's home), and all times are
//! that of the commit, or `SOURCE_DATE_EPOCH`. `--again` builds a clone in another folder and compares.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::building::{self, WASM};
use crate::process::{self, Outcome, cargo, cargo_in, root, run, target};

/// What stands for a folder in all that is built.
const STAND_INS: [&str; 3] = ["/cargo", "/tollgate", "/build"];

/// What was asked for.
struct Wanted {
    again: bool,
    profile: String,
}

/// Builds, packs, and with `--again` does both once more elsewhere.
pub(crate) fn release(arguments: &[String]) -> Outcome {
    let wanted = wanted(arguments)?;
    if wanted.again {
        need_all_committed()?;
    }
    let epoch = epoch()?;
    let out = built_and_packed(&root(), &folder(), &wanted.profile, &epoch)?;
    if wanted.again {
        let elsewhere = folder().join("again/elsewhere");
        let _ = std::fs::remove_dir_all(&elsewhere);
        let mut clone = Command::new("git");
        clone.args(["clone", "--quiet", "--no-hardlinks"]).arg(root()).arg(&elsewhere);
        run(&mut clone)?;
        let second = built_and_packed(&elsewhere, &elsewhere.join("out"), &wanted.profile, &epoch)?;
        same(&out, &second)?;
        println!("both builds are the same, byte for byte");
    }
    println!("packed in {}", out.display());
    Ok(())
}

/// Where builds and archives of releases lie; apart from others, since other flags would have all compiled anew.
fn folder() -> PathBuf {
    target().join("dist")
}

fn wanted(arguments: &[String]) -> Outcome<Wanted> {
    let mut wanted = Wanted { again: false, profile: "release".to_owned() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--again" => wanted.again = true,
            "--profile" => wanted.profile = words.next().ok_or("--profile takes a name")?.clone(),
            other => {
                return Err(format!("takes `--again` and `--profile NAME`, and not `{other}`"));
            }
        }
    }
    Ok(wanted)
}

/// A clone has what is committed: with anything beside it the two builds would not be of the same sources.
fn need_all_committed() -> Outcome {
    let mut status = Command::new("git");
    status.args(["status", "--porcelain"]).current_dir(root());
    match process::output(&mut status) {
        Some(changes) if changes.trim().is_empty() => Ok(()),
        Some(changes) => Err(format!(
            "`--again` builds a clone, which has what is committed: commit or take away\n{}",
            changes.trim_end()
        )),
        None => Err("`--again` builds a clone, and this is none by git".to_owned()),
    }
}

/// The time that files of the release get, in seconds since 1970.
fn epoch() -> Outcome<String> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    let mut log = Command::new("git");
    let time = process::output(log.args(["log", "-1", "--format=%ct"]).current_dir(root()));
    time.map(|time| time.trim().to_owned())
        .filter(|time| !time.is_empty())
        .ok_or_else(|| "this is no clone by git: say the time in SOURCE_DATE_EPOCH".to_owned())
}

/// Builds the repository that lies in `top`, and packs what comes out.
fn built_and_packed(top: &Path, build: &Path, profile: &str, epoch: &str) -> Outcome<PathBuf> {
    building::need_target(WASM)?;
    let plugins = building::bundled_plugins()?;
    println!("[1/3] plugins, for {WASM}");
    let wasm = build.join("plugins");
    let mut command = cargo_in(
        &top.join("plugins"),
        ["build", "--locked", "--release", "--target", WASM, "--target-dir"],
    );
    command.arg(&wasm);
    for plugin in &plugins {
        command.args(["-p", plugin]);
    }
    run(repeatable(&mut command, top, &wasm, epoch)?)?;
    println!("[2/3] gateway, with profile {profile} (takes many minutes)");
    let mut command = cargo_in(top, ["build", "--locked", "-p", "tollgate", "--profile", profile]);
    command.arg("--target-dir").arg(build);
    // A release without its dashboard would be a surprise.
    command.env("TOLLGATE_DASHBOARD", "required");
    run(repeatable(&mut command, top, build, epoch)?)?;
    println!("[3/3] archive, bill of materials, checksums");
    // Cargo's profile `dev` writes to `debug`.
    let built = build.join(if profile == "dev" { "debug" } else { profile });
    let out = build.join("out");
    let mut pack = cargo(["run", "--locked", "--quiet", "-p", "tollgate-release", "--"]);
    pack.args(["--target", &host()?, "--epoch", epoch]);
    for (flag, path) in [
        ("--root", top),
        ("--program", &built.join(format!("tollgate{}", std::env::consts::EXE_SUFFIX))),
        ("--components", &wasm.join(WASM).join("release")),
        ("--built", &built),
        ("--out", &out),
    ] {
        pack.arg(flag).arg(path);
    }
    run(&mut pack)?;
    Ok(out)
}

/// Tells compilers to write no folder of this machine, and no time of today.
fn repeatable<'a>(
    command: &'a mut Command,
    top: &Path,
    build: &Path,
    epoch: &str,
) -> Outcome<&'a mut Command> {
    // The later rule wins, and the build's folder lies in the repository's.
    let folders = [cargo_home()?, top.to_owned(), build.to_owned()];
    let (mut rust, mut c) = (Vec::new(), Vec::new());
    for (folder, stand_in) in folders.iter().zip(STAND_INS) {
        let folder = folder.to_str().ok_or("a folder's name is no text")?;
        rust.push(format!("--remap-path-prefix={folder}={stand_in}"));
        // Quoted, since a folder's name may have blanks.
        c.push(format!("'-ffile-prefix-map={folder}={stand_in}'"));
    }
    // Where macros write the path of a file into what they make, all that stands behind it is further on by the length of the
    // path, and inline assembly remembers where it stood. Nothing of that is in what runs, but the names that optimisation
    // across crates gives to functions are made of it.
    rust.push("-Cstrip=symbols".to_owned());
    // Separated as cargo wants it where a flag may have blanks.
    command.env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}")).env_remove("RUSTFLAGS");
    for variable in ["CFLAGS", "CXXFLAGS"] {
        command.env(variable, c.join(" "));
    }
    // Has the crate `cc` take flags apart as a shell does.
    command.env("CC_SHELL_ESCAPED_FLAGS", "1");
    Ok(command.env("SOURCE_DATE_EPOCH", epoch).env("CARGO_INCREMENTAL", "0"))
}

fn cargo_home() -> Outcome<PathBuf> {
    let home =
        |name: &str, below: &str| std::env::var_os(name).map(|v| PathBuf::from(v).join(below));
    home("CARGO_HOME", "")
        .or_else(|| home("HOME", ".cargo"))
        .or_else(|| home("USERPROFILE", ".cargo"))
        .ok_or_else(|| "where is cargo's home? CARGO_HOME says".to_owned())
}

/// What this toolchain compiles for.
fn host() -> Outcome<String> {
    let about = process::output(Command::new("rustc").arg("-vV").current_dir(root()));
    about
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")))
        .map(str::to_owned)
        .ok_or_else(|| "rustc does not say what it compiles for".to_owned())
}

/// Compares the checksums of two releases.
fn same(first: &Path, second: &Path) -> Outcome {
    let sums = |folder: &Path| {
        let path = folder.join("SHA256SUMS");
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (first, second) = (sums(first)?, sums(second)?);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<String>>();
    let differ: Vec<String> =
        lines(&first).symmetric_difference(&lines(&second)).cloned().collect();
    match differ.is_empty() {
        true => Ok(()),
        false => Err(format!("the second build differs:\n{}", differ.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with debug information and the place of a panic, built in this folder, and how `release` does it or not.
    fn built(folder: &Path, as_released: bool) -> Vec<u8> {
        let (source, build) = (folder.join("src"), folder.join("target"));
        std::fs::create_dir_all(&source).unwrap();
        let manifest = "[package]\nname = \"small\"\nedition = \"2024\"\n[workspace]\n";
        std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        std::fs::write(source.join("main.rs"), "fn main() { panic!(\"here\") }\n").unwrap();
        let mut command = cargo_in(folder, ["build", "--offline", "--quiet", "--target-dir"]);
        command.arg(&build).env("CARGO_INCREMENTAL", "0");
        if as_released {
            repeatable(&mut command, folder, &build, "0").unwrap();
        }
        run(&mut command).unwrap();
        let program = format!("debug/small{}", std::env::consts::EXE_SUFFIX);
        std::fs::read(build.join(program)).unwrap()
    }

    #[test]
    fn a_program_does_not_tell_where_it_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "a folder elsewhere"].map(|name| folder.path().join(name));
        let (released, plain) = (built(&here, true), built(&here, false));
        assert!(released == built(&there, true), "the same source makes other bytes");
        assert!(plain != built(&there, false), "nothing in it tells where it was built");
        let names_functions =
            |program: &[u8]| program.windows(10).any(|name| name == b"small4main");
        assert!(names_functions(&plain) && !names_functions(&released));
    }

    #[test]
    fn builds_that_differ_are_told_by_file() {
        let folder = tempfile::tempdir().unwrap();
        let release = |name: &str, sums: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("SHA256SUMS"), sums).unwrap();
            folder
        };
        let first = release("first", "aa  x.tar.gz\nbb  x.cdx.json\n");
        assert_eq!(same(&first, &release("same", "bb  x.cdx.json\naa  x.tar.gz\n")), Ok(()));
        let told = same(&first, &release("other", "ac  x.tar.gz\nbb  x.cdx.json\n")).unwrap_err();
        assert!(told.contains("aa  x.tar.gz") && !told.contains("cdx"), "{told}");
        assert!(same(&first, &folder.path().join("none")).unwrap_err().contains("SHA256SUMS"));
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let all = wanted(&words(&["--again", "--profile", "dev"])).unwrap();
        assert_eq!((all.again, all.profile.as_str()), (true, "dev"));
        assert_eq!(wanted(&[]).unwrap().profile, "release");
        assert!(wanted(&words(&["--profile"])).is_err() && wanted(&words(&["--agian"])).is_err());
    }
}
