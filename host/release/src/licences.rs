//! One text with the licences of all that is in the program and its plugins.
//!
//! Each package's own files are taken, wherever in it they lie; the same text stands once. A package that comes without any
//! is listed with its authors and the standard text of what its manifest names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use spdx::{Expression, LicenseItem};

use crate::error::ReleaseError;
use crate::part::{Origin, Part, Parts};

/// How the names of files begin that say what may be done with a package.
const NAMES: [&str; 6] = ["license", "licence", "copying", "unlicense", "notice", "copyright"];
/// Ends of names of files that are sources and no texts.
const SOURCES: [&str; 5] = ["rs", "py", "js", "ts", "c"];
/// Beyond that it is no licence.
const MOST_BYTES: u64 = 256 * 1024;
/// Sources of others, such as those of zstd, lie that deep in a package.
const DEEPEST: usize = 3;
const LINE: &str =
    "\n--------------------------------------------------------------------------------\n";

/// The text.
pub(crate) fn written(parts: &Parts) -> Result<String, ReleaseError> {
    let product = parts.product()?;
    let mut text = format!(
        "{} {} is made of these parts, each under its own licence. The texts follow.\n\n",
        product.name, product.version
    );
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for part in parts.others().filter(|part| part.origin != Origin::Ours) {
        let name = format!("{} {}", part.name, part.version);
        let _ = writeln!(text, "{name}: {}", part.licence);
        for found in texts_of(part)? {
            texts.entry(found).or_default().insert(name.clone());
        }
    }
    // By who they are for, so that an index reads as the list above.
    let mut sorted: Vec<(BTreeSet<String>, String)> =
        texts.into_iter().map(|(text, names)| (names, text)).collect();
    sorted.sort();
    for (names, licence) in sorted {
        text.push_str(LINE);
        for name in names {
            let _ = writeln!(text, "{name}");
        }
        let _ = write!(text, "\n{licence}");
    }
    Ok(text)
}

fn texts_of(part: &Part) -> Result<Vec<String>, ReleaseError> {
    let mut found = Vec::new();
    if let Some(folder) = &part.folder {
        look(folder, DEEPEST, &mut found)?;
    }
    if found.is_empty() {
        found.push(standard(part)?);
    }
    Ok(found)
}

fn look(folder: &Path, deeper: usize, found: &mut Vec<String>) -> Result<(), ReleaseError> {
    let failed = |source| ReleaseError::Read { path: folder.to_owned(), source };
    let mut entries: Vec<_> = fs::read_dir(folder).map_err(failed)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().to_lowercase());
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            if let Some(deeper) = deeper.checked_sub(1) {
                look(&path, deeper, found)?;
            }
            continue;
        }
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let is_one = NAMES.iter().any(|start| name.starts_with(start));
        if is_one && !SOURCES.contains(&ending) && about.len() <= MOST_BYTES {
            let content = fs::read(&path).map_err(|source| ReleaseError::Read { path, source })?;
            let content = String::from_utf8_lossy(&content).replace("\r\n", "\n");
            found.push(format!("{}\n", content.trim_end()));
        }
    }
    Ok(())
}

/// What stands in for the text that a package lacks.
fn standard(part: &Part) -> Result<String, ReleaseError> {
    let name = format!("{} {}", part.name, part.version);
    let unknown = || ReleaseError::Licence { part: name.clone(), licence: part.licence.clone() };
    let expression = Expression::parse(&part.licence).map_err(|_| unknown())?;
    let mut text = "This package comes without a text. Its manifest says:\n".to_owned();
    if !part.authors.is_empty() {
        let _ = writeln!(text, "Authors: {}", part.authors.join(", "));
    }
    if let Some(repository) = &part.repository {
        let _ = writeln!(text, "Repository: {repository}");
    }
    let _ = writeln!(text, "Licence: {}", part.licence);
    for needed in expression.requirements() {
        let LicenseItem::Spdx { id, .. } = needed.req.license else { return Err(unknown()) };
        let _ = write!(text, "\n{}\n", id.text().trim_end());
        if let Some(spdx::AdditionItem::Spdx(exception)) = &needed.req.addition {
            let _ = write!(text, "\n{}\n", exception.text().trim_end());
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(folder: Option<&Path>, licence: &str) -> Part {
        Part {
            origin: Origin::Cargo,
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            description: None,
            licence: licence.to_owned(),
            checksum: None,
            repository: None,
            authors: vec!["Somebody".to_owned()],
            folder: folder.map(Path::to_owned),
            is_application: false,
            needs: Vec::new(),
        }
    }

    #[test]
    fn texts_are_found_where_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: &str| folder.path().join(path);
        fs::create_dir_all(of("inner/zstd")).unwrap();
        for (path, text) in [
            ("LICENSE-MIT", "one\r\ntwo"),
            ("inner/zstd/COPYING", "three\n\n"),
            ("license.rs", "no text"),
            ("README.md", "none either"),
        ] {
            fs::write(of(path), text).unwrap();
        }
        let found = texts_of(&part(Some(folder.path()), "MIT")).unwrap();
        assert_eq!(found, ["one\ntwo\n", "three\n"]);
    }

    #[test]
    fn a_package_without_a_text_gets_the_standard_one() {
        let folder = tempfile::tempdir().unwrap();
        let found = texts_of(&part(Some(folder.path()), "Apache-2.0 WITH LLVM-exception")).unwrap();
        let [text] = found.as_slice() else { panic!("{found:?}") };
        for words in ["Authors: Somebody", "Apache License", "LLVM Exceptions"] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
    }
}
