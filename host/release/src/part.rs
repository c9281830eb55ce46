//! What a release is made of: packages of any registry and our own, and who needs whom.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spdx::{Expression, ParseMode};

use crate::error::ReleaseError;

/// Where a package comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// crates.io.
    Cargo,
    /// The npm registry.
    Npm,
    /// The Rust toolchain: the standard library.
    Toolchain,
    /// This repository.
    Ours,
}

/// A checksum, as the lock file of its registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Checksum {
    /// `SHA-256` or `SHA-512`.
    pub(crate) algorithm: &'static str,
    /// Small hexadecimal digits.
    pub(crate) digits: String,
}

/// One package.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// As its registry has it.
    pub(crate) name: String,
    /// Exact.
    pub(crate) version: String,
    /// One sentence, if its manifest has one.
    pub(crate) description: Option<String>,
    /// An SPDX expression.
    pub(crate) licence: String,
    /// Of the package, or of the component that was built from it.
    pub(crate) checksum: Option<Checksum>,
    /// Where its sources are to be found.
    pub(crate) repository: Option<String>,
    /// Who wrote it, if its manifest says.
    pub(crate) authors: Vec<String>,
    /// Where it lies here: its licence texts are read there. None for what has no folder.
    pub(crate) folder: Option<PathBuf>,
    /// A program or a plugin, rather than a part of one.
    pub(crate) is_application: bool,
    /// References of what it needs.
    pub(crate) needs: Vec<String>,
}

impl Part {
    /// What others refer to it by: a package URL, or name and version of what no registry has.
    pub(crate) fn reference(&self) -> String {
        self.package_url().unwrap_or_else(|| format!("{}@{}", self.name, self.version))
    }

    /// The package URL of what a registry has.
    pub(crate) fn package_url(&self) -> Option<String> {
        match self.origin {
            Origin::Cargo => Some(format!("pkg:cargo/{}@{}", self.name, self.version)),
            // A scope's `@` is written as three characters.
            Origin::Npm => {
                Some(format!("pkg:npm/{}@{}", self.name.replacen('@', "%40", 1), self.version))
            }
            Origin::Toolchain | Origin::Ours => None,
        }
    }
}

/// All parts, each once, by reference.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    all: BTreeMap<String, Part>,
    product: Option<String>,
}

impl Parts {
    /// Adds one; what is known by that reference already stays, and needs what both need.
    pub(crate) fn add(&mut self, part: Part) {
        let reference = part.reference();
        match self.all.get_mut(&reference) {
            None => drop(self.all.insert(reference, part)),
            Some(known) => {
                known.needs.extend(part.needs);
                known.needs.sort();
                known.needs.dedup();
            }
        }
    }

    /// Says which one is what the release is of.
    pub(crate) fn name_product(&mut self, reference: String) {
        self.product = Some(reference);
    }

    /// What the release is of.
    pub(crate) fn product(&self) -> Result<&Part, ReleaseError> {
        let known = self.product.as_ref().and_then(|product| self.all.get(product));
        known
            .ok_or_else(|| ReleaseError::malformed("the list of parts", "the program is not in it"))
    }

    /// All of them but the product, in the order of their references.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Part> {
        self.all
            .iter()
            .filter(|(name, _)| Some(*name) != self.product.as_ref())
            .map(|(_, part)| part)
    }

    /// One of them, to be changed.
    pub(crate) fn get_mut(&mut self, reference: &str) -> Option<&mut Part> {
        self.all.get_mut(reference)
    }
}

/// A licence as SPDX writes it today: old manifests have `/` for `OR`.
pub(crate) fn licence(written: Option<&str>, part: &str) -> Result<String, ReleaseError> {
    let text = written.unwrap_or_default().replace('/', " OR ");
    let text = text.split_whitespace().collect::<Vec<&str>>().join(" ");
    match Expression::parse_mode(&text, ParseMode::STRICT) {
        Ok(_) => Ok(text),
        Err(_) => Err(ReleaseError::Licence { part: part.to_owned(), licence: text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_of_all_ages() {
        for (written, expected) in [
            ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("MIT / Apache-2.0", "MIT OR Apache-2.0"),
            ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ] {
            assert_eq!(licence(Some(written), "x").unwrap(), expected);
        }
        for written in [None, Some(""), Some("Do what you want"), Some("MIT OR")] {
            assert!(
                matches!(licence(written, "x"), Err(ReleaseError::Licence { .. })),
                "{written:?}"
            );
        }
    }

    #[test]
    fn a_scope_is_escaped() {
        let part = Part {
            origin: Origin::Npm,
            name: "@preact/signals".to_owned(),
            version: "2.11.4".to_owned(),
            description: None,
            licence: "MIT".to_owned(),
            checksum: None,
            repository: None,
            authors: Vec::new(),
            folder: None,
            is_application: false,
            needs: Vec::new(),
        };
        assert_eq!(part.reference(), "pkg:npm/%40preact/signals@2.11.4");
    }
}
