//! One thread that owns a model: submit a request, get a stream of events.
//!
//! Running sequences share forward passes, as `tollgate-scheduler` plans them: a token of each that
//! writes, and pieces of prompts. Memory for keys and values has a limit that is held; sequences of
//! one tenant that begin alike share it. What a sequence writes does not depend on what else runs.
//! Several choices of one prompt are as many sequences: the first reads the prompt, and the others
//! begin when it has, so that they find it read.
//! A model whose sequences cannot share passes has them one after another, each from its beginning.
//! The engine never waits for a reader: a generation's queue has room for its whole answer.

mod active;
mod choices;
mod embed;
mod event;
mod job;
mod options;
mod prompt;
mod stop;
mod worker;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

pub use choices::Choices;
pub use embed::EmbedRequest;
pub use event::{End, EngineError, Event, Facts};
pub use options::EngineOptions;
use tollgate_model::Model;
pub use tollgate_model::{
    Constraint, Embedding, ModelError, ModelInfo, Passes, SamplingOptions, TokenLogprobs, Tokenizer,
};
use tollgate_scheduler::Scheduler;

use crate::job::Job;
use crate::worker::Worker;

/// Handle to the engine's thread.
#[derive(Clone)]
pub struct Engine {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    max_queued: usize,
    max_running: usize,
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
    kv_total: AtomicUsize,
    kv_held: AtomicUsize,
    kv_cached: AtomicUsize,
}

/// Where the blocks for keys and values are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvUse {
    /// Blocks there are.
    pub total: usize,
    /// At least one running sequence needs them.
    pub held: usize,
    /// Nobody needs them now, but a prompt that begins alike will find them.
    pub cached: usize,
}

/// What to generate. The default is an empty prompt, which no model takes, for no tenant.
#[derive(Clone, Debug, Default)]
pub struct GenerateRequest {
    /// The prompt, at least one token, shorter than the context.
    pub prompt_tokens: Vec<u32>,
    /// Most tokens to sample, the one that ends the text included; the context ends the text too. With
    /// 0 the prompt is read, and that is all.
    pub max_tokens: u32,
    /// How to sample.
    pub sampling: SamplingOptions,
    /// Whether to tell how likely the prompt's tokens were: of each, and of as many of the likeliest.
    /// Then all of it is computed, whatever of it is in memory.
    pub prompt_logprobs: Option<usize>,
    /// Strings that end the text and do not appear in it.
    pub stop: Vec<String>,
    /// Tokens that end the text and do not appear in it, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Whether the model's own end tokens do not end the text.
    pub ignore_eos: bool,
    /// Tokens that come before anything but the limit, or the constraint, may end the text.
    pub min_tokens: u32,
    /// What the text is held to; it ends when nothing can follow.
    pub constraint: Option<Constraint>,
    /// Whose turn it uses, and with whose prompts it shares what was computed; all without a name
    /// are one.
    pub tenant: Option<Arc<str>>,
    /// The higher, the sooner, from -100 to 100.
    pub priority: i32,
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

/// A request under way. Dropping it cancels it.
#[derive(Debug)]
pub struct Generation(Choices);

impl Engine {
    /// Starts the thread; it ends when the last handle is dropped or after [`Engine::shutdown`].
    ///
    /// # Errors
    /// The system refused another thread or the memory, or the options make no sense.
    pub fn start(model: Model, options: EngineOptions) -> io::Result<Self> {
        let options = options.held_to(&model);
        let (max_queued, max_running) = (options.max_queued.max(1), options.max_running.max(1));
        let (jobs, queue) = sync_channel(max_queued);
        let store = model.kv_store(options.kv_bytes(&model)).map_err(io::Error::other)?;
        let limits = options.limits(store.blocks());
        let scheduler = Scheduler::new(limits).map_err(io::Error::other)?;
        let shared = Arc::new(Shared::default());
        let (mut info, tokenizer) = (model.info().clone(), model.tokenizer());
        let worker = Worker::new(model, store, scheduler, Arc::clone(&shared));
        info.context_length = worker.context_length();
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run(&queue))?;
        Ok(Self { jobs, shared, max_queued, max_running, info: Arc::new(info), tokenizer })
    }

