//! What lies in the plugin folder. Nothing here trusts a name, a size or a link.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::PluginHostError;
use crate::{manifest, signature};

/// Most plugins of a folder.
const ENTRIES: usize = 1024;
/// How often a file that was there a moment ago is looked for again: links are exchanged one after the other.
const TRIES: usize = 3;

/// Two equal stamps mean that a file has not changed in between, as far as the file system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Changes whatever is done to the file, also when a copy keeps its modification time.
    changed: (i64, i64),
    /// A file that took another's place.
    inode: (u64, u64),
    /// Of the detached signature.
    signature: Option<Box<Stamp>>,
}

impl Stamp {
    /// Whether a change right after `at` might have left the stamp as it is, since clocks of file systems are coarse.
    pub fn is_fresh(&self, at: SystemTime) -> bool {
        let fresh =
            |time: SystemTime| at.duration_since(time).map_or(true, |age| age.as_secs() < 2);
        self.modified.is_none_or(fresh) || self.changed_at().is_some_and(fresh)
    }

    fn changed_at(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.changed.0).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

/// Names and stamps of the plugins and of `plugins.toml`.
pub(crate) type Listing = BTreeMap<String, Stamp>;

/// Lists the folder.
pub(crate) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name != manifest::FILE && !is_plugin_name(&name) {
            continue;
        }
        // A link whose target is not there yet counts as absent.
        if let Ok(metadata) = fs::metadata(folder.join(&name)) {
            let signature = fs::metadata(folder.join(name.clone() + signature::SUFFIX));
            let signature = signature.ok().map(|metadata| Box::new(stamp(&metadata, None)));
            listing.insert(name, stamp(&metadata, signature));
        }
        if listing.len() > ENTRIES {
            return Err(io::Error::other(format!("it holds more than {ENTRIES} plugins")));
        }
    }
    Ok(listing)
}

/// What tells folders apart: another one in the place of this has another, though it may get the number of one that is gone.
pub(crate) type Identity = ((u64, u64), Option<SystemTime>);

/// The identity of the folder that has this name now.
pub(crate) fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder).ok().map(|metadata| (inode(&metadata), metadata.created().ok()))
}

/// Whether a file of this name is a plugin, and not a temporary of an editor or of a copy in progress.
pub(crate) fn is_plugin_name(name: &str) -> bool {
    name.len() > ".wasm".len()
        && name.ends_with(".wasm")
        && !name.starts_with('.')
        && !name.starts_with('~')
        && !name.starts_with('#')
        && !name.contains(['/', '\\'])
        && !name.chars().any(char::is_control)
}

/// What a file held, and the SHA-256 of exactly these bytes.
pub(crate) struct Content {
    pub bytes: Vec<u8>,
    pub digest: String,
}

/// Reads a plain file of the folder, or one that a link of the folder leads to within the folder.
pub(crate) fn read(folder: &Path, name: &str, limit: u64) -> Result<Content, PluginHostError> {
    let bytes = read_bytes(folder, name, limit)?;
    Ok(Content { digest: digest_of(&bytes), bytes })
}

