//! Files that are there whole or not at all, and folders of them that do not grow without bound.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A temporary file that is older was left behind by a process that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How names of temporary files begin.
const TEMPORARY: &str = ".new-";

/// Puts a file into place: after a power cut too it holds the old content or all of the new one.
pub(crate) fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The name, too.
    File::open(folder)?.sync_all()
}

/// Keeps a content in a file that is named after it: what is there already is used once more, what is new may push out what was
/// used longest ago, but nothing of which `keep` says that it stays.
pub(crate) fn keep(
    path: &Path,
    content: &[u8],
    most: (usize, u64),
    keep: impl Fn(&str) -> bool,
) -> io::Result<()> {
    if path.exists() {
        touch(path);
        return Ok(());
    }
    write(path, &[content])?;
    prune(path.parent().unwrap_or(Path::new(".")), most.0, most.1, keep)
}

/// Reads a plain file that belongs to this user and nobody else may write; none if there is none. `path`'s last part is
/// not followed if it is a link.
pub(crate) fn read_own(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
        options.custom_flags(flags.cast_signed());
    }
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || !is_ours_alone(&metadata) {
        return Err(io::Error::other("it is not a plain file that only this user can write"));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        Ok(Some(bytes))
    } else {
        Err(io::Error::other(format!("it has more than {limit} bytes")))
    }
}

/// Whether it belongs to this user, and no other can write it.
#[cfg(unix)]
pub(crate) fn is_ours_alone(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

#[cfg(not(unix))]
pub(crate) fn is_ours_alone(_metadata: &fs::Metadata) -> bool {
    true
}

/// Marks a file as used now, for [`prune`].
pub(crate) fn touch(path: &Path) {
    if let Ok(file) = File::open(path) {
        // Then it counts as older than it is, and is made again some day.
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Removes what was used longest ago, until at most so many files with so many bytes are left. What `keep` says stays.
pub(crate) fn prune(
    folder: &Path,
    files: usize,
    bytes: u64,
    keep: impl Fn(&str) -> bool,
) -> io::Result<()> {
    let now = SystemTime::now();
    let mut found: Vec<(SystemTime, u64, PathBuf, bool)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(used) = metadata.modified() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(TEMPORARY) {
            found.push((used, metadata.len(), entry.path(), keep(&name)));
        } else if now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
    // Newest first; what must stay counts first.
    found.sort_by(|a, b| b.3.cmp(&a.3).then(b.0.cmp(&a.0)));
    let (mut count, mut size) = (0_usize, 0_u64);
    for (_, length, path, stays) in found {
        count = count.saturating_add(1);
        size = size.saturating_add(length);
        if !stays && (count > files || size > bytes) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(read_own(&path, 10).unwrap().is_none());
        write(&path, &[b"one", b" two"]).unwrap();
        write(&path, &[b"three"]).unwrap();
        assert_eq!(read_own(&path, 10).unwrap().unwrap(), b"three");
        assert!(read_own(&path, 4).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_can_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, &[b"x"]).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read_own(&link, 10).is_err());
        for mode in [0o620, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(read_own(&path, 10).is_err(), "{mode:o}");
        }
    }

    #[test]
    fn pruning_takes_what_was_used_longest_ago() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in ["new", "old", "kept"].iter().enumerate() {
            let path = folder.path().join(name);
            write(&path, &[b"0123456789"]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(60 * (1 + age as u64));
            File::options().append(true).open(path).unwrap().set_modified(used).unwrap();
        }
        let left = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let keep = |name: &str| name == "kept";
        prune(folder.path(), 3, 30, keep).unwrap();
        assert_eq!(left().len(), 3);
        touch(&folder.path().join("old"));
        prune(folder.path(), 3, 25, keep).unwrap();
        assert_eq!(left(), ["kept", "old"]);
        prune(folder.path(), 0, 0, keep).unwrap();
        assert_eq!(left(), ["kept"]);
    }
}
