//! From what lies in the folder to the set that serves.
//!
//! Level-triggered: each scan compares the whole folder with the whole set by content, so a lost or doubled event changes
//! nothing. Invariants: a file that fails the gate leaves its last good version serving; a file must be missing in two
//! scans before its plugin goes; content that failed once is not tried again; the set is replaced whole, and only when it
//! is another one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tollgate_domain::PluginIdentity;

use crate::engine::Runtime;
use crate::error::{PluginHostError, chain};
use crate::folder::{self, Content, Listing, Stamp};
use crate::gate;
use crate::limits::PluginHostSettings;
use crate::loaded::{Loaded, Role};
use crate::manifest::{self, Entry, Manifest};
use crate::set::PluginSet;

/// Most contents remembered as refused.
const REFUSED: usize = 256;

/// A file of the plugin folder and what became of it.
#[derive(Clone, Debug)]
pub struct PluginStatus {
    /// Its name in the folder; `plugins.toml` has an entry of its own when it is broken.
    pub file: String,
    /// The plugin that serves from it: the last good version, if the present one was refused.
    pub identity: Option<PluginIdentity>,
    /// What that one does.
    pub roles: Vec<Role>,
    /// Since when it serves.
    pub since: Option<SystemTime>,
    /// Whether `plugins.toml` allows it.
    pub enabled: bool,
    /// Why the file as it is now is not used: every cause in one line.
    pub error: Option<PluginRefusal>,
    /// MERGE: whether its calls are let through.
    pub breaker: crate::control::BreakerState,
    /// MERGE: the fault that opened it last; empty if none did.
    pub breaker_fault: String,
    /// MERGE: whether it prices beside the others and never bills.
    pub shadow: bool,
    /// MERGE: how its instances are kept apart.
    pub isolation: crate::control::Isolation,
    /// MERGE: why an older content serves.
    pub held: Option<String>,
    /// MERGE: what `roll_back` would go back to.
    pub previous: Option<PluginIdentity>,
    /// MERGE: SHA-256 of the file as it is now.
    pub digest_of_file: Option<String>,
    /// MERGE: the version of the contract it was built for.
    pub api_version: Option<String>,
    /// MERGE: what it says of itself.
    pub description: Option<String>,
    /// MERGE: the JSON Schema of its configuration.
    pub config_schema: Option<String>,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginRefusal {
    /// [`PluginHostError::kind`].
    pub kind: &'static str,
    /// The whole chain of causes, and what to do.
    pub message: String,
}

impl PluginRefusal {
    fn of(error: &PluginHostError) -> Self {
        Self { kind: error.kind(), message: chain(error) }
    }
}

/// What the handle and the watcher share.
pub(crate) struct Shared {
    pub set: ArcSwap<PluginSet>,
    pub status: ArcSwap<Vec<PluginStatus>>,
    /// MERGE: files that `disable` turned off.
    pub disabled: std::sync::Mutex<std::collections::BTreeSet<String>>,
    /// MERGE: whole scans so far.
    pub scans: std::sync::atomic::AtomicU64,
}

/// Owned by the watcher's thread.
pub(crate) struct Registry {
    settings: PluginHostSettings,
    runtime: Runtime,
    shared: Arc<Shared>,
    manifest: Manifest,
    manifest_error: Option<PluginRefusal>,
    manifest_missing: bool,
    files: BTreeMap<String, Known>,
    refused: HashMap<(String, String), PluginRefusal>,
}

/// What is known of one file.
#[derive(Default)]
struct Known {
    loaded: Option<Arc<Loaded>>,
    since: Option<SystemTime>,
    error: Option<PluginRefusal>,
    entry: Entry,
    /// Missing in the last scan.
    missing: bool,
    /// Digest of the content, good while the stamp is the same.
    hashed: Option<(Stamp, String)>,
}

impl Registry {
    pub fn new(settings: PluginHostSettings, runtime: Runtime, shared: Arc<Shared>) -> Self {
        Self {
            settings,
            runtime,
            shared,
            manifest: Manifest::default(),
            manifest_error: None,
            manifest_missing: false,
            files: BTreeMap::new(),
            refused: HashMap::new(),
        }
    }

    /// Makes the set match the folder. `unsettled`: files that are being written, to be looked at next time.
    /// Answers whether another scan is due soon.
    pub fn scan(&mut self, listing: &Listing, unsettled: &HashSet<String>) -> bool {
        let mut again = !unsettled.is_empty();
        again |= self.read_manifest(listing, unsettled);
        for (name, stamp) in listing {
            if name != manifest::FILE && !unsettled.contains(name) {
                self.look_at(name, stamp);
            }
        }
        again |= self.forget_vanished(listing);
        self.publish();
        again
    }

