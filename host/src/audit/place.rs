//! Which ledger is meant.

use std::path::PathBuf;

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
    data_dir: PathBuf,

    /// Folder of a ledger itself, used instead of the data folder's
    #[arg(long, value_name = "FOLDER")]
    ledger: Option<PathBuf>,
}

impl Place {
    /// The ledger's folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.ledger.clone().unwrap_or_else(|| self.data_dir.join("ledger"))
    }
}
