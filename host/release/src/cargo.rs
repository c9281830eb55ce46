//! The Rust packages that are compiled into the program and into each plugin.
//!
//! `cargo tree` tells which: those that the features in force really bring in, for this target, without what only builds or
//! tests. `cargo metadata` tells what each is, the lock file its checksum.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::ReleaseError;
use crate::part::{Checksum, Origin, Part, Parts, licence};
use crate::stage::Plugin;

/// The package that is the program.
const PROGRAM: &str = "tollgate";
/// What plugins are compiled for.
const WASM: &str = "wasm32-wasip2";

/// All parts of the program.
pub(crate) fn program(root: &Path, target: &str) -> Result<Parts, ReleaseError> {
    let mut parts = Parts::default();
    let product = add(&mut parts, root, PROGRAM, target)?;
    if let Some(part) = parts.get_mut(&product) {
        part.is_application = true;
    }
    parts.name_product(product);
    Ok(parts)
}

/// A plugin and what it is made of, as something that the product has along.
pub(crate) fn add_plugin(
    parts: &mut Parts,
    root: &Path,
    plugin: &Plugin,
) -> Result<(), ReleaseError> {
    let reference = add(parts, &root.join("plugins"), &plugin.name, WASM)?;
    if let Some(part) = parts.get_mut(&reference) {
        part.is_application = true;
        part.checksum =
            Some(Checksum { algorithm: "SHA-256", digits: crate::sha256(&plugin.component) });
    }
    let product = parts.product()?.reference();
    if let Some(part) = parts.get_mut(&product) {
        part.needs.push(reference);
    }
    Ok(())
}

/// Adds a package of a workspace with all that is compiled into it; returns its reference.
fn add(
    parts: &mut Parts,
    workspace: &Path,
    package: &str,
    target: &str,
) -> Result<String, ReleaseError> {
    let inside = compiled_in(workspace, package, target)?;
    let checksums = checksums(&workspace.join("Cargo.lock"))?;
    let metadata = metadata(workspace, target)?;
    let standard = standard_library(workspace)?;
    let known: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .filter(|package| inside.contains(&package.key()))
        .map(|package| (package.id.as_str(), package))
        .collect();
    if known.len() != inside.len() {
        let why = format!("it knows {} of the {} packages of {package}", known.len(), inside.len());
        return Err(ReleaseError::malformed("cargo metadata", why));
    }
    let mut references = BTreeMap::new();
    for (id, package) in &known {
        let part = package.part(&checksums)?;
        references.insert(*id, part.reference());
        parts.add(part);
    }
    for node in &metadata.resolve.nodes {
        let Some(reference) = references.get(node.id.as_str()) else { continue };
        let needs: BTreeSet<String> = node
            .deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()))
            .filter_map(|dep| references.get(dep.pkg.as_str()).cloned())
            .collect();
        if let Some(part) = parts.get_mut(reference) {
            part.needs.extend(needs);
            part.needs.sort();
            part.needs.dedup();
        }
    }
    let wanted = known.values().find(|known| known.name == package).map(|known| known.id.as_str());
    let reference = wanted.and_then(|id| references.get(id)).cloned();
    let reference = reference.ok_or_else(|| {
        ReleaseError::malformed("cargo metadata", format!("no package {package}"))
    })?;
    if let Some(part) = parts.get_mut(&reference) {
        part.needs.push(standard.reference());
    }
    parts.add(standard);
    Ok(reference)
}

/// Name and version of each package that is compiled in.
fn compiled_in(
    workspace: &Path,
    package: &str,
    target: &str,
) -> Result<BTreeSet<(String, String)>, ReleaseError> {
    let arguments =
        ["tree", "--locked", "-e", "normal,no-proc-macro", "--prefix", "none", "-f", "{p}"];
    let text = cargo(workspace, &[&arguments[..], &["--target", target, "-p", package]].concat())?;
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        match (words.next(), words.next().and_then(|version| version.strip_prefix('v'))) {
            (Some(name), Some(version)) => found.insert((name.to_owned(), version.to_owned())),
            _ => return Err(ReleaseError::malformed("cargo tree", format!("a line is `{line}`"))),
        };
    }
    Ok(found)
}

