//! Afterwards: read the ledger at an exporter's cursor, enrich, build spans, filter, send, move the
//! cursor. Each exporter has a task and a place in the ledger of its own, so that none holds up
//! another: a receiver that is down costs disk and nothing else.
//!
//! At least once and in order: a cursor moves after its records have arrived, and what is sent
//! again has the same ids, so that a receiver can tell a copy. What a receiver refuses for good is
//! cut in halves until the record is found that it does not take.

mod reading;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep_until, timeout};
use tollgate_domain::Span;
use tollgate_domain::passed::Signal;
use tollgate_ledger::{Cursor, Head, Ledger, LedgerError, Seq};
use tollgate_telemetry::{Exporter, SendError, StartAt};

use crate::exporters::ExporterMeter;
use crate::progress::{Fate, Progress};
use crate::tracer::Tracer;
use reading::Reading;

/// Records that leave together at most.
const BATCH: usize = 512;

/// Spans that leave together at most, unless one entry has more.
const AT_ONCE: usize = 16_384;

/// First and longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Longest pause that a receiver may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// How long to wait before the ledger is read again that could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// One exporter at work.
pub(crate) struct Courier {
    pub(crate) exporter: Exporter,
    pub(crate) ledger: Ledger,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) meter: Arc<ExporterMeter>,
    /// Set once no further record will come.
    pub(crate) closing: watch::Receiver<bool>,
}

/// What is on its way out, and which entries of the ledger it is of, in order.
#[derive(Default)]
struct Outgoing {
    load: Load,
    /// How many of the spans, or bytes, are of each; none: nothing of it may leave.
    parts: Vec<(Seq, usize)>,
}

/// What leaves in one attempt.
enum Load {
    Spans(Vec<Span>),
    /// Requests of metrics or logs, behind each other; all attempts share them.
    Passed(Signal, Bytes),
}

impl Default for Load {
    fn default() -> Self {
        Self::Spans(Vec::new())
    }
}

/// What became of an attempt, retries included.
enum Sent {
    Taken,
    Refused(String),
    /// The gateway shuts down and the receiver does not take it.
    Left,
}

impl Outgoing {
    /// Adds spans to spans.
    fn push(&mut self, seq: Seq, spans: Vec<Span>) {
        if let Load::Spans(all) = &mut self.load {
            self.parts.push((seq, spans.len()));
            all.extend(spans);
        }
    }

    /// Takes the second half off.
    fn split(&mut self) -> Self {
        let parts = self.parts.split_off(self.parts.len() / 2);
        let first: usize = self.parts.iter().map(|(_, count)| count).sum();
        let load = match &mut self.load {
            Load::Spans(spans) => Load::Spans(spans.split_off(first.min(spans.len()))),
            Load::Passed(signal, bytes) => {
                Load::Passed(*signal, bytes.split_off(first.min(bytes.len())))
            }
        };
        Self { load, parts }
    }

    fn is_empty(&self) -> bool {
        match &self.load {
            Load::Spans(spans) => spans.is_empty(),
            Load::Passed(_, bytes) => bytes.is_empty(),
        }
    }

    /// More spans than leave together.
    fn is_large(&self) -> bool {
        matches!(&self.load, Load::Spans(spans) if spans.len() > AT_ONCE) && self.parts.len() > 1
    }
}

impl Courier {
    /// Delivers until the gateway shuts down and everything is delivered, or the receiver does not
    /// take it: the rest waits in the ledger for the next start.
    pub(crate) async fn run(mut self) -> Exporter {
        let mut cursor = self.begin().await;
        let rules = self.exporter.traces().cloned();
        let mut reading = Reading::new(cursor, rules);
        self.meter.has_read(reading.seq);
        self.recall(&mut reading);
        let mut head = self.ledger.head();
        while self.wait(reading.records, reading.due(), &mut head).await {
            let Some(batch) = self.next_batch(&mut reading, &head).await else { continue };
            if !self.deliver(batch, &mut reading.progress, &mut cursor).await {
                break;
            }
        }
        let waiting = head.borrow().records.saturating_sub(cursor.records);
        if waiting > 0 {
            let exporter = self.exporter.name();
            tracing::warn!(
                exporter,
                records = waiting,
                "records wait in the ledger for the next start"
            );
        }
        self.exporter
    }

    /// The place it goes on from.
    async fn begin(&self) -> Cursor {
        let name = self.exporter.name();
        let known = block_in_place(|| self.ledger.cursor(name)).unwrap_or_else(|error| {
            tracing::error!(exporter = name, %error, "its place in the ledger is unknown; it begins anew");
            None
        });
        let cursor = known.unwrap_or_else(|| match self.exporter.start_at() {
            StartAt::Beginning => Cursor::default(),
            StartAt::Now => {
                let Head { seq, records } = *self.ledger.head().borrow();
                Cursor { seq, records, ..Cursor::default() }
            }
        });
        if known.is_none() {
            // From now on nothing is deleted that it has not passed.
            self.store(&cursor).await;
        }
        self.meter.moved(&cursor);
        cursor
    }

    /// Recalls what was decided of traces before, if it waits for them. If that fails it decides
    /// afresh what comes late of them.
    fn recall(&self, reading: &mut Reading) {
        if self.exporter.traces().is_none() {
            return;
        }
        let name = self.exporter.name();
        let recalled =
            block_in_place(|| self.ledger.decisions(name).and_then(|kept| reading.recall(kept)));
        if let Err(error) = recalled {
            let what = "what it decides of traces is forgotten at the next start";
            self.meter.trouble(&format!("{what}: {error}"));
        }
    }

