//! The ledger's folder: its lock and its files by their names.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::LedgerError;

/// The folder, held by this process until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Makes the folder if it is missing and takes it for this process.
pub(crate) fn lock(folder: &Path) -> Result<Lock, LedgerError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|error| LedgerError::io(folder, &error))?;
    let path = folder.join("lock");
    let file = private().open(&path).map_err(|error| LedgerError::io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(LedgerError::io(&path, &error)),
    }
}

/// Opens a file for its owner alone, made if it is missing: who asked for what is nobody else's business. One that is
/// there keeps its mode, which its owner may have widened.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Makes an empty file for SQLite, which by itself would make one that everybody may read, and gives what it keeps
/// beside a file the mode of that.
pub(crate) fn make(path: &Path) -> Result<(), LedgerError> {
    private().open(path).map(drop).map_err(|error| LedgerError::io(path, &error))
}

/// The file of partition `ordinal`.
pub(crate) fn partition(folder: &Path, ordinal: u64) -> PathBuf {
    folder.join(format!("ledger-{ordinal:08}.sqlite"))
}

/// The ordinals of all partitions that are there, oldest first.
pub(crate) fn partitions(folder: &Path) -> Result<Vec<u64>, LedgerError> {
    let read = |error: &std::io::Error| LedgerError::io(folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| read(&error))? {
        let name = entry.map_err(|error| read(&error))?.file_name();
        let ordinal = name.to_str().and_then(|name| {
            name.strip_prefix("ledger-")?.strip_suffix(".sqlite")?.parse::<u64>().ok()
        });
        found.extend(ordinal);
    }
    found.sort_unstable();
    Ok(found)
}

/// Deletes a partition with what SQLite keeps beside it.
pub(crate) fn delete(folder: &Path, ordinal: u64) -> Result<(), LedgerError> {
    let path = partition(folder, ordinal);
    // The file itself last: as long as it is there the partition is.
    for suffix in ["-wal", "-shm", ""] {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LedgerError::io(Path::new(&name), &error));
            }
            _ => {}
        }
    }
    sync(folder)
}

/// Makes sure that files made or deleted in the folder stay so.
pub(crate) fn sync(folder: &Path) -> Result<(), LedgerError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| LedgerError::io(folder, &error))
}

/// Size of the journal beside a partition.
pub(crate) fn wal_bytes(path: &Path) -> u64 {
    let mut name = path.to_owned().into_os_string();
    name.push("-wal");
    fs::metadata(name).map(|metadata| metadata.len()).unwrap_or(0)
}

/// Size of everything in the folder.
pub(crate) fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Room in bytes that is left for us on the disk of a folder, which has to be there.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
