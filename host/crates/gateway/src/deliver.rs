//! Afterwards: read the ledger at an exporter's cursor, enrich, build spans, filter, send, move the
//! cursor. Each exporter has a task and a place in the ledger of its own, so that none holds up
//! another: a receiver that is down costs disk and nothing else.
//!
//! At least once and in order: a cursor moves after its records have arrived, and what is sent
//! again has the same ids, so that a receiver can tell a copy. What a receiver refuses for good is
//! cut in halves until the record is found that it does not take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep_until, timeout};
use tollgate_domain::Span;
use tollgate_ledger::{Cursor, Head, Ledger, LedgerError, Outbound, Seq};
use tollgate_telemetry::{Exporter, SendError, StartAt};

use crate::exporters::ExporterMeter;
use crate::tracer::Tracer;

/// Records that leave together at most.
const BATCH: usize = 128;

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

/// What is left of a record on its way out.
struct Outgoing {
    seq: Seq,
    number: u64,
    /// None: plugins let no span leave.
    spans: Vec<Span>,
}

/// What became of an attempt, retries included.
enum Sent {
    Taken,
    Refused(String),
    /// The gateway shuts down and the receiver does not take it.
    Left,
}

impl Courier {
    /// Delivers until the gateway shuts down and everything is delivered, or the receiver does not
    /// take it: the rest waits in the ledger for the next start.
    pub(crate) async fn run(mut self) -> Exporter {
        let mut cursor = self.begin().await;
        let mut head = self.ledger.head();
        while self.wait_for_records(&cursor, &mut head).await {
            let Some(batch) = self.next_batch(cursor.seq).await else { continue };
            if !self.deliver(batch, &mut cursor).await {
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

    /// Whether there is something to deliver; false once there will be nothing more.
    async fn wait_for_records(&mut self, at: &Cursor, head: &mut watch::Receiver<Head>) -> bool {
        let grown = |head: &Head| head.records > at.records;
        loop {
            if grown(&head.borrow_and_update()) {
                break;
            }
            if *self.closing.borrow() {
                return false;
            }
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return false },
                _ = self.closing.changed() => {}
            }
        }
        // In company one call carries many; but not while the gateway waits to end.
        let few = |head: &Head| head.records.saturating_sub(at.records) < BATCH as u64;
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

    /// Records from there on, as the spans that may leave. None: they cannot be read.
    async fn next_batch(&self, after: Seq) -> Option<Vec<Outgoing>> {
        let name = self.exporter.name();
        let read = block_in_place(|| {
            let records = self.ledger.read(after, BATCH)?;
            let traces = records.iter().zip(self.tracer.bound_for(name, &records));
            let outgoing = traces.map(|(stored, spans)| {
                let Outbound { seq, number, .. } = **stored;
                Outgoing { seq, number, spans }
            });
            Ok::<_, LedgerError>(outgoing.collect::<Vec<_>>())
        });
        match read {
            Ok(batch) if !batch.is_empty() => Some(batch),
            Ok(_) => {
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
    async fn deliver(&mut self, batch: Vec<Outgoing>, cursor: &mut Cursor) -> bool {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let spans: Vec<Span> = part.iter().flat_map(|out| out.spans.iter().cloned()).collect();
            let sent = if spans.is_empty() { Sent::Taken } else { self.send(&spans).await };
            match sent {
                Sent::Left => return false,
                Sent::Refused(_) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                    continue;
                }
                Sent::Refused(message) => {
                    self.meter.trouble(&message);
                    cursor.rejected += 1;
                }
                Sent::Taken => {
                    let filtered = part.iter().filter(|out| out.spans.is_empty()).count() as u64;
                    cursor.filtered += filtered;
                    cursor.delivered += part.len() as u64 - filtered;
                }
            }
            if let Some(last) = part.last() {
                (cursor.seq, cursor.records) = (last.seq, last.number);
            }
            self.store(cursor).await;
            self.meter.moved(cursor);
        }
        true
    }

    /// Sends until it is taken or refused for good.
    async fn send(&mut self, spans: &[Span]) -> Sent {
        let mut pause = BACKOFF.0;
        loop {
            let began = Instant::now();
            let attempt = self.exporter.send(spans).await;
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
