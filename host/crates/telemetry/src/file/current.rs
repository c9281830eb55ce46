//! The file that is written now.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use crate::error::TelemetryError;
use crate::rotation::{Shelf, step};
use crate::settings::Rotation;

/// How much is read at a time when looking for the last whole line.
const BLOCK: u64 = 64 * 1024;

/// How often a file is opened that is moved away in the same moment.
const ATTEMPTS: u32 = 3;

/// The file that is written now, and when it is put aside.
#[derive(Debug)]
pub(crate) struct Current {
    path: PathBuf,
    rotation: Rotation,
    private: bool,
    /// None after it was put aside and before the next could be made.
    open: Option<Open>,
    /// Tells who looks after the files that were put aside that there is one more.
    wake: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    since: SystemTime,
    /// Where whole lines end, if a failed write left more than that.
    torn_at: Option<u64>,
}

impl Current {
    /// Opens or creates the file and its folders, and cuts off a torn last line.
    pub(crate) fn open(
        path: PathBuf,
        rotation: Rotation,
        private: bool,
    ) -> Result<Self, TelemetryError> {
        let open = Some(Open::new(&path, private)?);
        Ok(Self { path, rotation, private, open, wake: None })
    }

    /// Whom to tell when a file was put aside.
    pub(crate) fn wakes(&mut self, wake: SyncSender<()>) {
        self.wake = Some(wake);
    }

    /// Appends whole lines: all of them or, after an error, none.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.is_at(&self.path) => open,
            // It was moved or deleted by somebody: what is written there now nobody would find.
            _ => self.reopen()?,
        };
        open.mend()?;
        if self.is_due(&open, lines.len())? {
            drop(open);
            self.put_aside()?;
            open = self.reopen()?;
        }
        let written = open.append(lines);
        self.open = Some(open);
        written
    }

    fn reopen(&self) -> io::Result<Open> {
        step()?;
        Open::new(&self.path, self.private).map_err(|error| match error {
            TelemetryError::File { source, .. } => source,
            TelemetryError::FileInUse { .. } => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process writes to it")
            }
            other => io::Error::other(other),
        })
    }

    fn is_due(&self, open: &Open, more: usize) -> io::Result<bool> {
        let length = open.file.metadata()?.len();
        let after = length.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        let too_large = self.rotation.max_bytes.is_some_and(|most| after > most);
        // A clock that was set back makes the file young, not old.
        let age = SystemTime::now().duration_since(open.since).unwrap_or_default();
        let too_old = self.rotation.max_age.is_some_and(|most| age >= most);
        Ok(length > 0 && (too_large || too_old))
    }

    fn put_aside(&self) -> io::Result<()> {
        let next = Shelf::of(&self.path).next(SystemTime::now())?;
        step()?;
        fs::rename(&self.path, next)?;
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
        Ok(())
    }
}

impl Open {
    fn new(path: &Path, private: bool) -> Result<Self, TelemetryError> {
        let failed = |source| TelemetryError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(if private { 0o600 } else { 0o666 });
        for _ in 0..ATTEMPTS {
            let mut file = options.open(path).map_err(failed)?;
            lock(&file, path)?;
            // Not until it is locked is it certain that nobody puts it aside.
            if !is_at(&file, path) {
                continue;
            }
            let torn = cut_torn_line(&mut file).map_err(failed)?;
            if torn > 0 {
                tracing::warn!(path = %path.display(), bytes = torn, "cut off a torn last line");
            }
            let about = file.metadata().map_err(failed)?;
            let since = about.created().or_else(|_| about.modified());
            let since = since.unwrap_or_else(|_| SystemTime::now());
            return Ok(Self { file, since, torn_at: None });
        }
        Err(TelemetryError::FileInUse { path: path.to_owned() })
    }

    fn is_at(&self, path: &Path) -> bool {
        is_at(&self.file, path)
    }

    /// Cuts off what a failed write left behind.
    fn mend(&mut self) -> io::Result<()> {
        if let Some(length) = self.torn_at {
            self.file.set_len(length)?;
            self.torn_at = None;
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        self.file.write_all(lines).inspect_err(|_| {
            self.torn_at = self.file.set_len(length).is_err().then_some(length);
        })
    }
}

fn lock(file: &File, path: &Path) -> Result<(), TelemetryError> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(TelemetryError::FileInUse { path: path.to_owned() });
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(path = %path.display(), %error, "this file system has no locks; let no other process write to the span file");
        }
    }
    Ok(())
}

/// Whether `file` is the one that `path` leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |about: fs::Metadata| (about.dev(), about.ino());
    let there = fs::metadata(path).map(place).ok();
    there.is_some() && there == file.metadata().map(place).ok()
}

/// Cuts off what follows the last newline; how many bytes that were.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::take(&mut *file, end - start).read_to_end(&mut block)?;
        match block.iter().rev().position(|byte| *byte == b'\n') {
            Some(after) => {
                end -= u64::try_from(after).unwrap_or(0);
                break;
            }
            None => end = start,
        }
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(length - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn open(path: &Path) -> Result<Current, TelemetryError> {
        Current::open(path.to_owned(), Rotation::default(), false)
    }

    #[test]
    fn a_torn_last_line_is_cut_off() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a/b/spans.ndjson");
        let long = "x".repeat(200_000);
        let cases = [
            (String::new(), ""),
            ("{}\n".into(), "{}\n"),
            ("{}\n{\"torn".into(), "{}\n"),
            (format!("{{}}\n{long}"), "{}\n"),
            ("torn".into(), ""),
            (long.clone(), ""),
        ];
        for (before, after) in cases {
            drop(open(&path)?);
            fs::write(&path, &before)?;
            let mut file = open(&path)?;
            assert_eq!(fs::read_to_string(&path)?, after);
            file.append(b"{\"new\":1}\n")?;
            assert_eq!(fs::read_to_string(&path)?, format!("{after}{{\"new\":1}}\n"));
        }
        Ok(())
    }

    #[test]
    fn two_writers_are_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("spans.ndjson");
        let first = open(&path)?;
        assert!(matches!(open(&path), Err(TelemetryError::FileInUse { .. })));
        drop(first);
        assert!(open(&path).is_ok());
        Ok(())
    }

    #[test]
    fn a_failed_write_leaves_no_torn_line() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("spans.ndjson");
        fs::write(&path, "{}\n")?;
        let mut file = open(&path)?;
        file.append(b"{}\n")?;
        // As if a write had failed half-way and could not be taken back at once.
        let torn = file.open.as_mut().ok_or("open")?;
        torn.file.write_all(b"{\"half")?;
        torn.torn_at = Some(6);
        file.append(b"{\"whole\":1}\n")?;
        assert_eq!(fs::read_to_string(&path)?, "{}\n{}\n{\"whole\":1}\n");
        Ok(())
    }

    #[test]
    fn a_file_that_was_moved_away_or_deleted_is_made_anew() -> Outcome {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("spans.ndjson");
        let mut file = open(&path)?;
        file.append(b"1\n")?;
        fs::rename(&path, folder.path().join("moved"))?;
        file.append(b"2\n")?;
        assert_eq!(fs::read_to_string(folder.path().join("moved"))?, "1\n");
        assert_eq!(fs::read_to_string(&path)?, "2\n");
        fs::remove_file(&path)?;
        file.append(b"3\n")?;
        assert_eq!(fs::read_to_string(&path)?, "3\n");
        Ok(())
    }
}
