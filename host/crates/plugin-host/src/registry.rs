//! From what lies in the folder to the set that serves.
//!
//! Level-triggered: each scan compares the whole folder with the whole set by content, so a lost or doubled event changes
//! nothing. Invariants: a file that fails the gate leaves its last good version serving; so does content that was rolled
//! back from; a file must be missing in two scans before its plugin goes; content that failed once is not tried again; the
//! set is replaced whole, and only when it is another one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

use crate::control::{Order, Waiting};
use crate::engine::Runtime;
use crate::error::PluginHostError;
use crate::fits;
use crate::folder::{self, Content, Listing, Stamp};
use crate::gate::{self, Candidate};
use crate::ignored::Ignored;
use crate::in_force::InForce;
use crate::limits::PluginHostSettings;
use crate::loaded::Loaded;
use crate::manifest::Entry;
use crate::meter::Meters;
use crate::set::PluginSet;
use crate::state::{Hold, Holds};
use crate::status::{PluginRefusal, Reported};
use crate::watch::Reminder;

/// How long a command may wait while files are looked at; for one that is being compiled it does.
const OBEY_EVERY: Duration = Duration::from_millis(50);

/// Most contents remembered as refused.
const REFUSED: usize = 256;

/// What the handle and the watcher share.
pub(crate) struct Shared {
    pub set: ArcSwap<PluginSet>,
    pub status: ArcSwap<Vec<Reported>>,
    pub meters: Meters,
}

/// Owned by the watcher's thread.
pub(crate) struct Registry {
    pub settings: PluginHostSettings,
    pub runtime: Runtime,
    pub shared: Arc<Shared>,
    pub commands: Receiver<Order>,
    pub alarm: SyncSender<Reminder>,
    pub waiting: Vec<Waiting>,
    pub holds: Holds,
    /// What plugins.toml says.
    pub told: InForce,
    pub files: BTreeMap<String, Known>,
    ignored: Ignored,
    /// By content and by what the gate makes of it.
    pub refused: HashMap<(String, String), PluginRefusal>,
}

/// What is known of one file.
#[derive(Default)]
pub(crate) struct Known {
    pub loaded: Option<Arc<Loaded>>,
    /// The good content that served before it.
    pub previous: Option<Previous>,
    pub since: Option<SystemTime>,
    /// Set while its breaker may bring back what it took the place of.
    pub newcomer: Option<Newcomer>,
    pub error: Option<PluginRefusal>,
    pub held: Option<String>,
    /// What plugins.toml says.
    pub entry: Entry,
    /// What it said when what serves was accepted.
    pub in_force: Entry,
    /// Why what serves does not follow what plugins.toml says now.
    pub unfit: Option<String>,
    /// Missing in the last scan.
    pub missing: bool,
    /// What the file held when it was read last.
    pub digest: Option<String>,
    /// Stamp of what the digest was made of, once it is old enough to be trusted.
    pub hashed: Option<Stamp>,
    /// The same stamp, once the signature was found valid too.
    pub signed: Option<Stamp>,
    /// Scans in a row that found this content without a valid signature.
    pub unsigned: u32,
}

/// A content that served, and what was in force for it.
#[derive(Clone)]
pub(crate) struct Previous {
    pub loaded: Arc<Loaded>,
    pub in_force: Entry,
}

/// How a content stood when it took another's place.
#[derive(Clone, Copy)]
pub(crate) struct Newcomer {
    pub openings: u64,
    pub calls: u64,
}

impl Known {
    /// What is said of a file that the operator switched off.
    pub const DISABLED: &str =
        "it was disabled by command; `tollgate plugin enable` allows it again";

    /// Nothing serves from it.
    pub fn switch_off(&mut self) {
        (self.loaded, self.previous, self.since) = (None, None, None);
        (self.error, self.held, self.newcomer, self.unfit) = (None, None, None, None);
    }

    /// Once, when they are new.
    fn warn_of_idle_settings(&self, file: &str) {
        let Some(loaded) = self.loaded.as_ref().filter(|_| self.in_force != self.entry) else {
            return;
        };
        for setting in fits::idle(&loaded.roles(), &self.entry) {
            tracing::warn!(
                file,
                setting,
                "plugins.toml says something of a plugin that means nothing for it"
            );
        }
    }
}

impl Registry {
    pub fn new(
        settings: PluginHostSettings,
        runtime: Runtime,
        shared: Arc<Shared>,
        commands: Receiver<Order>,
        alarm: SyncSender<Reminder>,
    ) -> Self {
        let holds = runtime.state.holds();
        Self {
            settings,
            runtime,
            shared,
            commands,
            alarm,
            waiting: Vec::new(),
            holds,
            told: InForce::default(),
            files: BTreeMap::new(),
            ignored: Ignored::default(),
            refused: HashMap::new(),
        }
    }

