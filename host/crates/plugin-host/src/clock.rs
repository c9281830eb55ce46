//! The clock that guests are policed by: it moves the engine's epoch each millisecond while a guest may run, and rests
//! otherwise, so that a gateway without requests leaves the processor alone.
//!
//! Invariants: it is a plain thread, since a runtime that a guest can block must not police the guest; it holds the engine
//! weakly, and ends soon after the last plugin set is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Length of one epoch.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// How often a clock that rests looks whether its engine is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The clock of one engine; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    hands: Arc<Hands>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Hands {
    /// Ticks so far.
    now: AtomicU64,
    /// It rests after this tick: whoever was called by now has been asked once more whether it may go on, or is done.
    until: AtomicU64,
    resting: AtomicBool,
}

impl Clock {
    /// Begins to move `engine`'s epoch.
    pub fn start(engine: &Engine) -> io::Result<Self> {
        let (hands, engine) = (Arc::new(Hands::default()), engine.weak());
        let theirs = Arc::clone(&hands);
        let moving = thread::Builder::new().name("tollgate-epoch".to_owned());
        let moving = moving.spawn(move || theirs.run(&engine))?;
        Ok(Self { hands, thread: moving.thread().clone() })
    }

    /// Sees to it that it moves for so many ticks from now on, and one that is under way.
    pub fn run_for(&self, ticks: u64) {
        let hands = &*self.hands;
        let until = hands.now.load(Ordering::Relaxed).saturating_add(ticks).saturating_add(1);
        // Most calls come while it moves for one before them, and cost two looks.
        if hands.until.load(Ordering::Relaxed) < until {
            hands.until.fetch_max(until, Ordering::SeqCst);
            if hands.resting.load(Ordering::SeqCst) {
                self.thread.unpark();
            }
        }
    }
}

impl Hands {
    fn run(&self, engine: &EngineWeak) {
        loop {
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.resting.store(true, Ordering::SeqCst);
            // Whoever calls after this look finds it resting, and wakes it.
            while self.until.load(Ordering::SeqCst) < now {
                thread::park_timeout(LOOK);
                if engine.upgrade().is_none() {
                    return;
                }
            }
            self.resting.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn moves_on(clock: &Clock, ticks: u64) {
        let (before, began) = (clock.hands.now.load(Ordering::Relaxed), Instant::now());
        clock.run_for(ticks);
        while clock.hands.now.load(Ordering::Relaxed) < before + ticks {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not move");
            thread::sleep(TICK);
        }
    }

    #[test]
    fn it_rests_until_something_is_called_and_moves_for_as_long_as_that_may_take() {
        let engine = Engine::default();
        let clock = Clock::start(&engine).unwrap();
        for ticks in [3, 20, 1] {
            moves_on(&clock, ticks);
            let began = Instant::now();
            loop {
                let before = clock.hands.now.load(Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
                if clock.hands.now.load(Ordering::Relaxed) == before {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "it does not rest");
            }
        }
        let hands = Arc::downgrade(&clock.hands);
        drop((engine, clock));
        let began = Instant::now();
        while hands.upgrade().is_some() {
            assert!(began.elapsed() < Duration::from_secs(30), "it outlives its engine");
            thread::sleep(TICK);
        }
    }
}
