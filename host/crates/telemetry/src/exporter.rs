//! Exporters: each has a task and a bounded queue of its own, so that none can hold up another.
//!
//! A delivery (one trace, as a rule) is queued whole or not at all, and spans leave in the order
//! they came in. Every span ends up in exactly one of the counts: delivered, dropped (the queue
//! was full), failed (the sink refused it for good), pending.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tollgate_domain::span::{Resource, Span};

use crate::counts::{ExporterCounts, Shared};
use crate::error::TelemetryError;
use crate::settings::{ConsoleFormat, ExporterSettings};
use crate::sink::Sink;

/// Deliveries that wait in each exporter's queue at most.
const QUEUE: usize = 2048;

/// Spans that leave together at most.
const BATCH: usize = 512;

/// First and longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Longest pause between attempts of an exporter that is being closed.
const BACKOFF_CLOSING: Duration = Duration::from_millis(500);

/// What an exporter does with spans that its queue has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// `wait`: whoever delivers waits until there is room.
    Wait,
    /// `drop-newest`: the spans are dropped and counted.
    DropNewest,
}

/// Starts the exporters that `settings` name. Empty if they are disabled or there are none.
///
/// # Errors
/// [`TelemetryError`] if one cannot start: a file that cannot be opened, a bad certificate.
/// A receiver that is down is no error.
pub async fn start_exporters(
    settings: ExporterSettings,
    resource: Resource,
) -> Result<Vec<ExporterHandle>, TelemetryError> {
    let mut exporters = Vec::new();
    if settings.disabled {
        return Ok(exporters);
    }
    if settings.console != ConsoleFormat::Off {
        let sink = Sink::console(settings.console, settings.colour, resource.clone())?;
        exporters.push(ExporterHandle::start("console", Overflow::Wait, sink));
    }
    if let Some(path) = &settings.ndjson {
        let sink = Sink::ndjson(path, resource.clone())?;
        exporters.push(ExporterHandle::start("ndjson", Overflow::Wait, sink));
    }
    if let Some(otlp) = &settings.otlp {
        let sink = Sink::otlp(otlp, &resource)?;
        exporters.push(ExporterHandle::start("otlp", Overflow::DropNewest, sink));
    }
    Ok(exporters)
}

/// A running exporter. Dropped without [`ExporterHandle::close`], it still delivers what is
/// queued for as long as the runtime lives.
#[derive(Debug)]
pub struct ExporterHandle {
    name: &'static str,
    overflow: Overflow,
    queue: mpsc::Sender<Vec<Span>>,
    closing: watch::Sender<bool>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl ExporterHandle {
    fn start(name: &'static str, overflow: Overflow, sink: Sink) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (closing, is_closing) = watch::channel(false);
        let shared = Arc::new(Shared::new(name));
        let exporter = Exporter {
            queue: receiver,
            carried: None,
            closing: is_closing,
            // Whoever waits for room should not wait for a full round of retries each time.
            gives_up_early: overflow == Overflow::Wait,
            failing: false,
            shared: Arc::clone(&shared),
            sink,
        };
        Self { name, overflow, queue, closing, shared, task: tokio::spawn(exporter.run()) }
    }

    /// `console`, `ndjson` or `otlp`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// What happens when the queue is full.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Queues the spans. Returns at once unless the queue is full and the policy is to wait.
    pub async fn deliver(&self, mut spans: Vec<Span>) {
        while spans.len() > BATCH {
            let rest = spans.split_off(BATCH);
            self.enqueue(std::mem::replace(&mut spans, rest)).await;
        }
        if !spans.is_empty() {
            self.enqueue(spans).await;
        }
    }

    async fn enqueue(&self, spans: Vec<Span>) {
        let count = number(spans.len());
        let room = match self.overflow {
            Overflow::Wait => self.queue.reserve().await.ok(),
            Overflow::DropNewest => self.queue.try_reserve().ok(),
        };
        if let Some(room) = room {
            self.shared.pending.fetch_add(count, Relaxed);
            room.send(spans);
        } else {
            self.shared.dropped.fetch_add(count, Relaxed);
            self.shared.warn("spans dropped: the queue is full");
        }
    }

    /// What became of the spans so far.
    #[must_use]
    pub fn counts(&self) -> ExporterCounts {
        self.shared.counts()
    }

    /// Delivers everything that is queued and stops.
    ///
    /// # Errors
    /// [`TelemetryError::Unfinished`] if `deadline` passes first; what is left is lost.
    pub async fn close(self, deadline: Duration) -> Result<(), TelemetryError> {
        let Self { name, queue, closing, shared, mut task, .. } = self;
        closing.send_replace(true);
        drop(queue);
        let finished = timeout(deadline, &mut task).await;
        task.abort();
        let counts = shared.counts();
        tracing::info!(exporter = name, ?counts, "exporter closed");
        match (finished, counts.pending) {
            (Ok(Ok(())), _) | (_, 0) => Ok(()),
            (_, left) => Err(TelemetryError::Unfinished { exporter: name, left }),
        }
    }
}

/// The task's side.
struct Exporter {
    queue: mpsc::Receiver<Vec<Span>>,
    /// A delivery that did not fit into the last batch.
    carried: Option<Vec<Span>>,
    closing: watch::Receiver<bool>,
    gives_up_early: bool,
    failing: bool,
    shared: Arc<Shared>,
    sink: Sink,
}

impl Exporter {
    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.settle(batch).await;
        }
    }

    async fn next_batch(&mut self) -> Option<Vec<Span>> {
        let mut batch = match self.carried.take() {
            Some(carried) => carried,
            None => self.queue.recv().await?,
        };
        let leaves_at = Instant::now() + self.sink.gathers_for();
        while batch.len() < BATCH {
            match timeout_at(leaves_at, self.queue.recv()).await {
                Ok(Some(more)) if batch.len() + more.len() <= BATCH => batch.extend(more),
                Ok(Some(more)) => {
                    self.carried = Some(more);
                    break;
                }
                Ok(None) | Err(_) => break,
            }
        }
        Some(batch)
    }

    /// Sends one batch until it is taken, refused for good, or the time for retries is over.
    async fn settle(&mut self, batch: Vec<Span>) {
        let count = number(batch.len());
        let give_up_at = if self.failing && self.gives_up_early {
            Instant::now()
        } else {
            Instant::now() + self.sink.retries_for()
        };
        let mut pause = BACKOFF.0;
        let delivered = loop {
            let Err(failure) = self.sink.write(&batch).await else { break true };
            self.shared.warn(&failure.message);
            if !failure.worth_a_retry || Instant::now() >= give_up_at {
                break false;
            }
            self.failing = true;
            wait(&mut self.closing, pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        };
        if self.failing && delivered {
            tracing::info!(exporter = self.shared.name, "exporter delivers again");
        }
        self.failing = !delivered;
        let counter = if delivered { &self.shared.delivered } else { &self.shared.failed };
        counter.fetch_add(count, Relaxed);
        self.shared.pending.fetch_sub(count, Relaxed);
    }
}

/// Waits for about `pause`: at most that long, at least half, and not long when closing.
async fn wait(closing: &mut watch::Receiver<bool>, pause: Duration) {
    let pause = pause.mul_f64(rand::random_range(0.5..=1.0));
    if *closing.borrow() {
        tokio::time::sleep(pause.min(BACKOFF_CLOSING)).await;
    } else {
        // An early end means that it is closed now: one more attempt at once.
        let _ = timeout(pause, closing.changed()).await;
    }
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
