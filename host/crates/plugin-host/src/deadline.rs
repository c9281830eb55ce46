//! How long a call may take.
//!
//! Epochs count wall time, and a thread can wait longer than a deadline for its turn on a busy machine. A plugin is not to
//! blame for that, so only the first half of a deadline is wall time: when it is over, the second half is measured in
//! processor time of the thread. That costs nothing on calls that end in time, which is all of them but the bad ones.

use std::time::Duration;

use wasmtime::UpdateDeadline;

use crate::clock::TICK;

/// Most extensions of half a deadline each: bounds a call to about twenty deadlines of wall time.
const EXTENSIONS: u32 = 38;

/// The deadline of the call that an instance is in.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    half_ticks: u64,
    extensions: u32,
    processor_at_half: Option<Duration>,
}

impl Deadline {
    /// Begins a call of at most `budget`. Answers in how many ticks to ask [`Deadline::expired`].
    pub fn begin(&mut self, budget: Duration) -> u64 {
        self.half_ticks = ticks(budget / 2);
        self.extensions = EXTENSIONS;
        self.processor_at_half = None;
        // One more, since the current tick is partly over.
        self.half_ticks.saturating_add(1)
    }

    /// The ticks are over: whether to go on.
    pub fn expired(&mut self) -> UpdateDeadline {
        let Some(now) = processor_time() else { return UpdateDeadline::Interrupt };
        let Some(since) = self.processor_at_half else {
            self.processor_at_half = Some(now);
            return UpdateDeadline::Continue(self.half_ticks);
        };
        let used = ticks(now.saturating_sub(since));
        if used >= self.half_ticks || self.extensions == 0 {
            return UpdateDeadline::Interrupt;
        }
        self.extensions -= 1;
        UpdateDeadline::Continue(self.half_ticks.saturating_sub(used).max(1))
    }
}

fn ticks(length: Duration) -> u64 {
    let ticks = length.as_micros() / TICK.as_micros().max(1);
    u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
}

/// Processor time of this thread, where the system tells.
#[cfg(unix)]
fn processor_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(not(unix))]
fn processor_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_blamed_but_bounded() {
        let mut deadline = Deadline::default();
        assert_eq!(deadline.begin(Duration::from_millis(20)), 11);
        let mut answers = 0_u32;
        // This thread hardly works between the answers, so every one extends until none is left.
        while matches!(deadline.expired(), UpdateDeadline::Continue(_)) {
            answers += 1;
            assert!(answers <= EXTENSIONS + 1);
        }
        assert!(answers >= 1);
    }
}
