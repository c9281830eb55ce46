//! What the host keeps over a restart, in a folder of its own:
//!
//! ```text
//! holds.json                     what the operator and the breaker decided, and what served last
//! plugins.toml                   the last good one of the plugin folder; empty where there was none
//! originals/SHA256.wasm          contents that served, and SHA256.wasm.minisig where they were signed
//! configurations/SHA256.json     configurations of cost models that served
//! compiled/SHA256-ENGINE.bin     their machine code
//! lock                           held by the one host that uses the folder
//! ```
//!
//! Machine code is run as it is found, so it is neither read nor written where another user could have put it. The rest is
//! checked when it is read: an original by the digest that is its name, and by the whole gate after that. A price on record
//! names the digests of its plugin and of its configuration, so that it can be computed again from what lies here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::folder::digest_of;
use crate::lock::{self, Lock};
use crate::{keeping, manifest, signature};

const HOLDS: &str = "holds.json";
const ORIGINALS: &str = "originals";
/// Most originals kept; what may be asked for again is kept in any case.
const MOST_ORIGINALS: usize = 64;
const MOST_ORIGINAL_BYTES: u64 = 1 << 30;
const CONFIGURATIONS: &str = "configurations";
/// Most configurations kept.
const MOST_CONFIGURATIONS: usize = 4096;
const MOST_CONFIGURATION_BYTES: u64 = 256 << 20;
/// The same without a folder.
const MOST_IN_MEMORY: usize = 8;
/// Most bytes of one.
const ORIGINAL_BYTES: u64 = 256 << 20;
/// Most bytes of `holds.json`.
const HOLDS_BYTES: u64 = 4 << 20;

/// What is held back or held on to, by the name of the file in the plugin folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holds {
    #[serde(default)]
    pub files: BTreeMap<String, Hold>,
}

/// What is held of one file. Digests are SHA-256 in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hold {
    /// The operator switched it off.
    pub disabled: bool,
    /// Contents that were rolled back from.
    pub rejected: BTreeSet<String>,
    /// The plugin that the file serves, by its name for itself. None: another file has that name.
    pub plugin: Option<String>,
    /// The content that served last.
    pub serving: Option<String>,
    /// The good content that served before it.
    pub previous: Option<String>,
}

impl Holds {
    /// Whether a content may be asked for again.
    fn need(&self, digest: &str) -> bool {
        let is = |held: &Option<String>| held.as_deref() == Some(digest);
        self.files.values().any(|hold| is(&hold.serving) || is(&hold.previous))
    }
}

/// A content that was kept, and the detached signature it had.
pub(crate) type Original = (Vec<u8>, Option<String>);

/// What is kept: in a folder, or in memory if there is none.
#[derive(Debug, Default)]
pub(crate) struct State {
    folder: Option<PathBuf>,
    /// The folder is another host's: what is to be written stays in memory.
    reads_only: bool,
    /// As long as anything may be written there.
    _lock: Option<Lock>,
    /// None: there is no folder, or another user could write to it.
    compiled: Option<Cache>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    holds: Holds,
    /// Without a folder.
    originals: HashMap<String, Original>,
}

impl State {
    /// Keeps what it is given as long as this process lasts.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// What a folder holds that another host may be using. Nothing of it is changed.
    pub fn peek(folder: &Path) -> Self {
        let holds = keeping::read_own(&folder.join(HOLDS), HOLDS_BYTES).ok().flatten();
        let holds = holds.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let kept = Mutex::new(Kept { holds, ..Kept::default() });
        Self { folder: Some(folder.to_owned()), reads_only: true, kept, ..Self::default() }
    }

    /// Keeps it in a folder, which is made if there is none. None: another host has the folder.
    pub fn open(folder: &Path) -> io::Result<Option<Self>> {
        make(folder)?;
        // Before anything is read, for until then it may change.
        let Some(lock) = lock::take(folder)? else { return Ok(None) };
        let holds = read_holds(&folder.join(HOLDS))?;
        make(&folder.join(ORIGINALS))?;
        make(&folder.join(CONFIGURATIONS))?;
        let compiled = folder.join("compiled");
        make(&compiled)?;
        let open_to_others = [folder, &compiled].into_iter().find(|folder| !is_private(folder));
        if let Some(open) = open_to_others {
            tracing::warn!(
                folder = %open.display(),
                "compiled code is not kept: the folder must belong to this user alone, for whoever can write there could \
                 run any code; empty it and `chmod 700` it"
            );
        }
        let compiled = open_to_others.is_none().then(|| Cache::new(compiled));
        let kept = Mutex::new(Kept { holds, ..Kept::default() });
        let folder = Some(folder.to_owned());
        Ok(Some(Self { folder, _lock: Some(lock), compiled, kept, reads_only: false }))
    }

