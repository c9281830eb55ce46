//! The thread that owns the registry: waits for an event or the timer, lets the folder settle, and scans.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};

use crate::folder::{self, Listing};
use crate::registry::Registry;

/// Time between the two looks that must see the same.
const SETTLE: Duration = Duration::from_millis(150);
/// Most looks before a file that never rests is left alone for this time.
const LOOKS: usize = 20;

/// A reminder to look at the folder. One is enough: a second that finds it waiting is dropped.
#[derive(PartialEq, Eq)]
pub(crate) struct Reminder;

/// Runs until `stop`. The first scan is done when `ready` hears of it.
pub(crate) fn run(
    folder: &Path,
    rescan_every: Duration,
    mut registry: Registry,
    reminders: (SyncSender<Reminder>, &Receiver<Reminder>),
    stop: &AtomicBool,
    ready: &SyncSender<()>,
) {
    let (sender, receiver) = reminders;
    // Before the first scan, so that no change falls between the two.
    let _watcher = watcher(folder, sender);
    let mut again = scan(folder, &mut registry, &HashSet::new());
    if ready.send(()).is_err() {
        return;
    }
    loop {
        let patience = if again { SETTLE } else { rescan_every.max(SETTLE) };
        let wait = receiver.recv_timeout(patience);
        if stop.load(Ordering::Acquire) {
            return;
        }
        if wait == Err(RecvTimeoutError::Disconnected) {
            // No watcher, and the handle is gone.
            return;
        }
        registry.obey();
        let unsettled = settle(folder, receiver);
        again = scan(folder, &mut registry, &unsettled);
    }
}

fn scan(folder: &Path, registry: &mut Registry, unsettled: &HashSet<String>) -> bool {
    match folder::list(folder) {
        Ok(listing) => registry.scan(&listing, unsettled),
        Err(error) => {
            // The set that serves goes on serving.
            tracing::error!(folder = %folder.display(), %error, "cannot read the plugin folder");
            registry.answer_waiting(Some(&error));
            registry.obey()
        }
    }
}

/// Looks at the folder until nothing changes between two looks. Answers which files still do.
fn settle(folder: &Path, receiver: &Receiver<Reminder>) -> HashSet<String> {
    let look = || folder::list(folder).unwrap_or_default();
    let mut before = look();
    let mut unsettled = HashSet::new();
    for _ in 0..LOOKS {
        std::thread::sleep(SETTLE);
        // What is about to be looked at needs no further reminder.
        while receiver.try_recv().is_ok() {}
        let after = look();
        unsettled = changed(&before, &after);
        if unsettled.is_empty() {
            break;
        }
        before = after;
    }
    unsettled
}

/// Names that are in both and differ, or only in the later one.
fn changed(before: &Listing, after: &Listing) -> HashSet<String> {
    after
        .iter()
        .filter(|(name, stamp)| before.get(*name) != Some(*stamp))
        .map(|(name, _)| name.clone())
        .collect()
}

fn watcher(folder: &Path, sender: SyncSender<Reminder>) -> Option<notify::RecommendedWatcher> {
    let remind = move |event: notify::Result<notify::Event>| {
        if !event.is_ok_and(|event| is_reading(event.kind)) {
            let _ = sender.try_send(Reminder);
        }
    };
    let watch = || {
        let mut watcher = notify::recommended_watcher(remind)?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok::<_, notify::Error>(watcher)
    };
    watch()
        .inspect_err(|error| {
            tracing::warn!(%error, "no events from the plugin folder: only timed scans see changes");
        })
        .ok()
}

/// Our own reading is an event too.
fn is_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access != AccessKind::Close(AccessMode::Write),
        _ => false,
    }
}
