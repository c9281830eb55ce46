//! The thread that owns the registry: waits for an event or the timer, lets the folder settle, and scans.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};

use crate::folder::{self, Listing};
use crate::registry::Registry;

/// Time between the two looks that must see the same.
const SETTLE: Duration = Duration::from_millis(150);
/// Most looks before a file that never rests is left alone for this time.
const LOOKS: usize = 20;

/// What the thread is told.
pub(crate) enum Signal {
    /// Something may have changed.
    Look,
    /// Nobody needs the thread any more.
    Stop,
}

/// Runs until told to stop. The first scan is done when `ready` hears of it.
pub(crate) fn run(
    folder: &PathBuf,
    rescan_every: Duration,
    mut registry: Registry,
    signals: (&Sender<Signal>, &Receiver<Signal>),
    ready: &Sender<()>,
) {
    let (sender, receiver) = signals;
    // Before the first scan, so that no change falls between the two.
    let _watcher = watcher(folder, sender.clone());
    let mut again = scan(folder, &mut registry, &HashSet::new());
    if ready.send(()).is_err() {
        return;
    }
    loop {
        let patience = if again { SETTLE } else { rescan_every.max(SETTLE) };
        match receiver.recv_timeout(patience) {
            Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(unsettled) = settle(folder, receiver) else { return };
        again = scan(folder, &mut registry, &unsettled);
    }
}

fn scan(folder: &PathBuf, registry: &mut Registry, unsettled: &HashSet<String>) -> bool {
    match folder::list(folder) {
        Ok(listing) => registry.scan(&listing, unsettled),
        Err(error) => {
            // The set that serves goes on serving.
            tracing::error!(folder = %folder.display(), %error, "cannot read the plugin folder");
            false
        }
    }
}

/// Looks at the folder until nothing changes between two looks. Answers which files still do; none when told to stop.
fn settle(folder: &PathBuf, receiver: &Receiver<Signal>) -> Option<HashSet<String>> {
    let look = || folder::list(folder).unwrap_or_default();
    let mut before = look();
    let mut unsettled = HashSet::new();
    for _ in 0..LOOKS {
        std::thread::sleep(SETTLE);
        // What is about to be looked at needs no further reminder.
        while let Ok(signal) = receiver.try_recv() {
            if matches!(signal, Signal::Stop) {
                return None;
            }
        }
        let after = look();
        unsettled = changed(&before, &after);
        if unsettled.is_empty() {
            break;
        }
        before = after;
    }
    Some(unsettled)
}

/// Names that are in both and differ, or only in the later one.
fn changed(before: &Listing, after: &Listing) -> HashSet<String> {
    after
        .iter()
        .filter(|(name, stamp)| before.get(*name) != Some(*stamp))
        .map(|(name, _)| name.clone())
        .collect()
}

fn watcher(folder: &PathBuf, sender: Sender<Signal>) -> Option<notify::RecommendedWatcher> {
    let watch = || {
        let mut watcher = notify::recommended_watcher(
            move |event: notify::Result<notify::Event>| {
                // Our own reading is an event too.
                let is_reading = |kind: EventKind| matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write));
                if !event.is_ok_and(|event| is_reading(event.kind)) {
                    // The thread may be gone already.
                    let _ = sender.send(Signal::Look);
                }
            },
        )?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok::<_, notify::Error>(watcher)
    };
    watch()
        .inspect_err(|error| {
            tracing::warn!(%error, "no events from the plugin folder: changes are seen at the next timed scan");
        })
        .ok()
}
