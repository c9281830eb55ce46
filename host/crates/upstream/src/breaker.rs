//! Keeps a backend that goes on failing from being asked, for a while that grows.
//!
//! Closed -> as many faults in the window as the settings say, and they are half of all attempts -> open for a pause ->
//! half-open: one attempt -> closed if it succeeds, else open for twice as long. [`Machine`] is all of that, pure, with the
//! time as an argument.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tollgate_domain::BreakerState;

use crate::config::BreakerSettings;

/// Parts of the window, each forgotten as a whole.
const SLICES: usize = 8;
/// A probe whose result has not come for so long is given up, and another may be made.
const PROBE: Duration = Duration::from_secs(600);

/// What an attempt is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// One of many.
    Ordinary,
    /// The one that decides.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Duration,
    },
    /// Somebody makes the probe, until then.
    HalfOpen {
        taken_until: Option<Duration>,
    },
}

/// One breaker. Times are since any origin, the same in every call.
#[derive(Debug)]
struct Machine {
    settings: BreakerSettings,
    state: State,
    /// Successes and faults in each part of the window.
    slices: [(u64, u64); SLICES],
    /// Which part it is that is filled now, counted from the origin.
    current: u128,
    next_pause: Duration,
}

impl Machine {
    fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            slices: [(0, 0); SLICES],
            current: 0,
            next_pause: settings.pause,
        }
    }

    /// Whether an attempt may be made, or how long it may not.
    fn admit(&mut self, now: Duration) -> Result<Pass, Duration> {
        match self.state {
            State::Closed => return Ok(Pass::Ordinary),
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { taken_until: Some(until) } if now < until => {
                return Err(self.settings.pause);
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.state = State::HalfOpen { taken_until: Some(now + PROBE) };
        Ok(Pass::Probe)
    }

    fn succeeded(&mut self, pass: Pass, now: Duration) {
        match (self.state, pass) {
            (State::Closed, _) => self.slice(now).0 += 1,
            (State::HalfOpen { .. }, Pass::Probe) => {
                self.state = State::Closed;
                self.slices = [(0, 0); SLICES];
                self.next_pause = self.settings.pause;
            }
            _ => {}
        }
    }

    /// Whether it opened. Of attempts that were under way when it opened nothing is counted.
    fn failed(&mut self, pass: Pass, now: Duration) -> bool {
        match (self.state, pass) {
            (State::Closed, _) => {
                self.slice(now).1 += 1;
                let (good, bad) = self
                    .slices
                    .iter()
                    .fold((0, 0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1));
                if bad < u64::from(self.settings.faults) || bad < good {
                    return false;
                }
            }
            (State::HalfOpen { .. }, Pass::Probe) => {}
            _ => return false,
        }
        self.state = State::Open { until: now + self.next_pause };
        self.slices = [(0, 0); SLICES];
        self.next_pause = self.next_pause.saturating_mul(2).min(self.settings.longest_pause);
        true
    }

    /// An attempt that nobody waited for: it tells nothing.
    fn released(&mut self, pass: Pass) {
        if pass == Pass::Probe && matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::HalfOpen { taken_until: None };
        }
    }

    fn state(&self, now: Duration) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open { wait: until - now },
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// The part of the window that `now` is in; those that are too old are forgotten.
    fn slice(&mut self, now: Duration) -> &mut (u64, u64) {
        let length = (self.settings.window.as_nanos() / SLICES as u128).max(1);
        let current = now.as_nanos() / length;
        let passed = current.saturating_sub(self.current).min(SLICES as u128);
        for step in 0..passed {
            *self.at(current - step) = (0, 0);
        }
        self.current = self.current.max(current);
        self.at(current)
    }

    fn at(&mut self, slice: u128) -> &mut (u64, u64) {
        let place = usize::try_from(slice % SLICES as u128).unwrap_or_default();
        #[expect(clippy::indexing_slicing, reason = "the remainder of a division by its length")]
        &mut self.slices[place]
    }
}

/// One breaker, shared.
#[derive(Debug)]
pub(crate) struct Breaker {
    origin: Instant,
    guarded: Mutex<Guarded>,
}

#[derive(Debug)]
struct Guarded {
    machine: Machine,
    openings: u64,
}

/// Permission for one attempt. Dropped without a result, it tells nothing.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    /// None once the result is told.
    pass: Option<Pass>,
}

