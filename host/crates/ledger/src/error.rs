//! Why something could not be put on record or read.

use std::path::{Path, PathBuf};

/// Why something could not be put on record or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has the folder.
    #[error("the ledger in {} is in use by another process; give each gateway a data folder of its own", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The ledger takes nothing at the moment.
    #[error("{reason}")]
    Unavailable {
        /// Why, and what to do.
        reason: String,
    },
    /// It was closed.
    #[error("the ledger is closed")]
    Closed,
    /// A newer program has written it.
    #[error(
        "{}: a newer program has written this, in version {found} of its form, and this one knows version {known}. \
        Nothing was changed. Use the newer program, or the copy of the data folder from before the upgrade",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The version of its form.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
    /// A file cannot be read or written.
    #[error("{}: {message}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
}

/// Classes of [`LedgerError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerErrorKind {
    /// The operator has to change something.
    Configuration,
    /// It may work later.
    Unavailable,
    /// A file is damaged or cannot be reached.
    Storage,
}

impl LedgerError {
    /// Which class it belongs to.
    #[must_use]
    pub fn kind(&self) -> LedgerErrorKind {
        match self {
            Self::InUse { .. } | Self::Newer { .. } => LedgerErrorKind::Configuration,
            Self::Unavailable { .. } | Self::Closed => LedgerErrorKind::Unavailable,
            Self::File { .. } => LedgerErrorKind::Storage,
        }
    }

    /// What SQLite said about a file, and what to do about it.
    pub(crate) fn sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => "free some space on its disk",
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                "check its disk and its permissions"
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                "the file is damaged: `tollgate audit verify` says where; move it away or restore it"
            }
            _ => "this may be a bug",
        };
        Self::File { path: path.to_owned(), message: format!("{error}; {advice}") }
    }

    /// What the system said about a file.
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), message: error.to_string() }
    }

    /// A file says something that it cannot say.
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        let message = format!("{}; `tollgate audit verify` says more", what.into());
        Self::File { path: path.to_owned(), message }
    }
}
