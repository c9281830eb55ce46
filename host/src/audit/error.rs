//! Why a command was not carried out.

use std::path::{Path, PathBuf};

use tollgate_ledger::LedgerError;
use tollgate_summary::SummaryError;

/// Why a command was not carried out. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    /// What was typed does not say what is meant.
    #[error("{0}")]
    Arguments(String),
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in a file is not as it should be.
    #[error("{file}, line {line}: {why}")]
    Line {
        /// Which file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong, and what to do.
        why: String,
    },
    /// An invoice cannot be used.
    #[error("{}:\n{faults}", path.display())]
    Invoice {
        /// Which file.
        path: PathBuf,
        /// One line for each thing that is wrong, with its line.
        faults: String,
    },
    /// The ledger cannot be read or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// There is no ledger where one was looked for.
    #[error(
        "there is no ledger in {}; name the gateway's data folder with --data-dir, or a ledger's own folder with --ledger",
        .0.display()
    )]
    NoLedger(PathBuf),
    /// A plugin file is refused.
    #[error("{}: {why}", file.display())]
    Plugin {
        /// The file.
        file: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// There is no sum.
    #[error(transparent)]
    Summary(#[from] SummaryError),
    /// An answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(String),
}

impl AuditError {
    /// 2 if what was typed has to change, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            _ => 1,
        }
    }

    /// What failed with a file.
    pub(super) fn file(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

impl From<serde_json::Error> for AuditError {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.to_string())
    }
}

impl From<csv::Error> for AuditError {
    fn from(error: csv::Error) -> Self {
        Self::Output(error.to_string())
    }
}
