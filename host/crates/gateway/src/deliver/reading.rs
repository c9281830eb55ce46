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
use tollgate_domain::passed::Signal;
use tollgate_domain::sampling::TraceRules;
use tollgate_ledger::{Cursor, Decisions, Head, LedgerError, Outbound, Payload, Remembered, Seq};
use tollgate_telemetry::Exporter;

use super::{BATCH, Load, Outgoing};
use crate::progress::Progress;
use crate::tracer::{Fragment, Judged, Tracer};
use crate::traces::{TraceCounts, Traces};

/// Most entries between the cursor and what is read. Policy beyond: traces are *decided early*.
const AHEAD: usize = 262_144;

/// Bytes of metrics or logs that leave together at most, unless one request has more: a little below
/// the 4 MiB that most receivers take.
const PASSED_AT_ONCE: usize = 3_900_000;

/// What is read and not delivered.
pub(super) struct Reading {
    /// The last entry that was read, and its number.
    pub(super) seq: Seq,
    pub(super) records: u64,
    pub(super) progress: Progress,
    traces: Option<(Traces<Fragment>, Clock)>,
    /// Where decisions on traces are kept for the next start.
    decisions: Option<Decisions>,
}

impl Reading {
    /// From the cursor on.
    pub(super) fn new(cursor: Cursor, rules: Option<TraceRules>) -> Self {
        Self {
            seq: cursor.seq,
            records: cursor.records,
            progress: Progress::default(),
            traces: rules.map(|rules| (Traces::new(rules), Clock::default())),
            decisions: None,
        }
    }

    /// Knows what was decided before this start, and keeps there what is decided from now on.
    pub(super) fn recall(&mut self, decisions: Decisions) -> Result<(), LedgerError> {
        let Some((traces, clock)) = &mut self.traces else { return Ok(()) };
        for Remembered { trace, decision, age } in decisions.all()? {
            traces.recall(trace, decision, clock.ago(age));
        }
        self.decisions = Some(decisions);
        Ok(())
    }

    /// Keeps what was decided since; blocks for a commit. What fails is tried again the next time.
    pub(super) fn remember(&mut self) -> Result<(), LedgerError> {
        let Some((traces, _)) = &mut self.traces else { return Ok(()) };
        let fresh = traces.fresh();
        if let Some(decisions) = &mut self.decisions
            && !fresh.is_empty()
        {
            decisions.remember(&fresh)?;
        }
        traces.kept();
        Ok(())
    }

    /// When the next trace is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let (traces, clock) = self.traces.as_ref()?;
        traces.due().map(|due| clock.instant(due))
    }

    pub(super) fn trace_counts(&self) -> Option<&TraceCounts> {
        self.traces.as_ref().map(|(traces, _)| traces.counts())
    }

    /// Takes the next records, and gives what leaves now, in order; calls plugins, so it blocks.
    pub(super) fn take(
        &mut self,
        records: &[Arc<Outbound>],
        tracer: &Tracer,
        exporter: &Exporter,
        head: Head,
    ) -> Vec<Outgoing> {
        if let Some(last) = records.last() {
            (self.seq, self.records) = (last.seq, last.number);
        }
        let is_behind = head.records > self.records;
        let mut outgoing = Vec::new();
        for run in records.chunk_by(|a, b| signal(a) == signal(b)) {
            match run.first().and_then(signal) {
                Some(signal) => {
                    run.iter().for_each(|stored| self.progress.begin(stored.seq, stored.number, 1));
                    outgoing.extend(passed(signal, run, exporter.passes(signal)));
                }
                None if self.traces.is_none() => {
                    let mut spans = Outgoing::default();
                    let filtered = tracer.bound_for(exporter.name(), run);
                    for (stored, left) in run.iter().zip(filtered) {
                        self.progress.begin(stored.seq, stored.number, 1);
                        spans.push(stored.seq, left);
                    }
                    outgoing.push(spans);
                }
                None => self.gather(run, tracer),
            }
        }
        outgoing.extend(self.decided(tracer, exporter.name(), is_behind));
        outgoing
    }

    /// Takes the spans of some records apart, to wait for the rest of their traces.
    fn gather(&mut self, records: &[Arc<Outbound>], tracer: &Tracer) {
        let Some((traces, clock)) = &mut self.traces else { return };
        for (stored, parts) in records.iter().zip(tracer.apart(records)) {
            self.progress.begin(stored.seq, stored.number, parts.len());
            clock.lag = UnixNanos::from(SystemTime::now()).since(stored.what.ended());
            let came = clock.now(clock.lag);
            for part in parts {
                traces.add(part, came);
            }
        }
        if self.progress.len() > AHEAD {
            let now = clock.now(clock.lag);
            (0..BATCH).for_each(|_| traces.hurry(now));
        }
    }

    /// What leaves of traces that are decided by now.
    fn decided(&mut self, tracer: &Tracer, exporter: &str, is_behind: bool) -> Option<Outgoing> {
        let (traces, clock) = self.traces.as_mut()?;
        let now = clock.now(if is_behind { clock.lag } else { Duration::ZERO });
        let Judged { leaving, overruled } = tracer.judged(exporter, traces.take(now));
        overruled.into_iter().for_each(|trace| traces.overrule(trace));
        let mut outgoing = Outgoing::default();
        leaving.into_iter().for_each(|(seq, spans)| outgoing.push(seq, spans));
        Some(outgoing)
    }
}

