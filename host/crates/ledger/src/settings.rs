//! How a ledger is kept.

use std::path::PathBuf;
use std::time::Duration;

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the commit is on disk before the answer ends.
    #[default]
    Power,
    /// `kill -9`, but not a power cut: no fsync on the way.
    Process,
}

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// Folder of its files, made if it is missing. One process at a time writes to it.
    pub folder: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// Size at which a file is closed and the next begun.
    pub partition_bytes: u64,
    /// Files whose last entry is older are deleted once every exporter has passed them.
    pub retain_for: Option<Duration>,
    /// The oldest files are deleted, once every exporter has passed them, while all are larger
    /// together.
    pub retain_bytes: Option<u64>,
    /// Requests are refused while the disk has less room than this.
    pub min_free_bytes: u64,
    /// Requests are refused while the ledger is larger than this and nothing can be deleted.
    pub budget_bytes: Option<u64>,
}

impl LedgerSettings {
    /// The defaults, in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            durability: Durability::default(),
            partition_bytes: 256 << 20,
            retain_for: None,
            retain_bytes: None,
            min_free_bytes: 64 << 20,
            budget_bytes: None,
        }
    }
}
