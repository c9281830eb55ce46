//! Keeps a plugin that goes on failing from being asked, for a while that grows.
//!
//! Closed -> five faults in thirty seconds -> open for a second -> half-open: one call -> closed if it succeeds, else open
//! for twice as long, up to five minutes. Ten minutes without a fault and the next pause is a second again. [`Machine`]
//! is all of that, pure, with the time as an argument; [`Breaker`] shares one between threads and costs one load while it
//! is closed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tollgate_domain::{BreakerState, FaultKind};

use crate::error::CallFault;

/// As many faults within [`WINDOW`] open it.
const FAULTS: usize = 5;
const WINDOW: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After as long without a fault the next pause is the first again.
const GOOD_RUN: Duration = Duration::from_secs(600);
/// A probe whose result has not come for so long is given up, and another may be made.
const PROBE: Duration = Duration::from_secs(60);

/// What an admitted call is to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
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
    /// Somebody has the one call until then: a request that was admitted for it, or the call itself.
    HalfOpen {
        taken_until: Duration,
        probing: bool,
    },
}

/// One breaker. Times are since any origin, the same in every call.
#[derive(Debug)]
struct Machine {
    state: State,
    /// The latest faults while closed, oldest first; fewer than [`FAULTS`].
    recent: VecDeque<Duration>,
    next_pause: Duration,
    /// The latest fault, or when it closed.
    trouble: Duration,
}

impl Machine {
    fn new() -> Self {
        Self {
            state: State::Closed,
            recent: VecDeque::with_capacity(FAULTS),
            next_pause: FIRST_PAUSE,
            trouble: Duration::ZERO,
        }
    }

    /// Whether a call may be made, or how long it may not.
    fn admit(&mut self, now: Duration) -> Result<Pass, Duration> {
        match self.state {
            State::Closed => return Ok(Pass::Ordinary),
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { taken_until, probing: true } if now < taken_until => {
                return Err(FIRST_PAUSE);
            }
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.state = State::HalfOpen { taken_until: now + PROBE, probing: true };
        Ok(Pass::Probe)
    }

    /// Whether a request that will make a call later may come in, or how long it may not. When the pause is over one is
    /// let in to make the probe.
    fn admit_request(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            State::Closed => return Ok(()),
            State::Open { until } if now < until => return Err(until - now),
            State::HalfOpen { taken_until, .. } if now < taken_until => return Err(FIRST_PAUSE),
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
        self.state = State::HalfOpen { taken_until: now + PROBE, probing: false };
        Ok(())
    }

    fn succeeded(&mut self, pass: Pass, now: Duration) {
        if pass == Pass::Probe && matches!(self.state, State::HalfOpen { .. }) {
            self.state = State::Closed;
            self.recent.clear();
            self.trouble = self.trouble.max(now);
        }
    }

    /// Whether it opened. Of calls that were under way when it opened nothing is counted.
    fn failed(&mut self, pass: Pass, now: Duration) -> bool {
        match (self.state, pass) {
            (State::Closed, _) => {
                if now.saturating_sub(self.trouble) >= GOOD_RUN {
                    self.next_pause = FIRST_PAUSE;
                }
                self.recent.retain(|at| now.saturating_sub(*at) < WINDOW);
                self.recent.push_back(now);
                self.trouble = self.trouble.max(now);
                if self.recent.len() < FAULTS {
                    return false;
                }
            }
            (State::HalfOpen { .. }, Pass::Probe) => self.trouble = self.trouble.max(now),
            (State::HalfOpen { .. }, Pass::Ordinary) | (State::Open { .. }, _) => return false,
        }
        self.recent.clear();
        self.state = State::Open { until: now + self.next_pause };
        self.next_pause = self.next_pause.saturating_mul(2).min(LONGEST_PAUSE);
        true
    }
}

/// One breaker, shared.
pub(crate) struct Breaker {
    /// Whether calls need not look further.
    closed: AtomicBool,
    origin: Instant,
    guarded: Mutex<Guarded>,
}

struct Guarded {
    machine: Machine,
    last_fault: String,
    openings: u64,
}

/// A call that is not made.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// When another try makes sense.
    pub wait: Duration,
    pub fault: CallFault,
}

