//! What the host keeps beside the plugin folder: contents that served, and what the operator and the breakers decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

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
    /// The content that served last.
    pub serving: Option<String>,
    /// The good content that served before it.
    pub previous: Option<String>,
}

/// What is kept, in memory.
#[derive(Debug, Default)]
pub(crate) struct State {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    holds: Holds,
    originals: HashMap<String, Vec<u8>>,
}

impl State {
    /// Keeps a content that serves, so that it can serve again when its file holds another or is broken.
    pub fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.lock();
        let Kept { holds, originals } = &mut *kept;
        originals.retain(|digest, _| {
            let is = |held: &Option<String>| held.as_deref() == Some(digest.as_str());
            holds.files.values().any(|hold| is(&hold.serving) || is(&hold.previous))
        });
        originals.entry(digest.to_owned()).or_insert_with(|| bytes.to_vec());
        Ok(())
    }

    /// A content that was kept.
    pub fn original(&self, digest: &str) -> Option<Vec<u8>> {
        self.lock().originals.get(digest).cloned()
    }

    /// What is held.
    pub fn holds(&self) -> Holds {
        self.lock().holds.clone()
    }

    /// Changes what is held.
    pub fn set_holds(&self, holds: &Holds) -> io::Result<()> {
        self.lock().holds.clone_from(holds);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
