//! Programs that tasks start: found, shown, run, and their failure told in one line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Nothing, or in one line what went wrong.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    // Asked at run time first: a checkout may have moved since this program was compiled.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}

/// Where the host's build outputs lie.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo, at the top of the repository.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    cargo_in(&root(), arguments)
}

/// Cargo, in another folder.
pub(crate) fn cargo_in<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder).args(arguments);
    // What cargo told us of this package is not true of the ones we build.
    for (name, _) in std::env::vars_os() {
        let of_this_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        if of_this_package {
            command.env_remove(name);
        }
    }
    command
}

/// Shows a command, runs it, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Outcome {
    println!("  $ {}", shown(command));
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{}` failed ({status})", shown(command))),
    }
}

/// Runs a command silently and returns what it printed; none if it failed or is not there.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes the command, so that signals reach it and its exit status is ours.
#[cfg(unix)]
pub(crate) fn become_it(command: &mut Command) -> Outcome {
    println!("  $ {}", shown(command));
    become_silently(command)
}

/// The same without a word, for what is read by a program.
#[cfg(unix)]
pub(crate) fn become_silently(command: &mut Command) -> Outcome {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(cannot_start(command, &error))
}

/// Runs the command to its end: without `exec` that is the nearest there is.
#[cfg(not(unix))]
pub(crate) fn become_silently(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    std::process::exit(status.code().unwrap_or(1));
}

/// Runs the command to its end: without `exec` that is the nearest there is.
#[cfg(not(unix))]
pub(crate) fn become_it(command: &mut Command) -> Outcome {
    run(command)
}

/// Copies `from` to `to` in one step that a watching program sees as one; not at all if `to` is the same already.
pub(crate) fn copy_if_changed(from: &Path, to: &Path) -> Outcome {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", to.display());
    let content =
        std::fs::read(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let temporary = to.with_extension("partial");
    std::fs::write(&temporary, content).map_err(failed)?;
    std::fs::rename(&temporary, to).map_err(failed)
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot start `{}`: {error}", command.get_program().to_string_lossy())
}

/// The command as one would type it, paths below the repository shortened.
fn shown(command: &Command) -> String {
    let root = format!("{}/", root().display());
    let mut words = vec![
        Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(command.get_args().map(|word| word.to_string_lossy().replace(&root, "")));
    words.join(" ")
}