    /// Machine code that was kept under this key.
    pub fn artefact(&self, key: &str) -> Option<Vec<u8>> {
        self.compiled.as_ref()?.get(key)
    }

    /// Keeps machine code.
    pub fn put_artefact(&self, key: &str, code: &[u8]) {
        if let Some(cache) = &self.compiled {
            cache.put(key, code);
        }
    }

    /// Keeps a content that serves, so that it can serve again when its file holds another or is broken.
    pub fn keep(&self, digest: &str, bytes: &[u8], signature: Option<&str>) -> io::Result<()> {
        check_digest(digest)?;
        let Some(folder) = self.writable() else {
            let Kept { holds, originals } = &mut *self.lock();
            if originals.len() >= MOST_IN_MEMORY {
                originals.retain(|digest, _| holds.need(digest));
            }
            let kept = (bytes.to_vec(), signature.map(str::to_owned));
            originals.insert(digest.to_owned(), kept);
            return Ok(());
        };
        let folder = folder.join(ORIGINALS);
        let path = original(&folder, digest);
        if let Some(signature) = signature {
            keeping::write(&signed(&folder, digest), &[signature.as_bytes()])?;
        }
        let holds = self.holds();
        keeping::keep(&path, bytes, (MOST_ORIGINALS, MOST_ORIGINAL_BYTES), |name| {
            let kept = name.strip_suffix(signature::SUFFIX).unwrap_or(name);
            kept.strip_suffix(".wasm").is_some_and(|kept| kept == digest || holds.need(kept))
        })
    }

    /// A content that was kept.
    pub fn original(&self, digest: &str) -> Option<Original> {
        check_digest(digest).ok()?;
        let in_memory = self.lock().originals.get(digest).cloned();
        let Some(folder) = self.folder.as_ref().filter(|_| in_memory.is_none()) else {
            return in_memory;
        };
        let folder = folder.join(ORIGINALS);
        let path = original(&folder, digest);
        let read = || match keeping::read_own(&path, ORIGINAL_BYTES)? {
            Some(bytes) if digest_of(&bytes) != digest => Err(io::Error::other("it is damaged")),
            Some(bytes) => {
                let signature = keeping::read_own(&signed(&folder, digest), signature::LIMIT)?;
                Ok(Some((bytes, signature.and_then(|text| String::from_utf8(text).ok()))))
            }
            None => Ok(None),
        };
        read().unwrap_or_else(|error| {
            tracing::error!(file = %path.display(), %error, "a kept plugin is not used");
            None
        })
    }

    /// Keeps the configuration of a cost model that is about to serve. Without a folder there is nobody to ask for it.
    pub fn keep_configuration(&self, digest: &str, config: &str) -> io::Result<()> {
        check_digest(digest)?;
        let Some(folder) = self.writable() else { return Ok(()) };
        let folder = folder.join(CONFIGURATIONS);
        let path = configuration(&folder, digest);
        let own = format!("{digest}.json");
        let most = (MOST_CONFIGURATIONS, MOST_CONFIGURATION_BYTES);
        keeping::keep(&path, config.as_bytes(), most, |name| name == own)
    }

    /// Keeps the text of a `plugins.toml` that is good. Without a folder nothing outlasts whoever read it.
    pub fn keep_manifest(&self, text: &str) -> io::Result<()> {
        let Some(folder) = self.writable() else { return Ok(()) };
        keeping::write(&folder.join(manifest::FILE), &[text.as_bytes()])
    }

    /// The text that was kept.
    pub fn manifest(&self) -> Option<String> {
        let path = self.folder.as_ref()?.join(manifest::FILE);
        let read = keeping::read_own(&path, manifest::LIMIT).and_then(|found| {
            let not_text = |_| io::Error::other("it is not UTF-8");
            found.map(|bytes| String::from_utf8(bytes).map_err(not_text)).transpose()
        });
        read.unwrap_or_else(|error| {
            tracing::error!(file = %path.display(), %error, "the plugins.toml that was kept is not used");
            None
        })
    }

    /// What is held.
    pub fn holds(&self) -> Holds {
        self.lock().holds.clone()
    }