    /// Whether there is something to deliver beyond the first `read` records, or decided since it is
    /// due; false once there will be nothing more.
    async fn wait(
        &mut self,
        read: u64,
        due: Option<Instant>,
        head: &mut watch::Receiver<Head>,
    ) -> bool {
        let grown = |head: &Head| head.records > read;
        loop {
            if grown(&head.borrow_and_update()) {
                break;
            }
            if *self.closing.borrow() {
                return false;
            }
            let decided = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return false },
                _ = self.closing.changed() => {}
                () = decided => return true,
            }
        }
        // In company one call carries many; but not while the gateway waits to end.
        let few = |head: &Head| head.records.saturating_sub(read) < BATCH as u64;
        let leaves_at = Instant::now() + self.exporter.gathers_for();
        while few(&head.borrow_and_update()) && !*self.closing.borrow() {
            tokio::select! {
                () = sleep_until(leaves_at) => break,
                changed = head.changed() => if changed.is_err() { break },
                _ = self.closing.changed() => break,
            }
        }
        true
    }

    /// What leaves next: the records from there on, or traces that are decided. None: they cannot
    /// be read.
    async fn next_batch(
        &self,
        reading: &mut Reading,
        head: &watch::Receiver<Head>,
    ) -> Option<Vec<Outgoing>> {
        let head = *head.borrow();
        let expected = head.records > reading.records;
        let read = block_in_place(|| {
            let records = match expected {
                true => self.ledger.read(reading.seq, BATCH)?,
                false => Vec::new(),
            };
            if expected && records.is_empty() {
                return Ok(None);
            }
            let outgoing = reading.take(&records, &self.tracer, &self.exporter, head);
            // Before anything leaves by it, and before the cursor moves.
            if let Err(error) = reading.remember() {
                self.meter.trouble(&format!("cannot keep what it decides of traces: {error}"));
            }
            Ok::<_, LedgerError>(Some(outgoing))
        });
        if let Some(counts) = reading.trace_counts() {
            self.meter.traces(counts);
        }
        self.meter.has_read(reading.seq);
        match read {
            Ok(Some(batch)) => Some(batch),
            Ok(None) => {
                tokio::time::sleep(READ_AGAIN).await;
                None
            }
            Err(error) => {
                self.meter.trouble(&format!("cannot read the ledger: {error}"));
                tokio::time::sleep(READ_AGAIN).await;
                None
            }
        }
    }

    /// Sends a batch, in parts if the receiver refuses the whole. False: the rest is left for the
    /// next start.
    async fn deliver(
        &mut self,
        batches: Vec<Outgoing>,
        progress: &mut Progress,
        cursor: &mut Cursor,
    ) -> bool {
        // The next one is the last.
        let mut left: Vec<Outgoing> = batches.into_iter().rev().collect();
        while let Some(mut batch) = left.pop() {
            if batch.is_large() {
                let rest = batch.split();
                left.extend([rest, batch]);
                continue;
            }
            let sent = if batch.is_empty() { Sent::Taken } else { self.send(&batch.load).await };
            let fate = match sent {
                Sent::Left => return false,
                Sent::Refused(_) if batch.parts.len() > 1 => {
                    let rest = batch.split();
                    left.extend([rest, batch]);
                    continue;
                }
                Sent::Refused(message) => {
                    self.meter.trouble(&message);
                    Fate::Rejected
                }
                Sent::Taken => Fate::Delivered,
            };
            for (seq, count) in batch.parts {
                progress.end(seq, if count == 0 { Fate::Filtered } else { fate });
            }
            if progress.advance(cursor) {
                self.store(cursor).await;
                self.meter.moved(cursor);
            }
        }
        true
    }

    /// Sends until it is taken or refused for good.
    async fn send(&mut self, load: &Load) -> Sent {
        let mut pause = BACKOFF.0;
        loop {
            let began = Instant::now();
            let attempt = match load {
                Load::Spans(spans) => self.exporter.send(spans).await,
                Load::Passed(signal, bytes) => self.exporter.pass(*signal, bytes.clone()).await,
            };
            self.meter.attempted(began.elapsed());
            let (message, after) = match attempt {
                Ok(accepted) => {
                    self.meter.taken(&accepted);
                    return Sent::Taken;
                }
                Err(SendError::Never { message }) => return Sent::Refused(message),
                Err(SendError::Later { message, after }) => (message, after),
            };
            self.meter.failed(&message);
            if *self.closing.borrow() {
                return Sent::Left;
            }
            let jittered = pause.mul_f64(rand::random_range(0.5..=1.0));
            let asked = after.map(|asked| asked.min(LONGEST_ASKED));
            // An early end means that the gateway shuts down: one more attempt at once.
            let _ = timeout(asked.unwrap_or(jittered), self.closing.changed()).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Keeps the place. If that fails it goes on; after a crash some records are sent again.
    async fn store(&self, cursor: &Cursor) {
        if let Err(error) = self.ledger.advance(self.exporter.name(), *cursor).await {
            self.meter.trouble(&format!("cannot keep its place in the ledger: {error}"));
        }
    }
}
