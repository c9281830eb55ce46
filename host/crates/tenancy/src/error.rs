//! Why keys could not be read, written or used.

use std::path::{Path, PathBuf};

/// Why something about tenants could not be done. Its text is one line for people and holds no
/// secret.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// What a file or a variable says is not what it may say.
    #[error("{place}: {problem}")]
    Configuration {
        /// The file or the variable.
        place: String,
        /// Which key, where it stands, and why it is wrong.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot {doing} it: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process edits the file and does not end.
    #[error("{}: another process is editing it; try again", path.display())]
    Busy {
        /// Which file.
        path: PathBuf,
    },
    /// No such key.
    #[error("{}: it has no key with the id {id:?}; `tollgate key list` shows all", path.display())]
    NoSuchKey {
        /// Which file.
        path: PathBuf,
        /// The id that was asked for.
        id: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// Redis is used from a runtime, and there is none.
    #[error("Redis needs a runtime: {0}")]
    NoRuntime(tokio::runtime::TryCurrentError),
    /// The address of Redis is none.
    #[error("the address of Redis: {0}")]
    Redis(redis::RedisError),
    /// Redis does not answer.
    #[error("Redis does not answer: {problem}")]
    NoAnswer {
        /// What came instead.
        problem: String,
    },
}

/// Classes of [`TenancyError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenancyErrorKind {
    /// The operator has to change something.
    Configuration,
    /// It may work later.
    Unavailable,
    /// A file cannot be reached.
    Storage,
}

impl TenancyError {
    /// Which class it belongs to.
    #[must_use]
    pub fn kind(&self) -> TenancyErrorKind {
        match self {
            Self::Configuration { .. } | Self::NoSuchKey { .. } | Self::Redis(_) => {
                TenancyErrorKind::Configuration
            }
            Self::Busy { .. } | Self::Random(_) | Self::NoRuntime(_) | Self::NoAnswer { .. } => {
                TenancyErrorKind::Unavailable
            }
            Self::File { .. } => TenancyErrorKind::Storage,
        }
    }

    pub(crate) fn configuration(place: &str, problem: impl Into<String>) -> Self {
        Self::Configuration { place: place.to_owned(), problem: problem.into() }
    }

    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::File { path: path.to_owned(), doing, source }
    }
}
