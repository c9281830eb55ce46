//! How many retries all requests together may make, so that a backend in trouble is not asked twice as much for it.
//!
//! Each request earns a share of a retry. Besides, one retry a second is earned, up to ten, so that little traffic can be
//! retried too. What never reached a server costs nothing: it added no load.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Retries earned a second, and how many of them are kept.
const EACH_SECOND: f64 = 1.0;
const LEAST: f64 = 10.0;
/// How many are kept of what requests earned.
const MOST: f64 = 100.0;

#[derive(Debug)]
pub(crate) struct RetryBudget {
    origin: Instant,
    machine: Mutex<Machine>,
}

/// Pure: times are since any origin.
#[derive(Debug)]
struct Machine {
    balance: f64,
    at: Duration,
}

impl RetryBudget {
    pub fn new() -> Self {
        let machine = Machine { balance: LEAST, at: Duration::ZERO };
        Self { origin: Instant::now(), machine: Mutex::new(machine) }
    }

    /// A request begins; it earns `share` of a retry.
    pub fn request(&self, share: f64) {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.request(share);
    }

    /// Whether a retry may be made; it is paid if so.
    pub fn retry(&self) -> bool {
        let now = self.origin.elapsed();
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).retry(now)
    }
}

impl Machine {
    fn request(&mut self, share: f64) {
        self.balance = (self.balance + share).min(MOST);
    }

    fn retry(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.at).as_secs_f64() * EACH_SECOND;
        self.at = self.at.max(now);
        if self.balance < LEAST {
            self.balance = (self.balance + earned).min(LEAST);
        }
        let paid = self.balance >= 1.0;
        if paid {
            self.balance -= 1.0;
        }
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_earned() {
        let mut machine = Machine { balance: LEAST, at: Duration::ZERO };
        let retries = |machine: &mut Machine, at| (0..1000).filter(|_| machine.retry(at)).count();
        assert_eq!(retries(&mut machine, Duration::ZERO), 10);
        (0..100).for_each(|_| machine.request(0.1));
        assert!((9..=10).contains(&retries(&mut machine, Duration::ZERO)));
        assert!((3..=4).contains(&retries(&mut machine, Duration::from_millis(3500))));
        assert_eq!(retries(&mut machine, Duration::from_secs(3600)), 10);
        (0..1_000_000).for_each(|_| machine.request(0.1));
        assert!((99..=100).contains(&retries(&mut machine, Duration::from_secs(3600))));
    }
}
