//! What lies in the plugin folder. Nothing here trusts a name, a size or a link.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::error::PluginHostError;
use crate::manifest;

/// Two equal stamps mean that a file has not changed in between, as far as the file system tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// A file that took another's place.
    inode: u64,
}

impl Stamp {
    /// Whether a change right after `at` might have left the stamp as it is, since clocks of file systems are coarse.
    pub fn is_fresh(&self, at: SystemTime) -> bool {
        self.modified
            .and_then(|modified| at.duration_since(modified).ok())
            .is_none_or(|age| age.as_secs() < 2)
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
            listing.insert(name, stamp(&metadata));
        }
    }
    Ok(listing)
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
    let inside = folder.canonicalize().map_err(PluginHostError::Read)?;
    let path = folder.join(name).canonicalize().map_err(PluginHostError::Read)?;
    if !path.starts_with(&inside) {
        return Err(PluginHostError::NotAFile("a link that leads out of the plugin folder"));
    }
    // Before it is opened: opening a pipe would wait.
    check_plain(&fs::metadata(&path).map_err(PluginHostError::Read)?)?;
    let file = File::open(&path).map_err(PluginHostError::Read)?;
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
    Ok(Content { digest: digest(&bytes), bytes })
}

/// SHA-256 in hex digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut digest = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
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

fn stamp(metadata: &fs::Metadata) -> Stamp {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), inode }
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
    fn a_large_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.wasm"), [0; 11]).unwrap();
        assert_eq!(
            read(folder.path(), "a.wasm", 10).map_err(|e| e.kind()).err(),
            Some("too_large")
        );
    }
}
