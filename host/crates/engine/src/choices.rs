//! Several answers to one prompt, or to one each of several texts, read as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

use crate::Event;

/// What is under way for one request, each part by its number. Dropping it cancels all.
#[derive(Debug)]
pub struct Choices {
    events: mpsc::Receiver<(usize, Event)>,
    cancelled: Arc<AtomicBool>,
    count: usize,
    /// How many have not ended.
    open: usize,
}

/// Where one part of a request tells what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    number: usize,
    events: mpsc::Sender<(usize, Event)>,
    cancelled: Arc<AtomicBool>,
}

impl Choices {
    /// So many parts, which tell at most `most` events together; and an outlet for each.
    pub(crate) fn new(count: usize, most: usize) -> (Self, impl Iterator<Item = Outlet>) {
        let (sender, events) = mpsc::channel(most.max(1));
        let cancelled = Arc::new(AtomicBool::new(false));
        let choices = Self { events, cancelled: Arc::clone(&cancelled), count, open: count };
        let outlet = move |number| {
            let (events, cancelled) = (sender.clone(), Arc::clone(&cancelled));
            Outlet { number, events, cancelled }
        };
        (choices, (0..count).map(outlet))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What happens next, and to which; each ends with an `Ended` of its own. `None` after the last
    /// of these. Without an event: the engine's thread died.
    pub async fn next(&mut self) -> Option<(usize, Option<Event>)> {
        if self.open == 0 {
            return None;
        }
        let Some((number, event)) = self.events.recv().await else {
            self.open = 0;
            return Some((0, None));
        };
        if matches!(event, Event::Ended { .. }) {
            self.open -= 1;
        }
        Some((number, Some(event)))
    }

    /// Asks the engine to stop all of them at the next token. Each still tells its `Ended`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Outlet {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The channel has room for a whole answer, so this fails only if nobody listens any more.
    pub(crate) fn emit(&self, event: Event) {
        if self.events.try_send((self.number, event)).is_err() {
            self.cancel();
        }
    }
}
