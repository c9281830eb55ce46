//! What goes into the life of a request and what comes out of it: a [`Call`], then an [`Answer`]
//! or a [`Refusal`].

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;
use tollgate_domain::admission::LimitApplied;
use tollgate_domain::record::{Asked, Operation};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{CostOutcome, ErrorKind, RequestId, TokenUsage, TraceId, UnixNanos, Usage};
pub use tollgate_model::ChatMessage;
use tollgate_tenancy::Principal;

use crate::piece::Piece;
use crate::tap::Tapped;

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
    /// Who asks.
    pub caller: Caller,
    /// When it came.
    pub at: Moment,
}

/// Who asks, as far as the key that was shown tells.
#[derive(Clone, Debug)]
pub struct Caller(pub(crate) Principal);

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
    /// Texts to embed.
    Inputs(Vec<Input>),
}

/// One of the texts that are to be embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// As text.
    Text(String),
    /// As tokens of the served model.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// Its length in characters, before any template; tokens have none.
    #[must_use]
    pub fn characters(&self) -> u64 {
        let characters = match self {
            Self::Text(text) => text.chars().count(),
            Self::Tokens(_) => 0,
            Self::Chat(messages) => messages.iter().map(|m| m.content.chars().count()).sum(),
            Self::Inputs(inputs) => {
                inputs.iter().filter_map(Input::text).map(|text| text.chars().count()).sum()
            }
        };
        characters as u64
    }
}

impl Input {
    /// It, where it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Tokens(_) => None,
        }
    }
}

/// Where a model is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// In this process.
    pub here: bool,
    /// By another server.
    pub elsewhere: bool,
}

/// A well-formed request. Whether it can be served is for [`crate::Gateway::serve`] to say.
#[derive(Clone, Debug)]
pub struct Call {
    /// How it reached us.
    pub arrival: Arrival,
    /// What is asked for. Without a model's name it means the only model there is.
    pub asked: Asked,
    /// The `user` field: the tenant, when no key names one.
    pub user: Option<String>,
    /// The prompt, if the model in this process can answer it.
    pub prompt: Option<Prompt>,
    /// How that model is to generate, beyond what goes on record.
    pub tuning: Tuning,
    /// The request as another server gets it, if one can answer it.
    pub forward: Option<Forward>,
}

/// How the model in this process is to generate, beyond what goes on record. The default changes
/// nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// Draw from tokens that are at least this likely, compared with the likeliest: 0 to 1.
    pub min_p: f64,
    /// What makes tokens less likely that the prompt or the answer has: above 0, 1 for nothing.
    pub repetition_penalty: f64,
    /// The same for each time that the answer has a token: -2 to 2.
    pub frequency_penalty: f64,
    /// The same for tokens that the answer has: -2 to 2.
    pub presence_penalty: f64,
    /// Added to the logits of these tokens: -100 to 100.
    pub logit_bias: Vec<(u32, f64)>,
    /// Tokens that end the text, beside the model's own.
    pub stop_token_ids: Vec<u32>,
    /// Whether the model's own end tokens do not end the text.
    pub ignore_eos: bool,
    /// Tokens before which nothing but the limit ends the text.
    pub min_tokens: u32,
    /// Whether to tell how likely tokens were: of each, and of as many of the likeliest.
    pub logprobs: Option<u32>,
    /// The same of the tokens of the prompt.
    pub prompt_logprobs: Option<u32>,
    /// Whether the answer begins with the prompt.
    pub echo: bool,
    /// Numbers of each vector, where texts are embedded and it is said.
    pub dimensions: Option<u32>,
    /// The JSON schema that the answer is held to, as JSON.
    pub schema: Option<String>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            echo: false,
            dimensions: None,
            schema: None,
        }
    }
}

/// A request as another server gets it.
#[derive(Clone, Debug)]
pub struct Forward {
    /// What comes after `/v1`, its query included: `/chat/completions`.
    pub path: String,
    /// The client's headers, all of them. What is no other server's affair does not go on.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
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
    /// What its pieces are.
    pub form: Form,
    /// Headers that say how much of its limits is left.
    pub headers: Vec<(&'static str, String)>,
    pub(crate) log: tracing::Span,
    pub(crate) events: mpsc::Receiver<AnswerEvent>,
}

/// What the pieces of an answer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Pieces of the model in this process, of so many choices.
    Pieces {
        /// At least 1.
        choices: usize,
    },
    /// The bytes of another server's answer.
    Forwarded(ForwardedHead),
}

/// The head of another server's answer, as far as it is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedHead {
    /// Its status.
    pub status: u16,
    /// What its body is.
    pub content_type: Option<String>,
    /// Other headers that are worth passing on.
    pub headers: Vec<(String, String)>,
    /// How its pieces come; a whole one comes with the end.
    pub form: tollgate_upstream::Form,
}

impl Answer {
    /// What its request's lines in the log are joined by.
    #[must_use]
    pub fn log_span(&self) -> tracing::Span {
        self.log.clone()
    }

    /// The next piece: pieces or bytes, then one `Ended`, then nothing. `None` without an `Ended` before it
    /// is a fault of ours.
    pub async fn next(&mut self) -> Option<AnswerEvent> {
        self.events.recv().await
    }
}

/// One piece of an answer.
#[derive(Clone, Debug)]
pub enum AnswerEvent {
    /// More of one choice.
    Piece(Piece),
    /// More of another server's answer, to be passed on as it is.
    Bytes(Bytes),
    /// The end. By now the record of the request is safe.
    Ended(Box<Ending>),
}

/// How an answer ended and what it took.
#[derive(Clone, Debug)]
pub struct Ending {
    /// How it failed after it had begun, if it did.
    pub result: Result<(), Refusal>,
    /// Tokens used.
    pub tokens: TokenUsage,
    /// Where the counts come from.
    pub source: UsageSource,
    /// What it cost.
    pub cost: CostOutcome,
    /// What another server's answer ends with, which was held back until now: all of it if it comes
    /// whole.
    pub rest: Bytes,
}

impl Ending {
    pub(crate) fn new(tapped: &mut Tapped, usage: &Usage, cost: &CostOutcome) -> Self {
        let (result, rest) = (tapped.result(), std::mem::take(&mut tapped.rest));
        Self { result, tokens: usage.tokens, source: usage.source, cost: cost.clone(), rest }
    }

    /// The same, unless it could not be put on record, which the client is told instead: what was held back is a good end,
    /// and stays here.
    pub(crate) fn if_recorded(mut self, recorded: Result<(), Refusal>) -> Self {
        if let Err(refusal) = recorded {
            (self.result, self.rest) = (Err(refusal), Bytes::new());
        }
        self
    }
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
    /// The limit that was reached, if it is one.
    pub limit: Option<Box<LimitReached>>,
    /// Set once the refusal is on record.
    pub recorded: Option<Box<(RequestId, TraceId)>>,
}

/// The limit that a request has met.
#[derive(Clone, Debug)]
pub struct LimitReached {
    /// Headers that say how much is left, and when to come again.
    pub headers: Vec<(&'static str, String)>,
    /// What goes on record.
    pub(crate) applied: LimitApplied,
}

impl Refusal {
    /// A refusal with nothing but a kind and a message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            param: None,
            retry_after: None,
            limit: None,
            recorded: None,
        }
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