    /// Makes the set match the folder. `unsettled`: files that are being written, to be looked at next time.
    /// Answers whether another scan is due soon.
    pub fn scan(&mut self, listing: &Listing, unsettled: &HashSet<String>) -> bool {
        // Who asks from now on wants one that begins after that.
        let waiting = std::mem::take(&mut self.waiting);
        let mut again = !unsettled.is_empty();
        again |= self.told.read(&self.settings.folder, listing, unsettled, &self.runtime.state);
        let mut obeyed = Instant::now();
        for (name, stamp) in listing {
            if folder::is_plugin_name(name) && !unsettled.contains(name) {
                again |= self.look_at(name, stamp);
            }
            // Files that take long to compile are nothing to wait for.
            if obeyed.elapsed() > OBEY_EVERY {
                self.obey();
                obeyed = Instant::now();
            }
        }
        again |= self.forget_vanished(listing);
        self.ignored.look(&self.settings.folder);
        self.publish();
        // What could not be written is in force all the same, and was logged.
        let _ = self.keep_holds();
        self.answer_waiting(waiting, None);
        // Meanwhile more may have come, and its reminder may have been taken for one to look at the folder.
        again | self.obey()
    }

    /// Brings one file up to date. Whether that takes another scan.
    fn look_at(&mut self, name: &str, stamp: &Stamp) -> bool {
        let mut in_doubt = false;
        let mut known = self.files.remove(name).unwrap_or_default();
        known.missing = false;
        let hold = self.holds.files.get(name);
        let disabled = hold.is_some_and(|hold| hold.disabled);
        let served = known.loaded.is_some() || hold.is_some_and(|hold| hold.serving.is_some());
        let told = self.told.entry(name, served);
        let waits = told.is_none();
        known.entry = told.unwrap_or_default();
        if !known.entry.enabled || disabled || waits {
            known.switch_off();
            known.held = match disabled {
                true => Some(Known::DISABLED.to_owned()),
                false => waits.then(|| InForce::HELD_BACK.to_owned()),
            };
        } else {
            match self.current(name, stamp, &mut known) {
                Ok(loaded) => {
                    self.take_over(name, &mut known, loaded);
                    known.warn_of_idle_settings(name);
                    known.in_force = known.entry.clone();
                    (known.error, known.held, known.unfit) = (None, None, None);
                }
                Err(refusal) => {
                    in_doubt = self.withdraw_unsigned(name, &mut known);
                    if !(in_doubt && known.serves_its_own()) {
                        self.refuse(name, &mut known, refusal);
                    }
                }
            }
        }
        self.files.insert(name.to_owned(), known);
        in_doubt
    }

    /// The file's own content serves from now on.
    fn take_over(&mut self, name: &str, known: &mut Known, loaded: Arc<Loaded>) {
        if known.loaded.as_ref().is_some_and(|old| Arc::ptr_eq(old, &loaded)) {
            return;
        }
        tracing::info!(
            file = name,
            plugin = loaded.identity.name,
            version = loaded.identity.version,
            digest = loaded.identity.digest,
            "plugin loaded"
        );
        let digest = &loaded.identity.digest;
        let hold = self.holds.files.entry(name.to_owned()).or_default();
        // Also after a restart: what served last may have been another content.
        if hold.serving.as_ref().is_some_and(|before| before != digest) {
            hold.previous = hold.serving.take();
            let in_force = known.in_force.clone();
            known.previous = known.loaded.take().map(|loaded| Previous { loaded, in_force });
            let (openings, calls) = (loaded.breaker.openings(), loaded.tally.calls());
            known.newcomer = Some(Newcomer { openings, calls });
        }
        hold.serving = Some(digest.clone());
        let before = known.previous.as_ref().map(|previous| Arc::clone(&previous.loaded));
        if let Some(old) = known.loaded.replace(loaded).or(before) {
            old.rest();
        }
        known.since = Some(SystemTime::now());
    }

