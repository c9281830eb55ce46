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
mod cache;
mod child;
mod compile;
mod deadline;
mod describe;
mod engine;
mod error;
mod events;
mod folder;
mod gate;
mod inspect;
mod instance;
mod interface;
mod keeping;
mod lift;
mod limits;
mod loaded;
mod log;
mod lower;
mod manifest;
mod price;
mod registry;
mod schema;
mod set;
mod signature;
mod spans;
#[cfg_attr(not(test), expect(dead_code, reason = "the registry is about to keep and hold by it"))]
mod state;
mod steps;
#[cfg(test)]
mod testing;
mod wasi;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};

use arc_swap::ArcSwap;

pub use crate::child::run_compiler;
use crate::engine::Runtime;
pub use crate::error::{CallFault, PluginHostError, chain};
pub use crate::inspect::{Inspection, Rejection, inspect, inspect_in_folder};
pub use crate::limits::{Compiler, Limits, PluginHostSettings};
pub use crate::loaded::Role;
pub use crate::registry::{PluginRefusal, PluginStatus};
use crate::registry::{Registry, Shared};
pub use crate::set::PluginSet;
pub use crate::signature::{KeyError, TrustedKey};
pub use crate::spans::Filtered;
pub use crate::steps::{Step, StepTaken};
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
    stop: Arc<AtomicBool>,
}

impl PluginHost {
    /// Loads what is in the folder and begins to watch it. A file that cannot be used is reported by
    /// [`PluginHost::status`] and in the log, and is no error.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read, what is kept cannot be kept where it should, or the engine cannot start.
    pub fn start(settings: PluginHostSettings) -> Result<Self, PluginHostError> {
        folder::list(&settings.folder).map_err(|source| PluginHostError::Folder {
            folder: settings.folder.display().to_string(),
            source,
        })?;
        let runtime = Runtime::start(&settings)?;
        let first = PluginSet::new(0, Vec::new(), Arc::clone(&runtime.limits));
        let shared = Arc::new(Shared {
            set: ArcSwap::from_pointee(first),
            status: ArcSwap::from_pointee(Vec::new()),
        });
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
                let registry = Registry::new(settings, runtime, of_registry);
                watch::run(&folder, every, registry, (sender, &receiver), &stopped, &ready);
            })
            .map_err(|error| broken(Box::new(error)))?;
        loaded.recv().map_err(|_| broken("the watcher's thread ended".into()))?;
        Ok(Self(Arc::new(Inner { shared, reminders, stop })))
    }

    /// The set that serves now. Hold on to it for as long as one request or one batch lasts.
    #[must_use]
    pub fn pin(&self) -> Arc<PluginSet> {
        self.0.shared.set.load_full()
    }

    /// Every file of the folder and what became of it.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        self.0.shared.status.load().to_vec()
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