/// Reads the detached signature of a plugin, if there is one.
pub(crate) fn signature(folder: &Path, name: &str) -> Result<Option<String>, PluginHostError> {
    match read_bytes(folder, &(name.to_owned() + signature::SUFFIX), signature::LIMIT) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(PluginHostError::Read(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_bytes(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, PluginHostError> {
    let mut tries = TRIES;
    loop {
        tries = tries.saturating_sub(1);
        match read_once(folder, name, limit) {
            // What the links led to was taken away in between; they lead elsewhere by now.
            Err(PluginHostError::Read(error))
                if tries > 0 && error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

fn read_once(folder: &Path, name: &str, limit: u64) -> Result<Vec<u8>, PluginHostError> {
    let inside = folder.canonicalize().map_err(PluginHostError::Read)?;
    let path = folder.join(name).canonicalize().map_err(PluginHostError::Read)?;
    if !path.starts_with(&inside) {
        return Err(PluginHostError::NotAFile("a link that leads out of the plugin folder"));
    }
    // Before it is opened, since opening a device may do something.
    check_plain(&fs::metadata(&path).map_err(PluginHostError::Read)?)?;
    let file = open(&path).map_err(PluginHostError::Read)?;
    let metadata = file.metadata().map_err(PluginHostError::Read)?;
    check_plain(&metadata)?;
    if metadata.len() > limit {
        return Err(PluginHostError::TooLarge { bytes: metadata.len(), limit });
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(PluginHostError::Read)?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > limit {
        return Err(PluginHostError::TooLarge { bytes: length, limit });
    }
    Ok(bytes)
}

/// Opens what lies there by now: not through a link, and without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    const_hex::encode(Sha256::digest(bytes))
}

fn check_plain(metadata: &fs::Metadata) -> Result<(), PluginHostError> {
    if metadata.is_dir() {
        Err(PluginHostError::NotAFile("a folder"))
    } else if metadata.is_file() {
        Ok(())
    } else {
        Err(PluginHostError::NotAFile("a pipe, a socket or a device"))
    }
}

fn stamp(metadata: &fs::Metadata, signature: Option<Box<Stamp>>) -> Stamp {
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        (metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = (0, 0);
    Stamp {
        bytes: metadata.len(),
        modified: metadata.modified().ok(),
        changed,
        inode: inode(metadata),
        signature,
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn inode(_metadata: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_finished_wasm_files_are_plugins() {
        for good in ["a.wasm", "cost-per-token.v2.wasm", "é.wasm"] {
            assert!(is_plugin_name(good), "{good}");
        }
        let bad = [
            ".a.wasm",
            ".wasm",
            "a.wasm~",
            "a.wasm.tmp",
            "a.wasm.part",
            ".a.wasm.swp",
            "#a.wasm",
            "a.cwasm",
            "a.WASM.",
            "..data",
            "x/a.wasm",
            "plugins.toml",
            "a\n.wasm",
        ];
        for bad in bad {
            assert!(!is_plugin_name(bad), "{bad}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_are_followed_inside_the_folder_only() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        fs::create_dir(folder.path().join("..data")).unwrap();
        fs::write(folder.path().join("..data/a.wasm"), "a").unwrap();
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        };
        link(Path::new("..data/a.wasm"), "a.wasm");
        link(&outside.path().join("secret"), "b.wasm");
        link(Path::new("nowhere"), "c.wasm");
        fs::create_dir(folder.path().join("d.wasm")).unwrap();
        let read =
            |name: &str| read(folder.path(), name, 10).map(|c| c.bytes).map_err(|e| e.kind());
        assert_eq!(read("a.wasm"), Ok(b"a".to_vec()));
        assert_eq!(read("b.wasm"), Err("file"));
        assert_eq!(read("c.wasm"), Err("file"));
        assert_eq!(read("d.wasm"), Err("file"));
        let listed: Vec<_> = list(folder.path()).unwrap().into_keys().collect();
        assert_eq!(listed, ["a.wasm", "b.wasm", "d.wasm"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_is_refused_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("a.wasm");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let error = read(folder.path(), "a.wasm", 10).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("a pipe"), "{error}");
        // Also if it takes a file's place after the first look.
        assert!(!open(&pipe).unwrap().metadata().unwrap().is_file());
    }

    #[test]
    fn a_copy_that_keeps_size_and_time_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let put = |content: &str| {
            fs::write(&path, content).unwrap();
            let file = File::options().append(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
            list(folder.path()).unwrap()
        };
        let before = put("one");
        assert!(before["a.wasm"].is_fresh(SystemTime::now()));
        std::thread::sleep(Duration::from_millis(30));
        assert_ne!(put("two"), before);
        let before = put("two");
        fs::write(folder.path().join("a.wasm.minisig"), "s").unwrap();
        assert_ne!(list(folder.path()).unwrap(), before, "a signature arrived");
        assert_eq!(signature(folder.path(), "a.wasm").unwrap().as_deref(), Some("s"));
        assert_eq!(signature(folder.path(), "b.wasm").unwrap(), None);
    }

    #[test]
    fn a_folder_of_thousands_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..=ENTRIES {
            fs::write(folder.path().join(format!("{n}.wasm")), "").unwrap();
        }
        assert!(list(folder.path()).unwrap_err().to_string().contains("1024"));
    }

    #[test]
    fn a_large_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.wasm"), [0; 11]).unwrap();
        assert_eq!(
            read(folder.path(), "a.wasm", 10).map_err(|e| e.kind()).err(),
            Some("too_large")
        );
    }
}
