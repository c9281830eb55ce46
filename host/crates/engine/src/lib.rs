//! One thread that owns a model: submit a request, get a stream of events.
//!
//! Running sequences take turns, one token each, so that a short answer does not wait for a long
//! one. The engine never waits for a reader: a generation's queue has room for its whole answer.

mod sequence;
mod stop;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tollgate_domain::record::FinishReason;
use tollgate_model::Model;
pub use tollgate_model::{ModelError, ModelInfo, SamplingOptions, Tokenizer};

/// How much the engine takes on.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Sequences that take turns; at least 1.
    pub max_running: usize,
    /// Requests that may wait; one more is refused. At least 1: every request waits for a moment.
    pub max_queued: usize,
}

/// Handle to the engine's thread.
#[derive(Clone)]
pub struct Engine {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    max_queued: usize,
    info: Arc<ModelInfo>,
    tokenizer: Tokenizer,
}

/// What the handles and the thread tell each other.
#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    /// Raised by `submit`, lowered by the thread when the request starts or is given up.
    queued: AtomicUsize,
    running: AtomicUsize,
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// The prompt, at least one token, shorter than the context.
    pub prompt_tokens: Vec<u32>,
    /// Most tokens to sample, the one that ends the text included; at least 1. The context ends the
    /// text too.
    pub max_tokens: u32,
    /// How to sample.
    pub sampling: SamplingOptions,
    /// Strings that end the text and do not appear in it.
    pub stop: Vec<String>,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests wait as may.
    #[error("the engine's queue is full")]
    Busy,
    /// The engine is shutting down, or its thread has died.
    #[error("the engine has stopped")]
    Stopped,
}

/// What happens to a request, in this order; `Ended` is always the last, and the only one of a
/// request that is cancelled before it starts.
#[derive(Debug)]
pub enum Event {
    /// It left the queue.
    Started {
        /// When.
        at: Instant,
    },
    /// The model has read the prompt.
    Prefilled {
        /// When.
        at: Instant,
    },
    /// More text; whole characters, never part of a stop string.
    Text {
        /// The text, not empty.
        text: String,
        /// Tokens sampled so far.
        output_tokens: u32,
        /// When it was ready.
        at: Instant,
    },
    /// It is over.
    Ended {
        /// How.
        end: End,
        /// Tokens sampled; the one that ended the text counts, as it does with vLLM.
        output_tokens: u32,
        /// Time that the device worked on this request.
        device_time: Duration,
        /// When.
        at: Instant,
    },
}

/// How a generation ended.
#[derive(Debug)]
pub enum End {
    /// The text is whole.
    Finished(FinishReason),
    /// It was cancelled.
    Cancelled,
    /// The model failed.
    Failed(EngineError),
}

/// How the model failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It reported an error.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It panicked, which is a bug; the engine goes on with other requests.
    #[error("the model panicked: {0}")]
    Panic(String),
}

/// A request under way. Dropping it cancels it.
#[derive(Debug)]
pub struct Generation {
    events: mpsc::Receiver<Event>,
    cancelled: Arc<AtomicBool>,
}

/// A request on its way to the thread.
struct Job {
    request: GenerateRequest,
    /// What was being logged about when it was submitted.
    log: tracing::Span,
    events: mpsc::Sender<Event>,
    cancelled: Arc<AtomicBool>,
}

impl Engine {
    /// Starts the thread; it ends when the last handle is dropped or after [`Engine::shutdown`].
    ///
    /// # Errors
    /// The system refused another thread.
    pub fn start(model: Model, options: EngineOptions) -> std::io::Result<Self> {
        let max_queued = options.max_queued.max(1);
        let (jobs, queue) = sync_channel(max_queued);
        let shared = Arc::new(Shared::default());
        let engine = Self {
            jobs,
            shared: Arc::clone(&shared),
            max_queued,
            info: Arc::new(model.info().clone()),
            tokenizer: model.tokenizer(),
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || worker::run(&model, &queue, options.max_running.max(1), &shared))?;
        Ok(engine)
    }

    /// Facts about the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Hands a request to the thread.
    ///
    /// # Errors
    /// The queue is full, or the engine has stopped.
    pub fn submit(&self, request: GenerateRequest) -> Result<Generation, SubmitError> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        self.take_place()?;
        // A text for each token, and beside them Started, Prefilled, what was held back for
        // unfinished characters and for stop strings, and Ended.
        let (sender, events) = mpsc::channel(request.max_tokens.max(1) as usize + 5);
        let cancelled = Arc::new(AtomicBool::new(false));
        let log = tracing::Span::current();
        let job = Job { request, log, events: sender, cancelled: Arc::clone(&cancelled) };
        // The channel has as many places as may be taken: it refuses only when the thread is gone.
        self.jobs.try_send(job).map_err(|_| SubmitError::Stopped)?;
        Ok(Generation { events, cancelled })
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Acquire)
    }

    /// Requests that take turns.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Refuses new requests and cancels those that wait or run.
    pub fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    /// One more waits, if it may.
    fn take_place(&self) -> Result<(), SubmitError> {
        let one_more = |queued| (queued < self.max_queued).then_some(queued + 1);
        let queued = &self.shared.queued;
        match queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(()),
            Err(_) => Err(SubmitError::Busy),
        }
    }
}

impl Job {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// The channel has room for a whole answer, so this fails only if nobody listens any more.
    fn emit(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.cancel();
        }
    }
}

impl Generation {
    /// What happens next; `None` after `Ended`, or if the engine's thread died.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Asks the engine to stop at the next token. `Ended` still comes and says what was used.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.cancel();
    }
}
