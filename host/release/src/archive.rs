//! The archive: a gzipped tar whose bytes depend on names and contents only.
//!
//! Entries are sorted, belong to nobody, and have the time that is given; gzip's own header has none.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};
use tar::{Builder, Header};

use crate::error::ReleaseError;

/// One file of the archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Below the archive's one folder, with `/`.
    path: String,
    content: Vec<u8>,
    mode: u32,
}

impl Entry {
    /// A file to read.
    pub(crate) fn file(path: impl Into<String>, content: Vec<u8>) -> Self {
        Self { path: path.into(), content, mode: 0o644 }
    }

    /// A file to run.
    pub(crate) fn program(path: impl Into<String>, content: Vec<u8>) -> Self {
        Self { path: path.into(), content, mode: 0o755 }
    }
}

/// The archive's bytes; all lies in a folder of that name. `epoch` is in seconds since 1970.
pub(crate) fn written(
    folder: &str,
    mut entries: Vec<Entry>,
    epoch: u32,
) -> Result<Vec<u8>, ReleaseError> {
    entries.sort();
    let failed = |why: std::io::Error| ReleaseError::malformed("the archive", why);
    let mut tar = Builder::new(Vec::new());
    for entry in &entries {
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::from(epoch));
        header.set_size(entry.content.len().try_into().unwrap_or(u64::MAX));
        let path = format!("{folder}/{}", entry.path);
        tar.append_data(&mut header, path, entry.content.as_slice()).map_err(failed)?;
    }
    let tar = tar.into_inner().map_err(failed)?;
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(&tar).map_err(failed)?;
    gzip.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn some() -> Vec<Entry> {
        vec![
            Entry::program("tollgate", vec![1; 70_000]),
            Entry::file("plugins/b.wasm", vec![2; 10]),
            Entry::file("plugins/a.wasm", vec![3; 10]),
        ]
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter() {
        let mut turned = some();
        turned.reverse();
        let archive = written("t", some(), 1_000).unwrap();
        assert_eq!(archive, written("t", turned, 1_000).unwrap());
        assert_ne!(archive, written("t", some(), 1_001).unwrap());
        assert_ne!(archive, written("u", some(), 1_000).unwrap());
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let archive = written("t", some(), 1_000).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice()));
        let mut found = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.mtime().unwrap()), (0, 1_000));
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            found.push((path, header.mode().unwrap(), content.len()));
        }
        let expected = [
            ("t/plugins/a.wasm", 0o644, 10),
            ("t/plugins/b.wasm", 0o644, 10),
            ("t/tollgate", 0o755, 70_000),
        ];
        assert_eq!(found, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
    }
}
