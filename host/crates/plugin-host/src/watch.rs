//! The thread that owns the registry: waits for an event or the timer, lets the folder settle, and scans.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use crate::events::Events;
use crate::folder::{self, Listing};
use crate::registry::Registry;

/// Time between the two looks that must see the same.
const SETTLE: Duration = Duration::from_millis(150);
/// Most looks before a file that never rests is left alone for this time.
const LOOKS: usize = 20;

/// How often a folder that is not there is looked for.
const ABSENT: Duration = Duration::from_secs(1);

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
    let mut events = Events::new(folder, sender);
    // Before the first scan, so that no change falls between the two.
    events.renew();
    let mut readable = true;
    let mut due = scan(folder, &mut registry, &HashSet::new(), &mut readable);
    if ready.send(()).is_err() {
        return;
    }
    loop {
        let patience = due.unwrap_or(rescan_every).max(SETTLE);
        let wait = receiver.recv_timeout(patience);
        if stop.load(Ordering::Acquire) {
            return;
        }
        if wait == Err(RecvTimeoutError::Disconnected) {
            // No watcher, and the handle is gone.
            return;
        }
        registry.obey();
        events.renew();
        let unsettled = settle(folder, receiver);
        // It may have been exchanged in the meantime, and what is to come after the scan needs events.
        let there = events.renew();
        due = scan(folder, &mut registry, &unsettled, &mut readable);
        if !there {
            due.get_or_insert(ABSENT);
        }
    }
}

/// Answers after what time another scan is due, if not after the usual one. `readable`: whether the last one could read
/// the folder.
fn scan(
    folder: &Path,
    registry: &mut Registry,
    unsettled: &HashSet<String>,
    readable: &mut bool,
) -> Option<Duration> {
    let was_readable = *readable;
    let listing = folder::list(folder);
    *readable = listing.is_ok();
    match listing {
        Ok(listing) => {
            if !was_readable {
                tracing::info!(folder = %folder.display(), "the plugin folder can be read again");
            }
            registry.scan(&listing, unsettled).then_some(SETTLE)
        }
        Err(error) => {
            // The set that serves goes on serving.
            if was_readable {
                tracing::error!(folder = %folder.display(), %error, "cannot read the plugin folder");
            }
            let waiting = std::mem::take(&mut registry.waiting);
            registry.answer_waiting(waiting, Some(&error));
            Some(if registry.obey() { SETTLE } else { ABSENT })
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