/// The part of `cargo metadata` that is read.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// None for an ordinary dependency, else `build` or `dev`.
#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
}

impl Package {
    fn key(&self) -> (String, String) {
        (self.name.clone(), self.version.clone())
    }

    fn part(&self, checksums: &BTreeMap<(String, String), String>) -> Result<Part, ReleaseError> {
        let name = format!("{} {}", self.name, self.version);
        let ours = self.source.is_none();
        let checksum = checksums.get(&self.key());
        if !ours && checksum.is_none() {
            return Err(ReleaseError::malformed("Cargo.lock", format!("no checksum of {name}")));
        }
        Ok(Part {
            origin: if ours { Origin::Ours } else { Origin::Cargo },
            name: self.name.clone(),
            version: self.version.clone(),
            description: self.description.as_deref().map(one_line),
            licence: licence(self.license.as_deref(), &name)?,
            checksum: checksum
                .map(|digits| Checksum { algorithm: "SHA-256", digits: digits.clone() }),
            repository: self.repository.clone().filter(|_| !ours),
            authors: self.authors.clone(),
            folder: self.manifest_path.parent().map(Path::to_owned).filter(|_| !ours),
            is_application: false,
            needs: Vec::new(),
        })
    }
}

fn metadata(workspace: &Path, target: &str) -> Result<Metadata, ReleaseError> {
    let text = cargo(
        workspace,
        &["metadata", "--format-version=1", "--locked", "--filter-platform", target],
    )?;
    serde_json::from_str(&text).map_err(|why| ReleaseError::malformed("cargo metadata", why))
}

/// Checksums by name and version.
fn checksums(lock: &Path) -> Result<BTreeMap<(String, String), String>, ReleaseError> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let text = fs::read_to_string(lock)
        .map_err(|source| ReleaseError::Read { path: lock.to_owned(), source })?;
    let lock: Lock = toml::from_str(&text)
        .map_err(|why| ReleaseError::malformed(lock.display().to_string(), why))?;
    let with = lock.package.into_iter().filter_map(|package| {
        package.checksum.map(|checksum| ((package.name, package.version), checksum))
    });
    Ok(with.collect())
}

/// The standard library, which is in every program and in no lock file.
fn standard_library(workspace: &Path) -> Result<Part, ReleaseError> {
    let text =
        output(Command::new("rustc").arg("--version").current_dir(workspace), "rustc --version")?;
    let version = text.split(' ').nth(1).unwrap_or_default().to_owned();
    if version.is_empty() {
        return Err(ReleaseError::malformed("rustc --version", text));
    }
    Ok(Part {
        origin: Origin::Toolchain,
        name: "rust-standard-library".to_owned(),
        version,
        description: Some("The standard library of the Rust toolchain".to_owned()),
        licence: "MIT OR Apache-2.0".to_owned(),
        checksum: None,
        repository: Some("https://github.com/rust-lang/rust".to_owned()),
        authors: vec!["The Rust Project contributors".to_owned()],
        folder: None,
        is_application: false,
        needs: Vec::new(),
    })
}

fn cargo(workspace: &Path, arguments: &[&str]) -> Result<String, ReleaseError> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    output(
        command.args(arguments).current_dir(workspace),
        &format!("cargo {}", arguments.join(" ")),
    )
}

/// What a program prints.
pub(crate) fn output(command: &mut Command, shown: &str) -> Result<String, ReleaseError> {
    let failed = |said: String| ReleaseError::Command { command: shown.to_owned(), said };
    let done = command.output().map_err(|error| failed(error.to_string()))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr);
            Err(failed(said.trim_end().lines().next_back().unwrap_or("nothing").to_owned()))
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<&str>>().join(" ")
}
