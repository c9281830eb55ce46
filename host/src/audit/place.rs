//! Which ledger is meant.

use std::path::{Path, PathBuf};

use tollgate_ledger::LedgerReader;

use super::error::AuditError;

/// Which ledger is meant.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Place {
    /// The gateway's data folder; it may be serving meanwhile
    #[arg(
        long,
        env = "TOLLGATE_DATA_DIR",
        value_name = "DIR",
        default_value = "tollgate-data",
        hide_env_values = true
    )]
    pub(super) data_dir: PathBuf,

    /// Folder of a ledger itself, such as one that `tollgate reprice` made; used instead of the data folder's
    #[arg(long, value_name = "FOLDER")]
    ledger: Option<PathBuf>,
}

impl Place {
    /// The ledger's folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.ledger.clone().unwrap_or_else(|| self.data_dir.join("ledger"))
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> Result<LedgerReader, AuditError> {
        let folder = self.folder();
        if !folder.is_dir() {
            return Err(AuditError::NoLedger(folder));
        }
        Ok(LedgerReader::open(&folder)?)
    }
}

/// Whether two folders are one, or one lies in the other. What does not exist yet is nowhere.
pub(super) fn overlap(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| {
        path.ancestors().find_map(|ancestor| {
            let ancestor = if ancestor == Path::new("") { Path::new(".") } else { ancestor };
            let found = ancestor.canonicalize().ok()?;
            Some(found.join(path.strip_prefix(ancestor).unwrap_or(path)))
        })
    };
    match (real(a), real(b)) {
        (Some(a), Some(b)) => a.starts_with(&b) || b.starts_with(&a),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger");
        std::fs::create_dir(&ledger).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&ledger, &link).unwrap();
        for (other, expected) in [
            (ledger.clone(), true),
            (ledger.join("new"), true),
            (link.join("new/er"), true),
            (folder.path().to_owned(), true),
            (folder.path().join("ledger-2"), false),
            (PathBuf::from("surely-elsewhere"), false),
        ] {
            assert_eq!(overlap(&ledger, &other), expected, "{}", other.display());
            assert_eq!(overlap(&other, &ledger), expected, "{}", other.display());
        }
    }
}