    /// A broken one leaves the last good one in force; one that vanished counts for one more scan.
    fn read_manifest(&mut self, listing: &Listing, unsettled: &HashSet<String>) -> bool {
        if unsettled.contains(manifest::FILE) {
            return false;
        }
        if !listing.contains_key(manifest::FILE) {
            if self.manifest_missing {
                (self.manifest, self.manifest_error) = (Manifest::default(), None);
            }
            return !std::mem::replace(&mut self.manifest_missing, true)
                && self.manifest != Manifest::default();
        }
        self.manifest_missing = false;
        let read = folder::read(&self.settings.folder, manifest::FILE, manifest::LIMIT).and_then(
            |content| {
                let text = String::from_utf8(content.bytes)
                    .map_err(|_| PluginHostError::Manifest("it is not UTF-8".to_owned()))?;
                Manifest::parse(&text)
            },
        );
        match read {
            Ok(manifest) => {
                for file in manifest.files().filter(|file| !listing.contains_key(*file)) {
                    tracing::debug!(file, "plugins.toml names a file that is not in the folder");
                }
                (self.manifest, self.manifest_error) = (manifest, None);
            }
            Err(error) => {
                let refusal = PluginRefusal::of(&error);
                if self.manifest_error.as_ref() != Some(&refusal) {
                    tracing::error!(error = refusal.message, "plugins.toml is not used");
                }
                self.manifest_error = Some(refusal);
            }
        }
        false
    }

    /// Brings one file up to date.
    fn look_at(&mut self, name: &str, stamp: &Stamp) {
        let mut entry = self.manifest.entry(name);
        entry.enabled &= !crate::control::locked(&self.shared.disabled).contains(name);
        let mut known = self.files.remove(name).unwrap_or_default();
        known.missing = false;
        if entry.enabled {
            match self.current(name, stamp, &entry, &mut known) {
                Ok(loaded) => {
                    let is_new = known.loaded.as_ref().is_none_or(|old| !Arc::ptr_eq(old, &loaded));
                    if is_new {
                        tracing::info!(
                            file = name,
                            plugin = loaded.identity.name,
                            version = loaded.identity.version,
                            digest = loaded.identity.digest,
                            "plugin loaded"
                        );
                        known.since = Some(SystemTime::now());
                        known.loaded = Some(loaded);
                    }
                    known.error = None;
                }
                Err(refusal) => {
                    if known.error.as_ref() != Some(&refusal) {
                        tracing::error!(
                            file = name,
                            error = refusal.message,
                            keeps_last = known.loaded.is_some(),
                            "plugin refused"
                        );
                    }
                    known.error = Some(refusal);
                }
            }
        } else {
            (known.loaded, known.since, known.error) = (None, None, None);
        }
        known.entry = entry;
        self.files.insert(name.to_owned(), known);
    }

    /// The plugin that the file holds now: one that is loaded already, or through the gate.
    fn current(
        &mut self,
        name: &str,
        stamp: &Stamp,
        entry: &Entry,
        known: &mut Known,
    ) -> Result<Arc<Loaded>, PluginRefusal> {
        let limit = self.runtime.limits.component_bytes;
        let mut content = None;
        let digest = match &known.hashed {
            Some((hashed, digest)) if hashed == stamp => digest.clone(),
            _ => {
                let read = folder::read(&self.settings.folder, name, limit)
                    .map_err(|error| PluginRefusal::of(&error))?;
                let digest = read.digest.clone();
                known.hashed =
                    (!stamp.is_fresh(SystemTime::now())).then(|| (stamp.clone(), digest.clone()));
                content = Some(read);
                digest
            }
        };
        let elsewhere = self.files.values().filter_map(|other| other.loaded.as_ref());
        let same: Vec<&Arc<Loaded>> = known
            .loaded
            .iter()
            .chain(elsewhere)
            .filter(|loaded| loaded.identity.digest == digest)
            .collect();
        if let Some(loaded) = same.iter().find(|loaded| loaded.config() == entry.config) {
            return Ok(Arc::clone(loaded));
        }
        let key = (digest, entry.config.clone());
        if let Some(refusal) = self.refused.get(&key) {
            return Err(refusal.clone());
        }
        let made = match (same.first(), content) {
            (Some(loaded), _) => gate::reconfigure(&self.runtime, loaded, &entry.config),
            (None, Some(read)) => self.load(name, &read, entry),
            (None, None) => folder::read(&self.settings.folder, name, limit)
                .and_then(|read| self.load(name, &read, entry)),
        };
        made.map_err(|error| {
            let refusal = PluginRefusal::of(&error);
            if error.is_lasting() {
                if self.refused.len() >= REFUSED {
                    self.refused.clear();
                }
                self.refused.insert(key, refusal.clone());
            }
            refusal
        })
    }

