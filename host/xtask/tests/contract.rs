//! The contract changes on purpose or not at all: plugins that were compiled against a folder of
//! `wit/` must find it as it was. The policy is in `wit/README.md`.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Each folder and the SHA-256 of its one file. A new version is a new line; a line of a released
/// version never changes.
const VERSIONS: &[(&str, &str)] =
    &[("since-v0.1.0", "8bf55783076762ab91971b43a596b275c148efd07063362102f839056749151c")];

#[test]
fn every_version_is_as_it_was() {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut found: Vec<(String, String)> = fs::read_dir(&wit)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|folder| {
            let text = fs::read(folder.join("plugin.wit")).unwrap();
            let digest = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            (folder.file_name().unwrap().to_string_lossy().into_owned(), digest)
        })
        .collect();
    found.sort();
    let expected: Vec<(String, String)> =
        VERSIONS.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect();
    assert_eq!(found, expected, "see the policy of change in wit/README.md");
}