fn signal(stored: &Arc<Outbound>) -> Option<Signal> {
    match &stored.what {
        Payload::Passed(passed) => Some(passed.signal),
        Payload::Record(_) | Payload::Spans(_) => None,
    }
}

/// Requests of one signal, behind each other in as few as receivers take: the bytes of two requests
/// are a request of all that is in both. Where the exporter does not pass them on, nothing leaves.
fn passed(signal: Signal, run: &[Arc<Outbound>], passes: bool) -> Vec<Outgoing> {
    /// Bytes, and how many of them are of which entry.
    type Joined = (Vec<u8>, Vec<(Seq, usize)>);
    let mut together: Vec<Joined> = Vec::new();
    for stored in run {
        let Payload::Passed(request) = &stored.what else { continue };
        let bytes: &[u8] = if passes { &request.request } else { &[] };
        match together.last_mut() {
            Some((so_far, parts)) if so_far.len().saturating_add(bytes.len()) <= PASSED_AT_ONCE => {
                so_far.extend_from_slice(bytes);
                parts.push((stored.seq, bytes.len()));
            }
            _ => together.push((bytes.to_vec(), vec![(stored.seq, bytes.len())])),
        }
    }
    let outgoing = together.into_iter();
    outgoing
        .map(|(bytes, parts)| Outgoing { load: Load::Passed(signal, bytes.into()), parts })
        .collect()
}

/// Time that never goes back, by which somebody may be behind.
struct Clock {
    began: Instant,
    latest: Duration,
    /// How long ago came what was read last.
    lag: Duration,
}

/// The clock's time when it begins: nobody is behind by more.
const ORIGIN: Duration = Duration::from_secs(1 << 33);

impl Default for Clock {
    fn default() -> Self {
        Self { began: Instant::now(), latest: Duration::ZERO, lag: Duration::ZERO }
    }
}

impl Clock {
    /// The time of what came so long ago.
    fn now(&mut self, lag: Duration) -> Duration {
        let now = ORIGIN.saturating_add(self.began.elapsed());
        self.latest = self.latest.max(now.saturating_sub(lag));
        self.latest
    }

    /// What its time was then.
    fn ago(&self, age: Duration) -> Duration {
        ORIGIN.saturating_add(self.began.elapsed()).saturating_sub(age)
    }

    /// When that time is, for who is not behind.
    fn instant(&self, time: Duration) -> Instant {
        let after = time.saturating_sub(ORIGIN);
        self.began.checked_add(after).unwrap_or_else(Instant::now)
    }
}
