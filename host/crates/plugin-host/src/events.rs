//! Events from the plugin folder, also when it is taken away and comes back.
//!
//! What the system watches is a folder and not its name: when another folder gets the name, by a mount, a rename or a link
//! that is changed, no event says so. So whoever waits for events asks for [`Events::renew`] before each look.

use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::folder::{self, Identity};
use crate::watch::Reminder;

/// Sends a reminder when something happens in a folder.
pub(crate) struct Events {
    folder: PathBuf,
    sender: SyncSender<Reminder>,
    watched: Option<Watched>,
    /// Whether the log has it that there are none.
    told: bool,
}

struct Watched {
    identity: Option<Identity>,
    _watcher: RecommendedWatcher,
}

impl Events {
    /// Watches nothing until it is renewed.
    pub fn new(folder: &Path, sender: SyncSender<Reminder>) -> Self {
        Self { folder: folder.to_owned(), sender, watched: None, told: false }
    }

    /// Watches the folder that has the name now. Does nothing while it is the one that is watched already. Answers whether
    /// there is a folder of that name.
    pub fn renew(&mut self) -> bool {
        let identity = folder::identity(&self.folder);
        if self.watched.as_ref().is_some_and(|watched| watched.identity == identity) {
            return true;
        }
        self.watched = None;
        if identity.is_none() {
            return false;
        }
        match watcher(&self.folder, self.sender.clone()) {
            Ok(watcher) => {
                self.watched = Some(Watched { identity, _watcher: watcher });
                self.told = false;
            }
            Err(error) => {
                if !self.told {
                    tracing::warn!(%error, "no events from the plugin folder: only timed scans see changes");
                }
                self.told = true;
            }
        }
        true
    }
}

fn watcher(folder: &Path, sender: SyncSender<Reminder>) -> notify::Result<RecommendedWatcher> {
    let remind = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| is_reading(event.kind)) {
            let _ = sender.try_send(Reminder);
        }
    };
    let mut watcher = notify::recommended_watcher(remind)?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Our own reading is an event too.
fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access != AccessKind::Close(AccessMode::Write),
        _ => false,
    }
}