    /// Changes what is held, in memory and on disk. It is in force even if it could not be written.
    pub fn set_holds(&self, holds: &Holds) -> io::Result<()> {
        let mut kept = self.lock();
        kept.holds.clone_from(holds);
        let Some(folder) = self.writable() else { return Ok(()) };
        keeping::write(&folder.join(HOLDS), &[&serde_json::to_vec_pretty(holds)?])
    }

    fn writable(&self) -> Option<&PathBuf> {
        self.folder.as_ref().filter(|_| !self.reads_only)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It may be from a file, and becomes part of a path.
fn check_digest(digest: &str) -> io::Result<()> {
    if digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a SHA-256"))
}

fn original(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.wasm"))
}

fn configuration(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.json"))
}

fn signed(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.wasm{}", signature::SUFFIX))
}

/// Where the file of this digest is kept, if it is.
pub(crate) fn kept_original(folder: &Path, digest: &str) -> Option<PathBuf> {
    check_digest(digest).ok()?;
    let path = original(&folder.join(ORIGINALS), digest);
    path.exists().then_some(path)
}

/// The configuration of this digest, if it is kept and whole.
pub(crate) fn kept_configuration(folder: &Path, digest: &str) -> Option<String> {
    check_digest(digest).ok()?;
    let path = configuration(&folder.join(CONFIGURATIONS), digest);
    let config = keeping::read_own(&path, manifest::LIMIT).ok()??;
    (digest_of(&config) == digest).then(|| String::from_utf8(config).ok())?
}

/// Damaged decisions are no reason not to serve, but nothing may pass over them in silence.
fn read_holds(path: &Path) -> io::Result<Holds> {
    let parsed = keeping::read_own(path, HOLDS_BYTES).and_then(|found| match found {
        None => Ok(Holds::default()),
        Some(text) => Ok(serde_json::from_slice(&text)?),
    });
    parsed.or_else(|error| {
        let aside = path.with_extension("json.damaged");
        tracing::error!(
            file = %path.display(), %error, aside = %aside.display(),
            "what was held back is lost: plugins that were disabled or rolled back may serve again"
        );
        fs::rename(path, aside)?;
        Ok(Holds::default())
    })
}

fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Whether it is a real folder of this user that no other can even enter.
fn is_private(folder: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(folder) else { return false };
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::mode(&metadata) & 0o077 != 0 {
        return false;
    }
    metadata.is_dir() && keeping::is_ours_alone(&metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> State {
        State::open(folder).unwrap().expect("nobody else has it")
    }

    fn digest(byte: u8) -> String {
        digest_of(&[byte])
    }

    #[test]
    fn everything_is_there_again_after_a_restart() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data/plugins");
        let state = opened(&folder);
        assert_eq!(state.holds(), Holds::default());
        let hold = Hold {
            disabled: true,
            rejected: BTreeSet::from([digest(1)]),
            serving: Some(digest(2)),
            ..Hold::default()
        };
        let holds = Holds { files: BTreeMap::from([("a.wasm".to_owned(), hold)]) };
        state.set_holds(&holds).unwrap();
        state.keep(&digest(2), &[2], None).unwrap();
        state.keep(&digest(2), &[2], Some("signed")).unwrap();
        state.put_artefact("k", b"code");
        state.keep_configuration(&digest_of(b"{ }"), "{ }").unwrap();
        drop(state);
        assert_eq!(kept_configuration(&folder, &digest_of(b"{ }")).as_deref(), Some("{ }"));
        assert_eq!(kept_configuration(&folder, &digest_of(b"{}")), None);
        assert_eq!(kept_original(&folder, "../../etc/passwd"), None);
        let kept = folder.join("configurations").join(digest_of(b"{ }") + ".json");
        fs::write(kept, "{  }").unwrap();
        assert_eq!(kept_configuration(&folder, &digest_of(b"{ }")), None);

        let state = opened(&folder);
        assert_eq!(state.holds(), holds);
        assert_eq!(state.original(&digest(2)), Some((vec![2], Some("signed".to_owned()))));
        assert_eq!(state.original(&digest(3)), None);
        assert_eq!(state.artefact("k").as_deref(), Some(&b"code"[..]));
    }

    #[test]
    fn another_host_does_not_get_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let state = opened(folder.path());
        assert!(State::open(folder.path()).unwrap().is_none());
        drop(state);
        assert!(State::open(folder.path()).unwrap().is_some());
    }

    #[test]
    fn whoever_peeks_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let state = opened(folder.path());
        let hold = Hold { disabled: true, ..Hold::default() };
        let holds = Holds { files: BTreeMap::from([("a.wasm".to_owned(), hold)]) };
        state.set_holds(&holds).unwrap();
        state.keep_manifest("# kept").unwrap();
        state.keep(&digest(1), &[1], None).unwrap();
        // While another has it.
        let peeking = State::peek(folder.path());
        assert_eq!((peeking.holds(), peeking.manifest()), (holds, Some("# kept".to_owned())));
        peeking.set_holds(&Holds::default()).unwrap();
        peeking.keep_manifest("").unwrap();
        peeking.keep(&digest(2), &[2], None).unwrap();
        assert_eq!(peeking.original(&digest(1)), Some((vec![1], None)));
        assert_eq!(peeking.original(&digest(2)), Some((vec![2], None)));
        assert_eq!(peeking.holds(), Holds::default());
        drop((peeking, state));
        let state = opened(folder.path());
        assert!(state.holds().files["a.wasm"].disabled);
        assert_eq!(
            (state.manifest().as_deref(), state.original(&digest(2))),
            (Some("# kept"), None)
        );
        assert_eq!(State::peek(Path::new("nowhere")).holds(), Holds::default());
    }

