//! Where the files of the repository are that a benchmark needs: cargo runs it in the folder of its package.

use std::path::{Path, PathBuf};

/// A file named from the top of the repository, which has to be there.
pub fn from_top(file: impl AsRef<Path>) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = top.join(file);
    file.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The folder of the plugins that were built, or `TOLLGATE_COMPONENTS`.
pub fn components() -> PathBuf {
    std::env::var_os("TOLLGATE_COMPONENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/target/wasm32-wasip2/release"),
        PathBuf::from,
    )
}