impl Breaker {
    /// Closed.
    pub fn new(settings: BreakerSettings) -> Self {
        let guarded = Guarded { machine: Machine::new(settings), openings: 0 };
        Self { origin: Instant::now(), guarded: Mutex::new(guarded) }
    }

    /// Whether an attempt may be made, or how long it may not.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Duration> {
        let pass = self.lock().machine.admit(self.origin.elapsed())?;
        Ok(Permit { breaker: Arc::clone(self), pass: Some(pass) })
    }

    /// A fault after the attempt had succeeded. Whether it opened.
    pub fn failed_later(&self) -> bool {
        self.failed(Pass::Ordinary)
    }

    /// How it stands, and how often it has opened.
    pub fn state(&self) -> (BreakerState, u64) {
        let guarded = self.lock();
        (guarded.machine.state(self.origin.elapsed()), guarded.openings)
    }

    fn failed(&self, pass: Pass) -> bool {
        let mut guarded = self.lock();
        let opened = guarded.machine.failed(pass, self.origin.elapsed());
        guarded.openings += u64::from(opened);
        opened
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The backend answered.
    pub fn succeeded(mut self) {
        if let Some(pass) = self.pass.take() {
            self.breaker.lock().machine.succeeded(pass, self.breaker.origin.elapsed());
        }
    }

    /// It did not. Whether the breaker opened by it.
    pub fn failed(mut self) -> bool {
        self.pass.take().is_some_and(|pass| self.breaker.failed(pass))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.breaker.lock().machine.released(pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: BreakerSettings = BreakerSettings {
        faults: 3,
        window: Duration::from_secs(8),
        pause: Duration::from_secs(1),
        longest_pause: Duration::from_secs(4),
    };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_opens_half_opens_and_closes() {
        let mut machine = Machine::new(SETTINGS);
        for _ in 0..2 {
            assert!(!machine.failed(Pass::Ordinary, secs(1)));
        }
        assert!(machine.failed(Pass::Ordinary, secs(2)));
        assert_eq!(machine.admit(secs(2)), Err(secs(1)));
        assert_eq!(machine.admit(secs(3)), Ok(Pass::Probe));
        assert!(machine.admit(secs(3)).is_err(), "one probe at a time");
        assert!(machine.failed(Pass::Probe, secs(3)));
        assert_eq!(machine.admit(secs(4)), Err(secs(1)), "the pause has doubled");
        assert_eq!(machine.admit(secs(5)), Ok(Pass::Probe));
        machine.released(Pass::Probe);
        assert_eq!(machine.admit(secs(5)), Ok(Pass::Probe), "a probe that told nothing");
        machine.succeeded(Pass::Probe, secs(5));
        assert_eq!(machine.admit(secs(5)), Ok(Pass::Ordinary));
    }

    #[test]
    fn faults_among_many_successes_do_not_open_it() {
        let mut machine = Machine::new(SETTINGS);
        for _ in 0..100 {
            machine.succeeded(Pass::Ordinary, secs(1));
        }
        for _ in 0..99 {
            assert!(!machine.failed(Pass::Ordinary, secs(2)));
        }
        assert!(machine.failed(Pass::Ordinary, secs(2)));
    }

    #[test]
    fn old_faults_are_forgotten() {
        let mut machine = Machine::new(SETTINGS);
        for second in [0, 1, 9, 10, 30, 40] {
            assert!(!machine.failed(Pass::Ordinary, secs(second)), "at {second}");
        }
    }

    proptest! {
        #[test]
        fn it_comes_back_whatever_happened(
            steps in prop::collection::vec((0_u64..3000, 0_u8..4), 0..200),
        ) {
            let mut machine = Machine::new(SETTINGS);
            let mut now = Duration::ZERO;
            for (ms, act) in steps {
                now += Duration::from_millis(ms);
                match (machine.admit(now), act) {
                    (Ok(pass), 0 | 1) => { machine.failed(pass, now); }
                    (Ok(pass), 2) => machine.succeeded(pass, now),
                    (Ok(pass), _) => machine.released(pass),
                    (Err(wait), _) => prop_assert!(wait <= SETTINGS.longest_pause),
                }
            }
            now += PROBE;
            let pass = machine.admit(now).unwrap();
            machine.succeeded(pass, now);
            prop_assert_eq!(machine.admit(now), Ok(Pass::Ordinary));
        }
    }
}