impl Breaker {
    /// Closed.
    pub fn new() -> Self {
        let guarded = Guarded { machine: Machine::new(), last_fault: String::new(), openings: 0 };
        Self { closed: AtomicBool::new(true), origin: Instant::now(), guarded: Mutex::new(guarded) }
    }

    /// Whether a call may be made.
    pub fn admit(&self) -> Result<Pass, Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(Pass::Ordinary);
        }
        let mut guarded = self.lock();
        let admitted = guarded.machine.admit(self.now());
        admitted.map_err(|wait| guarded.refused(wait))
    }

    /// Whether a request that will make a call later may come in.
    pub fn admit_request(&self) -> Result<(), Refused> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut guarded = self.lock();
        let admitted = guarded.machine.admit_request(self.now());
        admitted.map_err(|wait| guarded.refused(wait))
    }

    /// A call that was let through went well.
    pub fn succeeded(&self, pass: Pass) {
        if pass == Pass::Probe {
            let mut guarded = self.lock();
            guarded.machine.succeeded(pass, self.now());
            self.closed.store(guarded.machine.state == State::Closed, Ordering::Release);
        }
    }

    /// It failed; whether that opened the breaker.
    pub fn failed(&self, pass: Pass, fault: &CallFault) -> bool {
        let mut guarded = self.lock();
        let opened = guarded.machine.failed(pass, self.now());
        if opened {
            guarded.last_fault = fault.to_string();
            guarded.openings += 1;
        }
        self.closed.store(guarded.machine.state == State::Closed, Ordering::Release);
        opened
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        let (state, now) = (self.lock().machine.state, self.now());
        match state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open { wait: until - now },
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// The fault that opened it last; empty if it never was open.
    pub fn last_fault(&self) -> String {
        self.lock().last_fault.clone()
    }

    /// How often it has opened.
    pub fn openings(&self) -> u64 {
        self.lock().openings
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl Guarded {
    fn refused(&self, wait: Duration) -> Refused {
        let message = format!(
            "it is not asked, since it failed too often; the last time: {}",
            self.last_fault
        );
        Refused { wait, fault: CallFault::new(FaultKind::BreakerOpen, message) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn opened_at(now: Duration) -> Machine {
        let mut machine = Machine::new();
        for n in 1..=FAULTS {
            assert_eq!(machine.failed(Pass::Ordinary, now), n == FAULTS);
        }
        machine
    }

    #[test]
    fn pauses_double_and_end_with_one_good_call() {
        let mut now = secs(100);
        let mut machine = opened_at(now);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            let pause = machine.admit(now).unwrap_err();
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(machine.admit(now), Ok(Pass::Probe));
            assert!(machine.admit(now).is_err(), "one call only");
            assert!(!machine.failed(Pass::Ordinary, now), "an older call decides nothing");
            assert!(machine.failed(Pass::Probe, now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        now += secs(300);
        assert_eq!(machine.admit(now), Ok(Pass::Probe));
        machine.succeeded(Pass::Probe, now);
        assert_eq!(machine.admit(now), Ok(Pass::Ordinary));
        // The next time it opens it is for long again, unless it ran well for long.
        for (good, pause) in [(secs(1), LONGEST_PAUSE), (GOOD_RUN, FIRST_PAUSE)] {
            let mut later = now + good;
            for n in 1..=FAULTS {
                assert_eq!(machine.failed(Pass::Ordinary, later), n == FAULTS);
            }
            assert_eq!(machine.admit(later), Err(pause));
            later += pause;
            assert_eq!(machine.admit(later), Ok(Pass::Probe));
            machine.succeeded(Pass::Probe, later);
            now = later;
        }
    }

    #[test]
    fn faults_far_apart_do_not_add_up() {
        let mut machine = Machine::new();
        for n in 0..1000 {
            assert!(!machine.failed(Pass::Ordinary, secs(8 * n)), "fault {n}");
        }
    }

    #[test]
    fn one_request_is_let_in_to_make_the_probe() {
        let mut machine = opened_at(secs(1));
        assert_eq!(machine.admit_request(secs(1)), Err(FIRST_PAUSE));
        assert_eq!(machine.admit_request(secs(2)), Ok(()));
        assert!(machine.admit_request(secs(3)).is_err());
        assert_eq!(machine.admit(secs(4)), Ok(Pass::Probe));
        assert!(machine.admit(secs(5)).is_err());
        // One that is never heard of again does not keep it half-open for ever.
        assert_eq!(machine.admit_request(secs(5) + PROBE), Ok(()));
        assert_eq!(machine.admit(secs(6) + PROBE), Ok(Pass::Probe));
        machine.succeeded(Pass::Probe, secs(7) + PROBE);
        assert_eq!(machine.admit_request(secs(7) + PROBE), Ok(()));
    }

    #[test]
    fn threads_see_it_open_and_why() {
        let breaker = Breaker::new();
        let fault = CallFault::new(FaultKind::Trap, "it trapped");
        for n in 1..=FAULTS {
            assert_eq!(breaker.admit().unwrap(), Pass::Ordinary);
            assert_eq!(breaker.failed(Pass::Ordinary, &fault), n == FAULTS);
        }
        let refused = breaker.admit().unwrap_err();
        assert_eq!(refused.fault.kind, FaultKind::BreakerOpen);
        assert!(refused.fault.message.contains("it trapped"), "{}", refused.fault.message);
        assert!(refused.wait <= FIRST_PAUSE);
        assert!(breaker.admit_request().is_err());
        assert!(matches!(breaker.state(), BreakerState::Open { .. }));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Call {
            good: bool,
        },
        /// A call that ends after the next steps.
        Straggler {
            good: bool,
        },
        Request,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..40_000).prop_map(Step::Wait),
            prop::bool::weighted(0.3).prop_map(|good| Step::Call { good }),
            any::<bool>().prop_map(|good| Step::Straggler { good }),
            Just(Step::Request),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn what_always_holds(steps in steps()) {
            let mut machine = Machine::new();
            let mut now = secs(1);
            let mut faults: Vec<Duration> = Vec::new();
            let mut open_until = None;
            let mut straggler: Option<(Pass, bool)> = None;
            for step in steps {
                let ended = match step {
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms);
                        None
                    }
                    Step::Request => {
                        let admitted = machine.admit_request(now);
                        prop_assert!(admitted.is_err() || open_until.is_none_or(|until| now >= until));
                        None
                    }
                    Step::Call { good } => machine.admit(now).ok().map(|pass| (pass, good)),
                    Step::Straggler { good } => {
                        let begun = machine.admit(now).ok().map(|pass| (pass, good));
                        std::mem::replace(&mut straggler, begun)
                    }
                };
                let Some((pass, good)) = ended else { continue };
                if matches!(step, Step::Call { .. }) {
                    prop_assert!(open_until.is_none_or(|until| now >= until), "a call while open");
                }
                let was = machine.state;
                if good {
                    machine.succeeded(pass, now);
                    let decided = pass == Pass::Probe && matches!(was, State::HalfOpen { .. });
                    let expected = if decided { State::Closed } else { was };
                    prop_assert_eq!(machine.state, expected);
                } else {
                    faults.push(now);
                    if machine.failed(pass, now) {
                        let recent = faults.iter().filter(|at| now - **at < WINDOW).count();
                        prop_assert!(pass == Pass::Probe || recent >= FAULTS);
                        let State::Open { until } = machine.state else { panic!("not open") };
                        let pause = until - now;
                        prop_assert!(pause >= FIRST_PAUSE && pause <= LONGEST_PAUSE);
                        open_until = Some(until);
                    }
                }
                prop_assert!(machine.recent.len() < FAULTS);
            }
            // Whatever happened, it comes back by itself: one good call after the longest pause.
            now += LONGEST_PAUSE + PROBE;
            let pass = machine.admit(now).unwrap();
            machine.succeeded(pass, now);
            prop_assert_eq!(machine.admit(now), Ok(Pass::Ordinary));
        }
    }
}
