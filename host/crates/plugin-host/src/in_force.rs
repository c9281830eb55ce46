//! What `plugins.toml` says, as far as it is in force.
//!
//! Invariants: a broken one changes nothing of what serves, also over a restart, since the last good one is kept; while
//! nobody can tell how a file is to serve, it does not. One that vanished counts for one more scan.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::error::{PluginHostError, chain};
use crate::folder::{self, Listing};
use crate::manifest::{self, Entry, Manifest};
use crate::state::State;
use crate::status::PluginRefusal;

/// How alike two names must be for one to be meant by the other, out of 1.
const ALIKE: f64 = 0.85;

/// What is in force, and what is wrong with what lies in the folder.
#[derive(Default)]
pub(crate) struct InForce {
    /// None: none was ever read, and none is known from before.
    good: Option<Manifest>,
    /// Why the one in the folder is not used.
    pub error: Option<PluginRefusal>,
    /// It was looked at in a scan before.
    begun: bool,
    /// Missing in the last scan.
    missing: bool,
    /// The text that was kept last; empty where there was no file.
    kept: Option<String>,
    /// Files that it names and that are not there, and what was said of each.
    absent: BTreeMap<String, Option<PluginRefusal>>,
}

impl InForce {
    /// What is said of a file that waits for a `plugins.toml` that can be read.
    pub const HELD_BACK: &str = "plugins.toml is broken, so that nobody can tell how this file is to serve; mend plugins.toml, or take it away";

    /// Takes over what lies in the folder now. Whether another scan is due soon.
    pub fn read(
        &mut self,
        folder: &Path,
        listing: &Listing,
        unsettled: &HashSet<String>,
        state: &State,
    ) -> bool {
        if unsettled.contains(manifest::FILE) {
            return false;
        }
        let started = std::mem::replace(&mut self.begun, true);
        let again = self.renew(started, folder, listing, state);
        again | self.look_for_named(started, listing)
    }

    /// Files that it names and that are not there, and why they should be.
    pub fn absent(&self) -> impl Iterator<Item = (&String, &PluginRefusal)> {
        self.absent.iter().filter_map(|(file, said)| Some((file, said.as_ref()?)))
    }

    fn renew(&mut self, started: bool, folder: &Path, listing: &Listing, state: &State) -> bool {
        if !started {
            self.recall(state);
        }
        if !listing.contains_key(manifest::FILE) {
            return self.miss(started, state);
        }
        self.missing = false;
        let read = read_text(folder);
        match read.and_then(|text| Manifest::parse(&text).map(|manifest| (text, manifest))) {
            Ok((text, manifest)) => {
                (self.good, self.error) = (Some(manifest), None);
                self.keep(text, state);
            }
            Err(error) => self.refuse(&error),
        }
        false
    }

    /// How a file is to serve. None: nobody can tell. `served`: whether it did when what is in force came about.
    pub fn entry(&self, file: &str, served: bool) -> Option<Entry> {
        let good = self.good.as_ref()?;
        let is_told = self.error.is_none() || served || good.names(file);
        is_told.then(|| good.entry(file))
    }

    /// Whether it has an entry for a file.
    pub fn names(&self, file: &str) -> bool {
        self.good.as_ref().is_some_and(|good| good.names(file))
    }

    /// What was good before a restart holds until there is a better one.
    fn recall(&mut self, state: &State) {
        let Some(text) = state.manifest() else { return };
        match Manifest::parse(&text) {
            Ok(manifest) => (self.good, self.kept) = (Some(manifest), Some(text)),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "the plugins.toml that was kept means nothing any more");
            }
        }
    }

    /// There is none. Right after a start that is how it is meant; later it may be about to come back.
    fn miss(&mut self, started: bool, state: &State) -> bool {
        let nothing = Manifest::default();
        let changes = self.error.is_some() || self.good.as_ref() != Some(&nothing);
        if changes && started && !std::mem::replace(&mut self.missing, true) {
            return true;
        }
        if self.good.as_ref().is_some_and(|good| *good != nothing) {
            tracing::warn!(
                "plugins.toml is gone: every file of the plugin folder serves with the defaults"
            );
        }
        (self.good, self.error) = (Some(nothing), None);
        self.keep(String::new(), state);
        false
    }

    /// An entry may come before its file, so while it runs that counts as wrong in the second scan only. Whether one is due.
    fn look_for_named(&mut self, started: bool, listing: &Listing) -> bool {
        let good = self.good.iter().flat_map(Manifest::wanted);
        let absent: Vec<String> =
            good.filter(|file| !listing.contains_key(*file)).map(str::to_owned).collect();
        self.absent.retain(|file, _| absent.contains(file));
        let mut again = false;
        for file in absent {
            let near = || {
                let named = |other: &&String| !self.names(other) && folder::is_plugin_name(other);
                let others = listing.keys().filter(named);
                let likeness = |other| strsim::jaro_winkler(&file, other);
                let nearest = others.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
                nearest.filter(|other| likeness(other) > ALIKE).cloned()
            };
            match self.absent.get(&file) {
                Some(Some(_)) => {}
                None if started => {
                    self.absent.insert(file, None);
                    again = true;
                }
                None | Some(None) => {
                    let refusal = PluginRefusal::of(&PluginHostError::Absent { near: near() });
                    tracing::warn!(file, error = refusal.message, "a plugin is not there");
                    self.absent.insert(file, Some(refusal));
                }
            }
        }
        again
    }

    fn refuse(&mut self, error: &PluginHostError) {
        let mut refusal = PluginRefusal::of(error);
        refusal.message.push_str(match self.good {
            Some(_) => {
                "; correct it; until then the last good settings stay in force, and files that they do not tell of wait"
            }
            None => {
                "; correct it, or take it away; no good settings are known from before, so no plugin serves until then"
            }
        });
        if self.error.as_ref() != Some(&refusal) {
            tracing::error!(error = refusal.message, "plugins.toml is not used");
        }
        self.error = Some(refusal);
    }

    fn keep(&mut self, text: String, state: &State) {
        if self.kept.as_ref() == Some(&text) {
            return;
        }
        if let Err(error) = state.keep_manifest(&text) {
            tracing::warn!(
                %error,
                "plugins.toml could not be kept; if it is broken at the next start, no plugin will serve"
            );
        }
        self.kept = Some(text);
    }
}

fn read_text(folder: &Path) -> Result<String, PluginHostError> {
    let unreadable = |error| {
        PluginHostError::Manifest(match error {
            PluginHostError::TooLarge { bytes, limit } => {
                format!("it has {bytes} bytes, and no more than {limit} are read")
            }
            PluginHostError::NotAFile(what) => format!("it is {what} and no plain file"),
            PluginHostError::Read(error) => format!("it cannot be read: {error}"),
            other => chain(&other),
        })
    };
    let content = folder::read(folder, manifest::FILE, manifest::LIMIT).map_err(unreadable)?;
    String::from_utf8(content.bytes)
        .map_err(|_| PluginHostError::Manifest("it is not UTF-8".to_owned()))
}