    fn load(
        &self,
        name: &str,
        read: &Content,
        entry: &Entry,
    ) -> Result<Arc<Loaded>, PluginHostError> {
        gate::load(&self.runtime, name, &read.bytes, &read.digest, &entry.config)
    }

    /// Drops what is missing for the second time; whether something is missing for the first time.
    fn forget_vanished(&mut self, listing: &Listing) -> bool {
        let mut again = false;
        self.files.retain(|name, known| {
            if listing.contains_key(name) {
                return true;
            }
            if known.missing {
                tracing::info!(file = name, "plugin removed");
                return false;
            }
            known.missing = true;
            again = true;
            true
        });
        again
    }

    /// Swaps the set if it is another one, and the status always.
    fn publish(&mut self) {
        let mut names: Vec<String> = self.files.keys().cloned().collect();
        names.sort_by_key(|name| {
            (self.files.get(name).map_or(0, |known| known.entry.order), name.clone())
        });
        let present = self.shared.set.load_full();
        let mut taken: HashMap<String, String> = HashMap::new();
        // A name belongs to whoever serves under it already, unless that file is gone.
        for (name, known) in &self.files {
            if let Some(loaded) = &known.loaded
                && !known.missing
                && present.plugins().any(|identity| *identity == loaded.identity)
            {
                taken.entry(loaded.identity.name.clone()).or_insert_with(|| name.clone());
            }
        }
        // A file that is gone gives way to a present one of the same plugin at once.
        names.sort_by_key(|name| self.files.get(name).is_some_and(|known| known.missing));
        let mut serving: Vec<String> = Vec::new();
        for name in &names {
            let Some(known) = self.files.get_mut(name) else { continue };
            let Some(loaded) = &known.loaded else { continue };
            let owner = taken.entry(loaded.identity.name.clone()).or_insert_with(|| name.clone());
            if *owner == *name {
                serving.push(name.clone());
            } else if !known.missing {
                let error = PluginHostError::Duplicate {
                    name: loaded.identity.name.clone(),
                    other: owner.clone(),
                };
                let refusal = PluginRefusal::of(&error);
                let reported = self.shared.status.load();
                if !reported.iter().any(|s| s.file == *name && s.error.as_ref() == Some(&refusal)) {
                    tracing::error!(file = name, error = refusal.message, "plugin refused");
                }
                known.error = Some(refusal);
            }
        }
        serving.sort_by_key(|name| {
            (self.files.get(name).map_or(0, |known| known.entry.order), name.clone())
        });
        let chosen = |shadow: bool| -> Vec<Arc<Loaded>> {
            let known = serving.iter().filter_map(|name| self.files.get(name));
            known
                .filter(|known| known.entry.shadow == shadow)
                .filter_map(|k| k.loaded.clone())
                .collect()
        };
        let (plugins, shadows) = (chosen(false), chosen(true));
        if !present.holds(&plugins) || !present.has_shadows(&shadows) {
            let generation = present.generation().saturating_add(1);
            tracing::info!(generation, plugins = plugins.len(), "plugin set swapped");
            let set = PluginSet::new(generation, plugins, Arc::clone(&self.runtime.limits))
                .shadowed_by(shadows);
            self.shared.set.store(Arc::new(set));
        }
        self.shared.status.store(Arc::new(self.status(&serving)));
        self.shared.scans.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }

    fn status(&self, serving: &[String]) -> Vec<PluginStatus> {
        let broken_manifest = self.manifest_error.iter().map(|error| PluginStatus {
            file: manifest::FILE.to_owned(),
            identity: None,
            roles: Vec::new(),
            since: None,
            enabled: true,
            error: Some(error.clone()),
            breaker: crate::control::BreakerState::Closed,
            breaker_fault: String::new(),
            shadow: false,
            isolation: crate::control::Isolation::Plugin,
            held: None,
            previous: None,
            digest_of_file: None,
            api_version: None,
            description: None,
            config_schema: None,
        });
        let of_files = self.files.iter().map(|(name, known)| {
            let loaded = known.loaded.as_ref().filter(|_| serving.contains(name));
            PluginStatus {
                file: name.clone(),
                identity: loaded.map(|loaded| loaded.identity.clone()),
                roles: loaded.map(|loaded| loaded.roles()).unwrap_or_default(),
                since: loaded.and(known.since),
                enabled: known.entry.enabled,
                error: known.error.clone(),
                breaker: crate::control::BreakerState::Closed,
                breaker_fault: String::new(),
                shadow: known.entry.shadow,
                isolation: crate::control::Isolation::Plugin,
                held: known.error.as_ref().and(loaded).map(|_| "its file is refused".to_owned()),
                previous: None,
                digest_of_file: known.hashed.as_ref().map(|(_, digest)| digest.clone()),
                api_version: None,
                description: None,
                config_schema: None,
            }
        });
        broken_manifest.chain(of_files).collect()
    }
}
