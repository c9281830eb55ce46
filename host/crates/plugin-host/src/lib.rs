//! Plugins behind one handle: WebAssembly components that say what a request cost, which attributes a span gets and which
//! spans leave.
//!
//! [`PluginHost`] watches a folder and keeps a [`PluginSet`]; [`PluginHost::pin`] hands out the present one, and whoever
//! holds it is served by these very plugins whatever happens to the folder. Calls are synchronous and run on the caller's
//! thread, which needs about a megabyte of stack; none takes longer than its deadline, and none panics.
//!
//! Three lifetimes are three types: what is made once (`engine`), for each file (`loaded`), and for each running copy
//! (`instance`). Nothing outside this crate knows of wasmtime.

mod artefact;
mod bindings;
mod breaker;
mod cache;
mod calls;
mod child;
mod clock;
mod compile;
mod control;
mod deadline;
mod describe;
mod engine;
mod error;
mod events;
mod fits;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod ignored;
mod in_force;
mod inspect;
mod instance;
mod interface;
mod keeping;
mod last_good;
mod lift;
mod limits;
mod loaded;
mod lock;
mod log;
mod lower;
mod manifest;
mod matching;
mod meter;
mod offline;
mod pool;
mod price;
mod publish;
mod registry;
#[cfg(test)]
mod restart;
mod role;
mod schema;
mod set;
mod signature;
mod spans;
mod state;
mod status;
mod steps;
mod stopwatch;
mod strip;
#[cfg(test)]
mod testing;
mod trust;
mod wasi;
mod watch;
mod wire;
pub mod workshop;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};

use arc_swap::ArcSwap;
use tollgate_domain::{CostOutcome, Usage};

pub use crate::child::run_compiler;
pub use crate::control::ControlError;
use crate::control::{Claim, Command, Order};
use crate::engine::Runtime;
pub use crate::error::{CallFault, PluginHostError, chain};
pub use crate::inspect::{Inspection, Rejection, inspect, inspect_in_folder};
pub use crate::limits::{Compiler, Limits, PluginHostSettings};
pub use crate::manifest::{Isolation, OnFailure, config_text};
use crate::meter::Meters;
pub use crate::meter::{LatencyHistogram, PluginMeter};
pub use crate::offline::{KeptPlugins, OfflineCostModel, digest_of_file};
use crate::registry::{Registry, Shared};
pub use crate::role::Role;
pub use crate::set::{Filters, NotAdmitted, PluginSet, ShadowPrice};
pub use crate::signature::{KeyError, TrustedKey};
pub use crate::spans::Filtered;
pub use crate::status::{PluginRefusal, PluginStatus};
pub use crate::steps::{Step, StepTaken};
pub use crate::strip::{Stripped, strip};
use crate::watch::Reminder;

/// Stack of the thread that compiles.
const WATCHER_STACK: usize = 8 << 20;

/// A handle on the plugins; clones are the same host. When the last one is dropped the folder is no longer watched, and
/// sets that are still pinned go on working.
#[derive(Clone)]
pub struct PluginHost(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    reminders: SyncSender<Reminder>,
    commands: SyncSender<Order>,
    stop: Arc<AtomicBool>,
}

