//! The files of the archive, but for those that are written here: where each comes from, and where it goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::archive::Entry;
use crate::cargo::output;
use crate::error::ReleaseError;
use crate::pages;

/// Files of the repository, and what they are called in the archive.
const FILES: [(&str, &str); 23] = [
    ("LICENSE", "LICENSE"),
    ("README.md", "README.md"),
    ("host/CHANGELOG.md", "CHANGELOG.md"),
    ("host/BACKENDS.md", "docs/BACKENDS.md"),
    ("host/COMPATIBILITY.md", "COMPATIBILITY.md"),
    ("host/CONCEPTS.md", "docs/CONCEPTS.md"),
    ("host/FIRST-STEPS.md", "docs/FIRST-STEPS.md"),
    ("host/MODELS.md", "docs/MODELS.md"),
    ("host/OPERATING.md", "docs/OPERATING.md"),
    ("host/OTLP.md", "docs/OTLP.md"),
    ("host/SECURITY.md", "docs/SECURITY.md"),
    ("host/SIZING.md", "docs/SIZING.md"),
    ("host/assets/prometheus/alerts.yml", "prometheus/alerts.yml"),
    ("host/assets/prometheus/README.md", "prometheus/README.md"),
    ("host/assets/screenshots/plugins.png", "docs/screenshots/plugins.png"),
    ("host/assets/screenshots/request.png", "docs/screenshots/request.png"),
    ("host/deploy/config/grafana/dashboards/tollgate-cost.json", "grafana/tollgate-cost.json"),
    (
        "host/deploy/config/grafana/dashboards/tollgate-operations.json",
        "grafana/tollgate-operations.json",
    ),
    (
        "host/deploy/config/grafana/dashboards/tollgate-requests.json",
        "grafana/tollgate-requests.json",
    ),
    ("host/deploy/systemd/tollgate.service", "systemd/tollgate.service"),
    ("host/deploy/systemd/tollgate.toml", "systemd/tollgate.toml"),
    ("plugins/README.md", "plugins/README.md"),
    ("plugins/COOKBOOK.md", "plugins/COOKBOOK.md"),
];
/// Shells, and what each calls the file that completes a command.
const SHELLS: [(&str, &str); 5] = [
    ("bash", "tollgate.bash"),
    ("zsh", "_tollgate"),
    ("fish", "tollgate.fish"),
    ("elvish", "tollgate.elv"),
    ("powershell", "_tollgate.ps1"),
];
/// Folders beside the plugins that are no plugins of a release.
const NO_PLUGINS: [&str; 2] = ["sdk", "fixtures"];

/// One of the bundled plugins.
pub(crate) struct Plugin {
    /// Its package, which is the name of its file too.
    pub(crate) name: String,
    /// The component.
    pub(crate) component: Vec<u8>,
}

/// The bundled plugins, by name.
pub(crate) fn plugins(root: &Path, components: &Path) -> Result<Vec<Plugin>, ReleaseError> {
    let folder = root.join("plugins");
    let failed = |source| ReleaseError::Read { path: folder.clone(), source };
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map_err(failed)?
        .flatten()
        .filter(|entry| is_plugin(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !NO_PLUGINS.contains(&name.as_str()))
        .collect();
    names.sort();
    let read = |name: String| {
        let file = components.join(format!("{}.wasm", name.replace('-', "_")));
        read(&file).map(|component| Plugin { name, component })
    };
    names.into_iter().map(read).collect()
}

/// Program, plugins, manual, completions, and files of the repository.
pub(crate) fn entries(
    root: &Path,
    program: &Path,
    plugins: Vec<Plugin>,
) -> Result<Vec<Entry>, ReleaseError> {
    let mut entries = vec![Entry::program("tollgate", read(program)?)];
    for plugin in plugins {
        entries.push(Entry::file(format!("plugins/{}.wasm", plugin.name), plugin.component));
    }
    let places = BTreeMap::from(FILES);
    for (from, to) in FILES {
        let mut content = read(&root.join(from))?;
        if to.ends_with(".md") {
            let text = String::from_utf8_lossy(&content);
            content = pages::relink(&text, from, &places).into_bytes();
        }
        entries.push(Entry::file(to, content));
    }
    for (shell, name) in SHELLS {
        let command = format!("tollgate completions {shell}");
        let text = output(Command::new(program).args(["completions", shell]), &command)?;
        entries.push(Entry::file(format!("completions/{name}"), text.into_bytes()));
    }
    let scratch = tempfile::tempdir()
        .map_err(|source| ReleaseError::Write { path: std::env::temp_dir(), source })?;
    output(
        Command::new(program).args(["man", "--out"]).arg(scratch.path()),
        "tollgate man --out FOLDER",
    )?;
    let failed = |source| ReleaseError::Read { path: scratch.path().to_owned(), source };
    for page in fs::read_dir(scratch.path()).map_err(failed)?.flatten() {
        let name = page.file_name().to_string_lossy().into_owned();
        entries.push(Entry::file(format!("man/man1/{name}"), read(&page.path())?));
    }
    Ok(entries)
}

/// Whether a folder has a package that becomes a component.
fn is_plugin(folder: &Path) -> bool {
    fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains("\"cdylib\""))
}

fn read(path: &Path) -> Result<Vec<u8>, ReleaseError> {
    fs::read(path).map_err(|source| ReleaseError::Read { path: path.to_owned(), source })
}
