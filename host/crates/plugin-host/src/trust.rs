//! Whether a file's own content may serve, where plugins need a signature.
//!
//! Invariant: with keys trusted, a file's own content serves only as long as a valid signature lies beside it, also when it
//! is loaded already and after a restart. It must be missing or wrong in two scans, since a file and its signature are
//! exchanged one after the other. A content that the file holds no more is another matter: nobody took its signature away
//! from it, so the last good one goes on serving by the signature that it had.

use crate::error::PluginHostError;
use crate::folder::{self, Content};
use crate::registry::{Known, Registry};
use crate::signature;

/// Scans in a row without a valid signature after which a content goes.
const SCANS: u32 = 2;

impl Registry {
    /// Checks the signature beside a file, unless neither has changed since. `content`: what was read of the file, if it was;
    /// it comes back, or what had to be read instead.
    pub fn check_signature(
        &self,
        name: &str,
        content: Option<Content>,
        known: &mut Known,
    ) -> Result<Option<Content>, PluginHostError> {
        let keys = &self.runtime.trusted_keys;
        let unchanged = known.signed.is_some() && known.signed == known.hashed;
        if keys.is_empty() || unchanged {
            return Ok(content);
        }
        let limit = known.entry.limits(&self.runtime.limits).component_bytes;
        let content =
            content.map_or_else(|| folder::read(&self.settings.folder, name, limit), Ok)?;
        let checked = folder::signature(&self.settings.folder, name)
            .and_then(|text| signature::check(keys, name, &content.bytes, text.as_deref()));
        match checked {
            Ok(()) => {
                known.unsigned = 0;
                // It is another content by now; the next scan will see it.
                known.signed = known.hashed.clone().filter(|_| known.holds(&content.digest));
                Ok(Some(content))
            }
            Err(error) => {
                known.unsigned = known.unsigned.saturating_add(1);
                known.signed = None;
                Err(error)
            }
        }
    }

    /// Has a file's own content go that is without a valid signature for good. Whether that is still in doubt, so that the
    /// next scan is to decide.
    pub fn withdraw_unsigned(&mut self, name: &str, known: &mut Known) -> bool {
        if known.unsigned == 0 {
            return false;
        }
        if known.unsigned < SCANS {
            return true;
        }
        let Some(digest) = &known.digest else { return false };
        // Neither a restart nor a rollback brings it back.
        if let Some(hold) = self.holds.files.get_mut(name) {
            for held in [&mut hold.serving, &mut hold.previous] {
                held.take_if(|held| held == digest);
            }
        }
        if known.serves_its_own()
            && let Some(loaded) = known.loaded.take()
        {
            tracing::error!(
                file = name,
                version = loaded.identity.version,
                digest,
                "its signature was withdrawn, so it serves no more"
            );
            loaded.rest();
            (known.previous, known.since, known.newcomer) = (None, None, None);
        }
        false
    }
}

impl Known {
    /// Whether what serves is what the file holds.
    pub fn serves_its_own(&self) -> bool {
        self.loaded.as_ref().is_some_and(|loaded| self.holds(&loaded.identity.digest))
    }

    /// Whether the file held this content when it was read last.
    fn holds(&self, digest: &str) -> bool {
        self.digest.as_deref() == Some(digest)
    }

    /// Whether this content is the file's own and lacks a signature.
    pub fn is_unsigned(&self, digest: &str) -> bool {
        self.unsigned > 0 && self.holds(digest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::*;
    use crate::engine::Runtime;
    use crate::limits::PluginHostSettings;
    use crate::testing::{Alone, built};

    #[test]
    fn a_signature_must_be_missing_in_two_scans() {
        let content = built("cost_per_token");
        let keys = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
        let signature = minisign::sign(None, &keys.sk, content.as_slice(), None, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let signed = folder.path().join("cost.wasm.minisig");
        fs::write(folder.path().join("cost.wasm"), &content).unwrap();

        let settings = PluginHostSettings {
            trusted_keys: vec![keys.pk.to_base64().parse().unwrap()],
            ..PluginHostSettings::new(folder.path())
        };
        let runtime = Runtime::start(&settings).unwrap();
        let mut alone = Alone::new(settings, runtime);
        // Whether another scan is due soon, and whether it serves.
        let mut scan = || {
            let listing = folder::list(folder.path()).unwrap();
            let again = alone.registry.scan(&listing, &HashSet::new());
            (again, alone.shared.set.load().plugins().count() == 1)
        };
        let text = signature.into_string();
        for round in 0..3 {
            fs::write(&signed, &text).unwrap();
            assert_eq!(scan(), (false, true), "round {round}: signed");
            fs::remove_file(&signed).unwrap();
            assert_eq!(scan(), (true, true), "round {round}: in doubt");
            fs::write(&signed, &text).unwrap();
            assert_eq!(scan(), (false, true), "round {round}: there again");
            fs::write(&signed, "untrusted comment: nothing").unwrap();
            assert_eq!(scan(), (true, true), "round {round}: in doubt again");
            assert_eq!(scan(), (false, false), "round {round}: withdrawn");
            assert_eq!(scan(), (false, false), "round {round}: and so it stays");
        }
    }
}
