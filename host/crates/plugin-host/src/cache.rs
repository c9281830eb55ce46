//! Machine code that was compiled before, one file for each component and engine.
//!
//! A file holds a digest over its own name and the machine code, then the machine code: one that is damaged, cut off or
//! under another's name is found out and removed. That guards against accidents, not against somebody who can write here;
//! what does is that the folder and its files must belong to this user alone (`state`, `keeping`).

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::keeping;

/// Most machine code kept.
const FILES: usize = 128;
const BYTES: u64 = 2 << 30;
/// Most bytes of one file.
const ENTRY: u64 = 300 << 20;
/// Length of a SHA-256.
const DIGEST: usize = 32;

/// The folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// What is kept under this key, if it is what was put there.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut entry = match keeping::read_own(&path, ENTRY) {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "compiled code is not read");
                return None;
            }
        };
        let (digest, code) = entry.split_at_checked(DIGEST).unwrap_or_default();
        if digest != seal(key, code) {
            tracing::warn!(file = %path.display(), "compiled code is damaged; it is compiled again");
            let _ = fs::remove_file(&path);
            return None;
        }
        keeping::touch(&path);
        Some(entry.split_off(DIGEST))
    }

    /// Keeps this under its key. A cache that cannot be written costs time at the next start, and is no error.
    pub fn put(&self, key: &str, code: &[u8]) {
        let path = self.path(key);
        let kept = keeping::write(&path, &[&seal(key, code), code])
            .and_then(|()| keeping::prune(&self.folder, FILES, BYTES, |_| false));
        if let Err(error) = kept {
            tracing::warn!(file = %path.display(), %error, "compiled code is not kept");
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(Path::new(key).with_extension("bin"))
    }
}

fn seal(key: &str, code: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    // Keys have no NUL.
    hash.update(key.as_bytes());
    hash.update([0]);
    hash.update(code);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_put_there_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        let path = folder.path().join("a-1.bin");
        assert_eq!(cache.get("a-1"), None);
        cache.put("a-1", b"machine code");
        assert_eq!(cache.get("a-1").as_deref(), Some(&b"machine code"[..]));

        fs::copy(&path, folder.path().join("b-1.bin")).unwrap();
        assert_eq!(cache.get("b-1"), None, "another's code");

        let whole = fs::read(&path).unwrap();
        for position in [0, DIGEST, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[position] ^= 1;
            keeping::write(&path, &[&damaged]).unwrap();
            assert_eq!(cache.get("a-1"), None, "a changed byte at {position}");
            assert!(!path.exists());
        }
        for length in [0, 5, DIGEST, whole.len() - 1] {
            keeping::write(&path, &[&whole[..length]]).unwrap();
            assert_eq!(cache.get("a-1"), None, "cut off after {length}");
        }
        cache.put("a-1", b"new");
        assert_eq!(cache.get("a-1").as_deref(), Some(&b"new"[..]));
    }
}