    /// The plugin that the file holds now: one that is loaded already, or through the gate.
    fn current(
        &mut self,
        name: &str,
        stamp: &Stamp,
        known: &mut Known,
    ) -> Result<Arc<Loaded>, PluginRefusal> {
        let entry = known.entry.clone();
        let (digest, content) =
            self.digest(name, stamp, known).map_err(|e| PluginRefusal::of(&e))?;
        let hold = self.holds.files.get(name);
        if hold.is_some_and(|hold| hold.rejected.contains(&digest)) {
            let same = |refusal: &&PluginRefusal| refusal.kind == "rejected";
            return Err(known.error.iter().find(same).cloned().unwrap_or_else(|| {
                let why = "before the last restart".to_owned();
                PluginRefusal::of(&PluginHostError::Rejected { file: name.to_owned(), why })
            }));
        }
        let content = self.check_signature(name, content, known);
        let content = content.map_err(|error| PluginRefusal::of(&error))?;
        gate::check_pin(&digest, &entry).map_err(|error| PluginRefusal::of(&error))?;
        let others = self.files.values().filter_map(|other| other.loaded.as_ref());
        let same: Vec<&Arc<Loaded>> = known
            .loaded
            .iter()
            .chain(known.previous.iter().map(|previous| &previous.loaded))
            .chain(others)
            .filter(|loaded| loaded.identity.digest == digest)
            .collect();
        let host = &self.runtime.limits;
        if let Some(loaded) = same.iter().find(|loaded| loaded.is_set_up_as(&entry, host)) {
            fits::check(&loaded.roles(), &entry).map_err(|error| PluginRefusal::of(&error))?;
            return Ok(Arc::clone(loaded));
        }
        let key = (digest, entry.made_with());
        if let Some(refusal) = self.refused.get(&key) {
            return Err(refusal.clone());
        }
        let limit = entry.limits(host).component_bytes;
        let made = match (same.first(), content) {
            (Some(loaded), _) => gate::reconfigure(&self.runtime, loaded, &entry),
            (None, Some(read)) => self.load_and_keep(name, &read, &entry),
            (None, None) => folder::read(&self.settings.folder, name, limit)
                .and_then(|read| self.load_and_keep(name, &read, &entry)),
        };
        made.map_err(|error| {
            let refusal = PluginRefusal::of(&error);
            if error.is_lasting() {
                self.remember(key, refusal.clone());
            }
            refusal
        })
    }

    /// What the file holds: its digest, and its bytes if they had to be read.
    fn digest(
        &self,
        name: &str,
        stamp: &Stamp,
        known: &mut Known,
    ) -> Result<(String, Option<Content>), PluginHostError> {
        if let (Some(hashed), Some(digest)) = (&known.hashed, &known.digest)
            && hashed == stamp
        {
            return Ok((digest.clone(), None));
        }
        let before = known.digest.take();
        known.hashed = None;
        let limit = known.entry.limits(&self.runtime.limits).component_bytes;
        let read = folder::read(&self.settings.folder, name, limit)?;
        if before.as_ref() != Some(&read.digest) {
            known.unsigned = 0;
        }
        known.hashed = (!stamp.is_fresh(SystemTime::now())).then(|| stamp.clone());
        known.digest = Some(read.digest.clone());
        Ok((read.digest.clone(), Some(read)))
    }

    pub fn load_and_keep(
        &self,
        name: &str,
        read: &Content,
        entry: &Entry,
    ) -> Result<Arc<Loaded>, PluginHostError> {
        let signature = if self.runtime.trusted_keys.is_empty() {
            None
        } else {
            folder::signature(&self.settings.folder, name)?
        };
        let signature = signature.as_deref();
        let candidate = Candidate { file: name, content: read, entry, signature };
        let loaded = gate::load(&self.runtime, &candidate)?;
        if let Err(error) = self.runtime.state.keep(&read.digest, &read.bytes, signature) {
            tracing::warn!(file = name, %error, "it could not be kept, so a rollback to it will not survive a restart");
        }
        Ok(loaded)
    }

    /// Everything is tried again, whatever came of it before.
    pub fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    pub fn remember(&mut self, key: (String, String), refusal: PluginRefusal) {
        if self.refused.len() >= REFUSED {
            self.refused.clear();
        }
        self.refused.insert(key, refusal);
    }

    /// Drops what is missing for the second time; whether something is missing for the first time.
    fn forget_vanished(&mut self, listing: &Listing) -> bool {
        let mut again = false;
        let holds = &mut self.holds;
        self.files.retain(|name, known| {
            if listing.contains_key(name) {
                return true;
            }
            if known.missing {
                tracing::info!(file = name, "plugin removed");
                // Whoever removes a file does not want its last good content back when the next one is broken.
                if let Some(Hold { plugin, serving, previous, .. }) = holds.files.get_mut(name) {
                    (*plugin, *serving, *previous) = (None, None, None);
                }
                return false;
            }
            known.missing = true;
            again = true;
            true
        });
        again
    }
}
