//! Why something could not be put on record or read.

use std::path::PathBuf;

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
            Self::InUse { .. } => LedgerErrorKind::Configuration,
            Self::Unavailable { .. } | Self::Closed => LedgerErrorKind::Unavailable,
            Self::File { .. } => LedgerErrorKind::Storage,
        }
    }
}