    #[test]
    fn what_is_damaged_or_misnamed_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = opened(folder.path());
        state.keep(&digest(1), &[1], None).unwrap();
        let path = folder.path().join("originals").join(format!("{}.wasm", digest(1)));
        fs::write(&path, [9]).unwrap();
        assert_eq!(state.original(&digest(1)), None);
        let upwards = format!("../{}", &digest(1)[3..]);
        for name in ["", "../../etc/passwd", &upwards] {
            assert_eq!(state.original(name), None);
            assert!(state.keep(name, &[1], None).is_err());
        }
        fs::write(folder.path().join("holds.json"), "{").unwrap();
        drop(state);
        assert_eq!(opened(folder.path()).holds(), Holds::default());
        assert!(folder.path().join("holds.json.damaged").exists());
    }

    #[test]
    fn without_a_folder_it_is_kept_as_long_as_it_may_be_needed() {
        let state = State::in_memory();
        for byte in 1..=20 {
            state.keep(&digest(byte), &[byte], None).unwrap();
            let hold = Hold {
                serving: Some(digest(byte)),
                previous: Some(digest(byte - 1)),
                ..Hold::default()
            };
            state.set_holds(&Holds { files: [("a.wasm".to_owned(), hold)].into() }).unwrap();
        }
        assert_eq!(state.original(&digest(20)), Some((vec![20], None)));
        assert_eq!(state.original(&digest(19)), Some((vec![19], None)));
        assert_eq!(state.original(&digest(1)), None);
    }

    #[test]
    fn what_serves_is_never_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let state = opened(folder.path());
        let hold = Hold { serving: Some(digest(0)), ..Hold::default() };
        state.set_holds(&Holds { files: [("a.wasm".to_owned(), hold)].into() }).unwrap();
        for byte in 0..100 {
            state.keep(&digest(byte), &[byte], None).unwrap();
        }
        assert_eq!(state.original(&digest(0)), Some((vec![0], None)));
        assert_eq!(state.original(&digest(99)), Some((vec![99], None)));
        assert_eq!(fs::read_dir(folder.path().join("originals")).unwrap().count(), MOST_ORIGINALS);
    }

    #[cfg(unix)]
    #[test]
    fn compiled_code_stays_away_from_folders_that_others_can_enter() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = &parent.path().join("plugins");
        opened(folder).put_artefact("k", b"code");
        let compiled = folder.join("compiled");
        for (open, mode) in [(folder, 0o777), (&compiled, 0o750), (&compiled, 0o701)] {
            fs::set_permissions(open, fs::Permissions::from_mode(mode)).unwrap();
            let state = opened(folder);
            assert_eq!(state.artefact("k"), None, "read in spite of {mode:o}");
            state.put_artefact("l", b"code");
            assert!(!compiled.join("l.bin").exists(), "written in spite of {mode:o}");
            fs::set_permissions(open, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert!(opened(folder).artefact("k").is_some());
        // A link to a private folder is somebody else's idea of where it is.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(&compiled, elsewhere.path().join("compiled")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("compiled"), &compiled).unwrap();
        assert_eq!(opened(folder).artefact("k"), None);
    }
}
