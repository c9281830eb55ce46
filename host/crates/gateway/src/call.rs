//! What goes into the life of a request and what comes out of it: a [`Call`], then an [`Answer`]
//! or a [`Refusal`].

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tollgate_domain::record::{FinishReason, Operation};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{CostOutcome, ErrorKind, RequestId, TokenUsage, TraceId, UnixNanos};
pub use tollgate_model::ChatMessage;

use crate::log;

/// How a request reached us, known before its body is read.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What is asked of us.
    pub operation: Operation,
    /// The HTTP method.
    pub method: String,
    /// The matched route.
    pub route: String,
    /// The `traceparent` header, as it came.
    pub traceparent: Option<String>,
    /// The `tracestate` header, as it came.
    pub tracestate: Option<String>,
    /// When it came.
    pub at: Moment,
}

/// One moment on both clocks: the wall clock says when, the monotonic one how long.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: UnixNanos,
    steady: Instant,
}

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self { wall: SystemTime::now().into(), steady: Instant::now() }
    }

    /// When it was.
    #[must_use]
    pub fn wall(&self) -> UnixNanos {
        self.wall
    }

    /// The wall-clock time of `later`, measured from here on the monotonic clock, so that a clock
    /// that is set meanwhile bends no duration.
    #[must_use]
    pub fn at(&self, later: Instant) -> UnixNanos {
        self.wall.plus(later.saturating_duration_since(self.steady))
    }

    /// From `start` to `end`, two moments after this one.
    pub(crate) fn interval(&self, start: Instant, end: Instant) -> Interval {
        Interval::new(self.at(start), self.at(end))
    }

    /// How long after this one `later` is.
    pub(crate) fn until(&self, later: Instant) -> Duration {
        later.saturating_duration_since(self.steady)
    }

    /// From here until now.
    pub(crate) fn until_now(&self) -> Interval {
        self.interval(self.steady, Instant::now())
    }
}

/// The prompt, in one of the forms the API takes.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Plain text, continued by the model.
    Text(String),
    /// Tokens of the served model, continued by the model.
    Tokens(Vec<u32>),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<ChatMessage>),
}

/// A well-formed request. Whether it can be served is for [`crate::Gateway::serve`] to say.
#[derive(Clone, Debug)]
pub struct Call {
    /// How it reached us.
    pub arrival: Arrival,
    /// The model as the client named it; `None` means the only one there is.
    pub model: Option<String>,
    /// The prompt.
    pub prompt: Prompt,
    /// Most tokens to generate; `None`: what the operation's default is.
    pub max_tokens: Option<u32>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus sampling, above 0, at most 1.
    pub top_p: Option<f64>,
    /// Sample among the best k.
    pub top_k: Option<u32>,
    /// Seed of the sampler.
    pub seed: Option<u64>,
    /// Stop strings.
    pub stop: Vec<String>,
    /// Whether the client reads the answer as it is made.
    pub stream: bool,
    /// The `user` field: the tenant, when no key names one.
    pub user: Option<String>,
}

/// The answer as it is made. Dropping it tells the gateway that the client is gone.
#[derive(Debug)]
pub struct Answer {
    /// The request.
    pub id: RequestId,
    /// Its trace.
    pub trace_id: TraceId,
    /// When it began.
    pub created: UnixNanos,
    /// The model as the client named it.
    pub model: String,
    pub(crate) events: mpsc::Receiver<AnswerEvent>,
}

impl Answer {
    /// What its request's lines in the log are joined by.
    #[must_use]
    pub fn log_span(&self) -> tracing::Span {
        log::span(self.trace_id, &self.id)
    }

    /// The next piece: texts, then one `Ended`, then nothing. `None` without an `Ended` before it
    /// is a fault of ours.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        self.events.recv().await
    }
}

/// One piece of an answer.
#[derive(Clone, Debug)]
pub enum AnswerEvent {
    /// More text; whole characters only.
    Text(String),
    /// The end. By now the record of the request is safe.
    Ended(Box<Ending>),
}

/// How an answer ended and what it took.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Why generation ended, or how it failed after it had begun.
    pub result: Result<FinishReason, Refusal>,
    /// Tokens used.
    pub tokens: TokenUsage,
    /// Where the counts come from.
    pub source: UsageSource,
    /// What it cost.
    pub cost: CostOutcome,
}

/// Why a request is not served, in words for the client.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What kind of failure; decides the status.
    pub kind: ErrorKind,
    /// What is wrong and what to do.
    pub message: String,
    /// The offending parameter.
    pub param: Option<Box<str>>,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// Set once the refusal is on record.
    pub recorded: Option<(RequestId, TraceId)>,
}

impl Refusal {
    /// A refusal with nothing but a kind and a message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, retry_after: None, recorded: None }
    }

    /// Names the offending parameter.
    #[must_use]
    pub fn param(mut self, param: impl Into<Box<str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when another try makes sense.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
