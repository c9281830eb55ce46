//! How far an exporter has read, which may be further than its cursor: spans of traces that are not
//! decided yet are in memory, and on record until they are.
//!
//! Traces wait by the time of the ledger. Who is behind (after a start, or behind a receiver that was
//! down) reads at once what took hours to come, and a trace there is decided by what came within its
//! wait then. A clock of the system that jumps back or forth makes no trace wait for longer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tollgate_domain::UnixNanos;
use tollgate_domain::sampling::TraceRules;
use tollgate_ledger::{Cursor, Head, Outbound, Seq};

use super::{BATCH, Outgoing};
use crate::progress::Progress;
use crate::tracer::{Fragment, Judged, Tracer};
use crate::traces::{TraceCounts, Traces};

/// Most entries between the cursor and what is read. Policy beyond: traces are *decided early*.
const AHEAD: usize = 262_144;

/// What is read and not delivered.
pub(super) struct Reading {
    /// The last entry that was read, and its number.
    pub(super) seq: Seq,
    pub(super) records: u64,
    pub(super) progress: Progress,
    traces: Option<(Traces<Fragment>, Clock)>,
}

impl Reading {
    /// From the cursor on.
    pub(super) fn new(cursor: Cursor, rules: Option<TraceRules>) -> Self {
        Self {
            seq: cursor.seq,
            records: cursor.records,
            progress: Progress::default(),
            traces: rules.map(|rules| (Traces::new(rules), Clock::default())),
        }
    }

    /// When the next trace is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let (traces, clock) = self.traces.as_ref()?;
        traces.due().map(|due| clock.instant(due))
    }

    pub(super) fn trace_counts(&self) -> Option<&TraceCounts> {
        self.traces.as_ref().map(|(traces, _)| traces.counts())
    }

    /// Takes the next records, and gives what leaves now; calls plugins, so it blocks.
    pub(super) fn take(
        &mut self,
        records: Vec<Arc<Outbound>>,
        tracer: &Tracer,
        exporter: &str,
        head: Head,
    ) -> Outgoing {
        if let Some(last) = records.last() {
            (self.seq, self.records) = (last.seq, last.number);
        }
        let mut outgoing = Outgoing::default();
        let Some((traces, clock)) = &mut self.traces else {
            let filtered = tracer.bound_for(exporter, &records);
            for (stored, spans) in records.iter().zip(filtered) {
                self.progress.begin(stored.seq, stored.number, 1);
                outgoing.push(stored.seq, spans);
            }
            return outgoing;
        };
        let mut lag = Duration::ZERO;
        for (stored, parts) in records.iter().zip(tracer.apart(&records)) {
            self.progress.begin(stored.seq, stored.number, parts.len());
            lag = UnixNanos::from(SystemTime::now()).since(stored.what.ended());
            let came = clock.now(lag);
            for part in parts {
                traces.add(part, came);
            }
        }
        let is_behind = head.records > self.records;
        let now = clock.now(if is_behind { lag } else { Duration::ZERO });
        if self.progress.len() > AHEAD {
            (0..BATCH).for_each(|_| traces.hurry());
        }
        let Judged { leaving, overruled } = tracer.judged(exporter, traces.take(now));
        overruled.into_iter().for_each(|trace| traces.overrule(trace));
        leaving.into_iter().for_each(|(seq, spans)| outgoing.push(seq, spans));
        outgoing
    }
}

/// Time that never goes back, by which somebody may be behind.
struct Clock {
    began: Instant,
    latest: Duration,
}

/// The clock's time when it begins: nobody is behind by more.
const ORIGIN: Duration = Duration::from_secs(1 << 33);

impl Default for Clock {
    fn default() -> Self {
        Self { began: Instant::now(), latest: Duration::ZERO }
    }
}

impl Clock {
    /// The time of what came so long ago.
    fn now(&mut self, lag: Duration) -> Duration {
        let now = ORIGIN.saturating_add(self.began.elapsed());
        self.latest = self.latest.max(now.saturating_sub(lag));
        self.latest
    }

    /// When that time is, for who is not behind.
    fn instant(&self, time: Duration) -> Instant {
        let after = time.saturating_sub(ORIGIN);
        self.began.checked_add(after).unwrap_or_else(Instant::now)
    }
}
