//! One host for each folder of what is kept: two would each write down what they hold back, and the later would undo what
//! the earlier was told.
//!
//! The lock belongs to the open file, so it ends with the process however that ends, and a file that is left behind locks
//! nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Its name in the folder.
const FILE: &str = "lock";
/// How long to wait for one who is about to let go: a gateway that is being restarted, a command that is done.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The folder, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the folder; none if another has it and keeps it.
pub(crate) fn take(folder: &Path) -> io::Result<Option<Lock>> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(folder.join(FILE))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Lock { _file: file })),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= PATIENCE => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap().unwrap();
        assert!(take(folder.path()).unwrap().is_none());
        // Who lets go within the time that another waits is waited for.
        let ends = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3);
            drop(first);
        });
        assert!(take(folder.path()).unwrap().is_some());
        ends.join().unwrap();
        assert!(folder.path().join(FILE).exists());
    }
}
