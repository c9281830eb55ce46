//! How long a call took, for a few nanoseconds.

use std::sync::LazyLock;

/// The processor's own counter where it can be trusted, since two looks at the system's clock would cost more than all the
/// counting. Measuring its speed takes 10 to 200 ms, once.
static CLOCK: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// Has the clock measured before the first call needs it.
pub(crate) fn calibrate() {
    LazyLock::force(&CLOCK);
}

/// How long something takes. A later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stopwatch(u64);

impl Stopwatch {
    /// Begins now.
    pub fn start() -> Self {
        Self(CLOCK.raw())
    }

    /// Time until another one began.
    pub fn nanos_until(self, later: Self) -> u64 {
        CLOCK.delta_as_nanos(self.0, later.0)
    }

    /// Time since it began.
    pub fn nanos(self) -> u64 {
        self.nanos_until(Self::start())
    }
}
