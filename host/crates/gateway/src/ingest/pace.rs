//! Senders at the pace of exporters: what comes faster than it leaves must be read from disk once it is no longer in
//! memory, which costs more than to send it. So a request waits while an exporter is about to fall that far behind.
//!
//! It waits for a moment only, and never for a receiver that takes nothing: then what comes is for the disk.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Inner;

/// Longest wait. Policy beyond it: the request is *taken*.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often exporters are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

impl Inner {
    /// Waits while an exporter falls behind.
    pub(super) async fn keep_pace(&self) {
        let until = Instant::now() + PATIENCE;
        let falls_behind = || self.exporters.iter().any(|meter| meter.falls_behind(&self.ledger));
        while falls_behind() && Instant::now() < until {
            sleep(LOOK).await;
        }
    }
}