    /// Facts about the model. Its context is shorter than the model's own where memory for keys and
    /// values holds no more.
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
        self.take_places(1)?;
        let (choices, mut outlets) = Choices::new(1, self.most_events(&request));
        if let Some(outlet) = outlets.next() {
            self.send(Job::write(request, outlet))?;
        }
        Ok(Generation(choices))
    }

    /// Hands a request to the thread that is answered several times, once with each of these seeds
    /// in the place of its own. Each answer has a place in the queue.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_choices(
        &self,
        request: &GenerateRequest,
        seeds: &[u64],
    ) -> Result<Choices, SubmitError> {
        self.take_places(seeds.len())?;
        let most = self.most_events(request).saturating_mul(seeds.len());
        let (choices, outlets) = Choices::new(seeds.len(), most);
        let mut jobs = seeds.iter().zip(outlets).enumerate().map(|(number, (seed, outlet))| {
            let mut request = request.clone();
            request.sampling.seed = *seed;
            // What is told of the prompt is told once.
            request.prompt_logprobs = request.prompt_logprobs.filter(|_| number == 0);
            Job::write(request, outlet)
        });
        if let Some(first) = jobs.next() {
            self.send(Job { followers: jobs.collect(), ..first })?;
        }
        Ok(choices)
    }

    /// Hands texts to the thread that are to be embedded; each ends for itself.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn submit_embeddings(&self, request: EmbedRequest) -> Result<Choices, SubmitError> {
        let count = request.inputs.len();
        let mut lanes = count.min(self.max_running);
        if let Err(error) = self.take_places(lanes) {
            if error == SubmitError::Stopped || lanes <= 1 {
                return Err(error);
            }
            // A busy engine may have one place left.
            lanes = 1;
            self.take_places(lanes)?;
        }
        // Started, Prefilled, Ended.
        let (embeddings, outlets) = Choices::new(count, count.saturating_mul(3));
        for job in request.lanes(lanes, outlets) {
            self.send(job)?;
        }
        Ok(embeddings)
    }

    /// Most requests that may wait.
    #[must_use]
    pub fn max_queued(&self) -> usize {
        self.max_queued
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Acquire)
    }

    /// Requests that share forward passes.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Where the blocks for keys and values are.
    #[must_use]
    pub fn kv_use(&self) -> KvUse {
        let read = |count: &AtomicUsize| count.load(Ordering::Acquire);
        let Shared { kv_total, kv_held, kv_cached, .. } = &*self.shared;
        KvUse { total: read(kv_total), held: read(kv_held), cached: read(kv_cached) }
    }

    /// Refuses new requests and cancels those that wait or run.
    pub fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    /// What one answer may tell: a text for each token, and beside them Started, Prefilled, what was
    /// held back for unfinished characters and for stop strings, and Ended.
    fn most_events(&self, request: &GenerateRequest) -> usize {
        (request.max_tokens.max(1) as usize).min(self.info.context_length) + 5
    }

    fn send(&self, job: Job) -> Result<(), SubmitError> {
        // The channel has as many places as may be taken: it refuses only when the thread is gone.
        self.jobs.try_send(job).map_err(|_| SubmitError::Stopped)
    }

    /// So many more wait, if they may.
    fn take_places(&self, count: usize) -> Result<(), SubmitError> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(SubmitError::Stopped);
        }
        let more =
            |queued: usize| queued.checked_add(count).filter(|queued| *queued <= self.max_queued);
        let queued = &self.shared.queued;
        match queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(SubmitError::Busy),
        }
    }
}

impl Generation {
    /// What happens next; `None` after `Ended`, or if the engine's thread died.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await?.1
    }

    /// Asks the engine to stop at the next token. `Ended` still comes and says what was used.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}
