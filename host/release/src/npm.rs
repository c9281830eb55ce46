//! The packages of npm that are bundled into the dashboard's page, and so into the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::ReleaseError;
use crate::part::{Checksum, Origin, Part, Parts, licence};

/// The crate that the page is compiled into.
const HOME: &str = "tollgate-http-api";
/// Where a package lies, in the lock file and in a folder.
const FOLDER: &str = "node_modules/";

/// The part of `package-lock.json` that is read.
#[derive(Debug, Deserialize)]
struct Lock {
    name: String,
    version: String,
    packages: BTreeMap<String, Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    #[serde(default)]
    version: String,
    integrity: Option<String>,
    license: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
}

/// Adds the page and what is bundled into it.
pub(crate) fn add(parts: &mut Parts, root: &Path, built: &Path) -> Result<(), ReleaseError> {
    let path = root.join("host/assets/dashboard/package-lock.json");
    let text = fs::read_to_string(&path)
        .map_err(|source| ReleaseError::Read { path: path.clone(), source })?;
    let lock: Lock = serde_json::from_str(&text)
        .map_err(|why| ReleaseError::malformed(path.display().to_string(), why))?;
    let installed = installed(built, &text)?;
    let mut bundled = BTreeMap::new();
    for (place, package) in &lock.packages {
        // What only bundles, as the bundler itself, is not in the page.
        let Some(name) = place.strip_prefix(FOLDER).filter(|_| !package.dev) else { continue };
        bundled.insert(name, part(name, package, &installed)?);
    }
    let references: BTreeMap<String, String> =
        bundled.iter().map(|(name, part)| ((*name).to_owned(), part.reference())).collect();
    let needs = |package: &Locked| {
        package.dependencies.keys().filter_map(|name| references.get(name).cloned()).collect()
    };
    for (name, mut part) in bundled {
        part.needs = lock.packages.get(&format!("{FOLDER}{name}")).map(needs).unwrap_or_default();
        parts.add(part);
    }
    let page = Part {
        origin: Origin::Ours,
        name: lock.name,
        version: lock.version,
        description: Some("The page at /ui/ of the admin listener".to_owned()),
        licence: "Apache-2.0".to_owned(),
        checksum: None,
        repository: None,
        authors: Vec::new(),
        folder: None,
        is_application: false,
        needs: lock.packages.get("").map(needs).unwrap_or_default(),
    };
    let version = &parts.product()?.version;
    let home = format!("{HOME}@{version}");
    let reference = page.reference();
    parts.add(page);
    match parts.get_mut(&home) {
        Some(part) => part.needs.push(reference),
        None => return Err(ReleaseError::malformed("the list of parts", format!("no {home}"))),
    }
    Ok(())
}

fn part(name: &str, package: &Locked, installed: &Path) -> Result<Part, ReleaseError> {
    let shown = format!("{name} {}", package.version);
    let digits = package.integrity.as_deref().and_then(sha512).ok_or_else(|| {
        ReleaseError::malformed("package-lock.json", format!("no SHA-512 of {shown}"))
    })?;
    Ok(Part {
        origin: Origin::Npm,
        name: name.to_owned(),
        version: package.version.clone(),
        description: None,
        licence: licence(package.license.as_deref(), &shown)?,
        checksum: Some(Checksum { algorithm: "SHA-512", digits }),
        repository: Some(format!("https://www.npmjs.com/package/{name}")),
        authors: Vec::new(),
        folder: Some(installed.join(name)),
        is_application: false,
        needs: Vec::new(),
    })
}

/// Where the build of the page has installed what this lock file names.
fn installed(built: &Path, lock: &str) -> Result<PathBuf, ReleaseError> {
    let folder = built.join("build");
    let entries = fs::read_dir(&folder)
        .map_err(|source| ReleaseError::Read { path: folder.clone(), source })?;
    for entry in entries.flatten() {
        let copy = entry.path().join("out/dashboard");
        let is_it = entry.file_name().to_string_lossy().starts_with(HOME);
        if is_it && fs::read_to_string(copy.join("installed")).is_ok_and(|had| had == lock) {
            return Ok(copy.join(FOLDER));
        }
    }
    let why = "the dashboard was not bundled into the program: is npm there? Without it, build and pack without a dashboard";
    Err(ReleaseError::malformed(folder.display().to_string(), why))
}

/// The digits of npm's `sha512-` and Base64.
fn sha512(integrity: &str) -> Option<String> {
    const BYTES: usize = 64;
    let bytes = STANDARD.decode(integrity.strip_prefix("sha512-")?).ok()?;
    (bytes.len() == BYTES).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_sha_512_is_one() {
        let zeros = format!("sha512-{}==", "A".repeat(86));
        assert_eq!(sha512(&zeros), Some("00".repeat(64)));
        let ones = format!("sha512-{}w==", "/".repeat(85));
        assert_eq!(sha512(&ones), Some("ff".repeat(64)));
        for wrong in ["", "sha1-AAAA", "sha512-AAAA", "sha512-!"] {
            assert_eq!(sha512(wrong), None, "{wrong}");
        }
    }
}
