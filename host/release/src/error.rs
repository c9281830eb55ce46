//! Why nothing was packed.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// What stands between a build and its release.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// A file that has to be there cannot be read.
    #[error("cannot read {}: {source}; `cargo xtask release` builds everything that is packed", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output folder takes nothing.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that was asked something cannot be started or failed.
    #[error("`{command}` failed: {said}")]
    Command {
        /// As one would type it.
        command: String,
        /// The last that it said.
        said: String,
    },
    /// A file says something that is not understood.
    #[error("{what} is not as expected: {why}")]
    Malformed {
        /// Which file or answer.
        what: String,
        /// What is wrong.
        why: Box<dyn Error + Send + Sync>,
    },
    /// A part whose licence nobody can tell.
    #[error(
        "{part} has no licence that is an SPDX expression ({licence:?}): ask its authors, or do without it"
    )]
    Licence {
        /// Name and version.
        part: String,
        /// What its manifest says.
        licence: String,
    },
}

impl ReleaseError {
    /// Something is not as expected.
    pub(crate) fn malformed(
        what: impl Into<String>,
        why: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Malformed { what: what.into(), why: why.into() }
    }
}