impl PluginHost {
    /// Loads what is in the folder and begins to watch it. A file that cannot be used is reported by
    /// [`PluginHost::status`] and in the log, and is no error.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, what is kept cannot be kept where it should or belongs to another host that runs, or
    /// the engine cannot start.
    pub fn start(settings: PluginHostSettings) -> Result<Self, PluginHostError> {
        folder::list(&settings.folder).map_err(|source| PluginHostError::Folder {
            folder: settings.folder.display().to_string(),
            source,
        })?;
        stopwatch::calibrate();
        let runtime = Runtime::start(&settings)?;
        let shared = Arc::new(Shared {
            set: ArcSwap::from_pointee(PluginSet::new(0, Vec::new())),
            status: ArcSwap::from_pointee(Vec::new()),
            meters: Meters::default(),
        });
        let (commands, obeyed) = mpsc::sync_channel(control::WAITING);
        let (reminders, receiver) = mpsc::sync_channel(1);
        let (ready, loaded) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, of_registry, stopped) =
            (reminders.clone(), Arc::clone(&shared), Arc::clone(&stop));
        let broken =
            |error: Box<dyn std::error::Error + Send + Sync>| PluginHostError::Engine(error);
        std::thread::Builder::new()
            .name("tollgate-plugins".to_owned())
            .stack_size(WATCHER_STACK)
            .spawn(move || {
                let (folder, every) = (settings.folder.clone(), settings.rescan_every);
                let registry =
                    Registry::new(settings, runtime, of_registry, obeyed, sender.clone());
                watch::run(&folder, every, registry, (sender, &receiver), &stopped, &ready);
            })
            .map_err(|error| broken(Box::new(error)))?;
        loaded.recv().map_err(|_| broken("the watcher's thread ended".into()))?;
        Ok(Self(Arc::new(Inner { shared, reminders, commands, stop })))
    }

    /// The set that serves now. Hold on to it for as long as one request or one batch lasts.
    #[must_use]
    pub fn pin(&self) -> Arc<PluginSet> {
        self.0.shared.set.load_full()
    }

    /// Every file of the folder and what became of it.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        self.0.shared.status.load().iter().map(status::Reported::now).collect()
    }

    /// What each plugin did since the gateway started, by its name for itself and by role.
    #[must_use]
    pub fn meters(&self) -> Vec<PluginMeter> {
        self.0.shared.meters.snapshot()
    }

    /// Looks at the whole folder now and tries again what was refused. Returns when that is done: call it where waiting is
    /// no harm.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, or the host is stopping. A file that is refused is no error.
    pub fn rescan(&self) -> Result<(), PluginHostError> {
        self.command(Command::Rescan).unwrap_or(Err(PluginHostError::Busy))
    }

    /// The file that is meant by its name or by that of the plugin that serves from it. What neither names is taken for a file.
    ///
    /// # Errors
    ///
    /// When several files serve the plugin.
    pub fn file_of(&self, file_or_plugin: &str) -> Result<String, ControlError> {
        let set = self.pin();
        let found = set.find(file_or_plugin);
        if self.0.shared.status.load().iter().any(|r| r.status.file == file_or_plugin) {
            return Ok(file_or_plugin.to_owned());
        }
        match found[..] {
            [] => Ok(file_or_plugin.to_owned()),
            [member] => Ok(member.file.to_string()),
            _ => Err(ControlError::ambiguous(file_or_plugin, &found)),
        }
    }

    /// Has nothing serve from a file, named by itself or by its plugin, now and after a restart, until it is enabled.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is done but could not be written down.
    pub fn disable(&self, file: &str) -> Result<(), ControlError> {
        let file = self.file_of(file)?;
        self.command(|answer| Command::Disable(file, answer))?
    }

    /// Allows a file again that was disabled, and contents of it that were rolled back from.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is done but could not be written down.
    pub fn enable(&self, file: &str) -> Result<(), ControlError> {
        let file = self.file_of(file)?;
        self.command(|answer| Command::Enable(file, answer))?
    }

    /// Has the content serve again that served from a file before the present one. The present one is not used again, also
    /// after a restart, until [`PluginHost::enable`] allows it; any other content of the file is.
    ///
    /// # Errors
    ///
    /// When there is no such file, or nothing to go back to, or that cannot serve now.
    pub fn roll_back(&self, file: &str) -> Result<PluginStatus, ControlError> {
        let file = self.file_of(file)?;
        self.command(|answer| Command::RollBack(file, answer))?
    }

    /// What a cost model, named by its file or by itself, says of a request. It is on no bill and in no figures, whatever
    /// the plugin's `match` and breaker say.
    ///
    /// # Errors
    ///
    /// When no such plugin serves, or several do, or it is no cost model.
    pub fn try_price(
        &self,
        file_or_plugin: &str,
        tenant: Option<&str>,
        usage: &Usage,
    ) -> Result<CostOutcome, ControlError> {
        let set = self.pin();
        let named = || file_or_plugin.to_owned();
        let found = set.find(file_or_plugin);
        if found.len() > 1 {
            return Err(ControlError::ambiguous(file_or_plugin, &found));
        }
        let Some(member) = found.first() else {
            let is_known = self.0.shared.status.load().iter().any(|r| r.status.file == named());
            return Err(if is_known {
                ControlError::NotACostModel { name: named() }
            } else {
                ControlError::Unknown { name: named() }
            });
        };
        if !member.loaded.has(Role::CostModel) {
            return Err(ControlError::NotACostModel { name: named() });
        }
        Ok(price::one(&member.loaded, tenant, usage, true))
    }

    /// Hands a command to the watcher's thread and waits for its answer.
    fn command<R>(
        &self,
        command: impl FnOnce(SyncSender<R>) -> Command,
    ) -> Result<R, ControlError> {
        let ((answer, answered), claim) = (mpsc::sync_channel(1), Claim::default());
        let order = Order { command: command(answer), claim: claim.clone() };
        self.0.commands.try_send(order).map_err(|_| ControlError::Busy)?;
        // One that waits already will do.
        let _ = self.0.reminders.try_send(Reminder);
        control::answer(&answered, &claim, control::PATIENCE)
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").field("set", &self.pin()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Not joined: it may be compiling, and nobody waits for that at shutdown.
        self.stop.store(true, Ordering::Release);
        let _ = self.reminders.try_send(Reminder);
    }
}
