//! The crates import each other only along the arrows of the design, and each heavy dependency has one home.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// What each crate may import of ours; an arrow that is not here is not allowed.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("settings", &["domain"]),
    ("scheduler", &["domain"]),
    ("model", &["domain"]),
    ("engine", &["domain", "scheduler", "model"]),
    ("upstream", &["domain"]),
    ("plugin-host", &["domain"]),
    ("ledger", &["domain"]),
    ("telemetry", &["domain"]),
    ("tenancy", &["domain"]),
    ("summary", &["domain"]),
    (
        "gateway",
        &[
            "domain",
            "scheduler",
            "model",
            "engine",
            "upstream",
            "plugin-host",
            "ledger",
            "telemetry",
            "tenancy",
            "summary",
        ],
    ),
    ("http-api", &["domain", "gateway"]),
];

/// Dependencies, by the beginning of their name, that live in one crate only.
const FENCES: &[(&str, &str)] = &[
    ("axum", "http-api"),
    ("wasmtime", "plugin-host"),
    ("candle", "model"),
    ("opentelemetry", "telemetry"),
    ("redis", "tenancy"),
    ("rusqlite", "ledger"),
    ("sqlx", "ledger"),
];

/// Dependencies that a pure crate does without.
const IMPURE: &[&str] = &["tokio", "futures", "reqwest", "hyper", "tracing-subscriber", "async-"];
const PURE: &[&str] = &["domain", "scheduler", "summary"];

/// All that may lie at the top of the repository, dotfiles aside.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "host",
    "plugins",
    "rust-toolchain.toml",
    "tests",
    "wit",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(parent)
        .unwrap_or_else(|e| panic!("{}: {e}", parent.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("Cargo.toml").is_file())
        .collect();
    found.sort();
    found
}

/// The parts of the program: folder name and manifest.
fn parts() -> BTreeMap<String, Table> {
    folders(&root().join("host/crates"))
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), manifest(&path)))
        .collect()
}

/// Names in every dependency table of a manifest: what it builds, tests and is built with, on any target.
fn dependencies(manifest: &Table) -> BTreeSet<String> {
    const TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let mut names = BTreeSet::new();
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    for table in std::iter::once(manifest).chain(targets.filter_map(|(_, table)| table.as_table()))
    {
        for (name, value) in TABLES.iter().filter_map(|name| table.get(*name)?.as_table()).flatten()
        {
            let renamed = value.get("package").and_then(Value::as_str);
            names.insert(renamed.unwrap_or(name).to_owned());
        }
    }
    names
}

#[test]
fn arrows_only_go_down() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (part, manifest) in parts() {
        let Some(may) = allowed.get(part.as_str()) else {
            wrong.push(format!("host/crates/{part} is not in the design's table"));
            continue;
        };
        let name = manifest["package"]["name"].as_str();
        if name != Some(&format!("tollgate-{part}")) {
            wrong.push(format!("host/crates/{part} is named {name:?}, not tollgate-{part}"));
        }
        for dependency in dependencies(&manifest) {
            let Some(imported) = dependency.strip_prefix("tollgate-") else { continue };
            // A crate may name itself, to turn its own features on for its tests.
            if imported != part && !may.contains(&imported) {
                wrong.push(format!("{part} imports {imported}, which the design does not allow"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_heavy_dependency_has_one_home() {
    let mut wrong = Vec::new();
    let mut all = parts();
    all.insert("the program".to_owned(), manifest(&root().join("host")));
    all.insert("release".to_owned(), manifest(&root().join("host/release")));
    all.insert("xtask".to_owned(), manifest(&root().join("host/xtask")));
    for (part, manifest) in all {
        for dependency in dependencies(&manifest) {
            for (prefix, home) in FENCES {
                if dependency.starts_with(prefix) && part != *home {
                    wrong.push(format!("{part} depends on {dependency}; only {home} may"));
                }
            }
            let impure = IMPURE.iter().any(|prefix| dependency.starts_with(prefix));
            if impure && PURE.contains(&part.as_str()) {
                wrong.push(format!("{part} depends on {dependency}; it is pure"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_opts_in_to_the_lints() {
    let root = root();
    let mut crates = vec![root.join("host"), root.join("host/release"), root.join("host/xtask")];
    for parent in ["host/crates", "plugins", "plugins/fixtures"] {
        crates.extend(folders(&root.join(parent)));
    }
    let mut wrong = Vec::new();
    for folder in &crates {
        let manifest = manifest(folder);
        if manifest.get("package").is_none() {
            continue;
        }
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(Value::as_bool) != Some(true) {
            wrong.push(format!("{} lacks `lints.workspace = true`", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lints = |folder: &str| manifest(&root.join(folder))["workspace"]["lints"].clone();
    assert_eq!(lints("."), lints("plugins"), "both workspaces have the same lints");
}

#[test]
fn the_top_level_holds_nothing_else() {
    // Build outputs and data of a run are git's to ignore, not ours to judge.
    let ignored = ["target", "tollgate-data"];
    let mut wrong: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !ignored.contains(&name.as_str()))
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    wrong.sort();
    assert!(wrong.is_empty(), "not allowed at the top level: {}", wrong.join(", "));
}
