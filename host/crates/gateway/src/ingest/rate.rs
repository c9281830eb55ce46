//! How much each sender may send: bytes a minute, whatever they are of, since bytes are what the ledger
//! keeps.
//!
//! A sender is a key, and all without one together. Over any stretch of time none gets more in than a
//! minute's worth, what flows out meanwhile, and one request: that is taken while anything is left of
//! the minute's worth, however large it is, so that no request waits for ever. What is refused costs
//! nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As much as this may come at once.
const BURST: Duration = Duration::from_secs(60);

/// Shortest wait that a sender is told.
const SHORTEST: Duration = Duration::from_secs(1);

/// Senders that are known. Policy when there are more: those that owe nothing are *forgotten*, which
/// changes nothing for them.
const SENDERS: usize = 1024;

/// What senders have sent lately.
#[derive(Debug)]
pub(super) struct Rate {
    /// None: any number.
    bytes_per_minute: Option<u64>,
    /// When what each has sent will have flown out.
    senders: Mutex<HashMap<Option<String>, Instant>>,
}

impl Rate {
    pub(super) fn new(bytes_per_minute: Option<u64>) -> Self {
        Self { bytes_per_minute, senders: Mutex::default() }
    }

    /// Takes a request of so many bytes of the sender with this key; or how long it is to wait.
    pub(super) fn take(
        &self,
        key: Option<&str>,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let Some(per_minute) = self.bytes_per_minute else { return Ok(()) };
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key.map(str::to_owned);
        let owed = senders.get(&key).map_or(Duration::ZERO, |until| until.duration_since(now));
        if owed >= BURST {
            return Err((owed - BURST).max(SHORTEST));
        }
        #[expect(clippy::cast_precision_loss, reason = "a request is at most 16 MiB")]
        let minutes = bytes as f64 / per_minute.max(1) as f64;
        senders.insert(key, now + owed + BURST.mul_f64(minutes));
        if senders.len() > SENDERS {
            senders.retain(|_, until| *until > now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minutes_worth_comes_at_once_and_then_as_it_flows() {
        let (rate, begun) = (Rate::new(Some(600)), Instant::now());
        let after = |milliseconds| begun + Duration::from_millis(milliseconds);
        for _ in 0..6 {
            assert_eq!(rate.take(Some("a"), 100, begun), Ok(()));
        }
        assert_eq!(rate.take(Some("a"), 1, begun), Err(SHORTEST), "the minute's worth is gone");
        assert_eq!(rate.take(None, 1, begun), Ok(()), "another sender");
        // Any size goes while something is left, and is paid for afterwards.
        assert_eq!(rate.take(Some("a"), 300, after(10_000)), Ok(()));
        assert_eq!(rate.take(Some("a"), 1, after(10_000)), Err(Duration::from_secs(20)));
        assert_eq!(rate.take(Some("a"), 1, after(30_100)), Ok(()));
        let free = Rate::new(None);
        assert!((0..100).all(|_| free.take(None, 1 << 30, begun).is_ok()));
    }

    #[test]
    fn who_owes_nothing_is_forgotten() {
        let (rate, begun) = (Rate::new(Some(60)), Instant::now());
        for sender in 0..2000 {
            let now = begun + Duration::from_millis(10 * sender);
            assert_eq!(rate.take(Some(&sender.to_string()), 1, now), Ok(()));
        }
        assert!(rate.senders.lock().unwrap().len() <= SENDERS + 1);
    }
}
