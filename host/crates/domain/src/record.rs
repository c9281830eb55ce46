//! The record: everything known of one request when it ends. Spans, metrics and bills are built
//! from it and from nothing else.

use serde::{Deserialize, Serialize};

use crate::admission::Admission;
use crate::cost::CostOutcome;
use crate::error::ErrorKind;
use crate::id::{RequestId, SpanContext, SpanId, TraceId};
use crate::received::ReceivedCall;
use crate::time::{Interval, UnixNanos};
use crate::upstream::UpstreamCall;
use crate::usage::Usage;

/// `gen_ai.operation.name` of what we serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    TextCompletion,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/responses`.
    Responses,
    /// Anything else under `/v1`, which is passed through.
    Other,
}

impl Operation {
    /// Its name in the GenAI conventions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            // The conventions know the Responses API as another form of chat.
            Self::Chat | Self::Responses => "chat",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::Other => "other",
        }
    }

    /// The `id` of our own answer to `request`, in OpenAI's form.
    #[must_use]
    pub fn answer_id(self, request: &RequestId) -> String {
        match self {
            Self::Chat => format!("chatcmpl-{request}"),
            Self::TextCompletion => format!("cmpl-{request}"),
            Self::Responses => format!("resp_{request}"),
            Self::Embeddings | Self::Other => request.to_string(),
        }
    }
}

/// Where the request stands in its trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePlace {
    /// The trace, the client's if it sent one.
    pub trace_id: TraceId,
    /// Our root span; its children's ids follow from it.
    pub root: SpanId,
    /// The client's span, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanContext>,
}

/// What the client asked for, as far as telemetry tells it. `None`: it did not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The model as the client named it.
    pub model: String,
    /// Most tokens to generate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Sampling temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Sampling among the best k.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Seed of the sampler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Stop strings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Length of the prompt in characters, before any template.
    pub prompt_characters: u64,
    /// Answers to the one prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<u32>,
}

/// Who served it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedBy {
    /// `gen_ai.provider.name`.
    pub provider: String,
    /// The model that answered.
    pub model: String,
}

/// The HTTP exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpExchange {
    /// `POST`.
    pub method: String,
    /// The matched route, `/v1/completions`.
    pub route: String,
    /// Status of the answer.
    pub status: u16,
}

/// When each phase was. A phase that was not reached is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// From the last byte of the request to the end of accounting.
    pub request: Interval,
    /// Making tokens of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenize: Option<Interval>,
    /// Waiting for the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Interval>,
    /// Reading the prompt into the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<Interval>,
    /// Generating.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Interval>,
    /// When the first text was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token: Option<UnixNanos>,
}

/// What a request met on its way through the engine of this process. Zero for what did not happen.
/// Of a request with several choices these are sums, unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineFacts {
    /// Pieces in which its prompt was read.
    pub prefill_chunks: u32,
    /// Tokens of the prompt whose keys and values were there already, before any choice.
    pub cached_tokens: u32,
    /// Forward passes that it was in; one with several of its choices counts for each.
    pub passes: u32,
    /// Sequences in these passes on average, itself included.
    pub batch_mean: f64,
    /// Sequences in the largest of them.
    pub batch_max: u32,
    /// Most blocks of keys and values that it, or one of its choices, held at a time.
    pub kv_blocks_peak: u32,
    /// Times that its memory was given to others.
    pub preemptions: u32,
    /// Tokens that were computed again because of that.
    pub recomputed_tokens: u32,
    /// Nanoseconds that it waited again because of that.
    pub requeued_nanos: u64,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its text, or a stop string matched.
    Stop,
    /// `max_tokens` or the context was used up.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// A filter of the backend cut the answer.
    ContentFilter,
    /// The backend has a word of its own for it.
    Other,
}

impl FinishReason {
    /// OpenAI's `finish_reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other => "other",
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The answer is whole.
    Completed {
        /// Why generation ended, of the first choice if there are several; absent where the answer
        /// names no reason, as embeddings do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<FinishReason>,
    },
    /// The client went away or stopped reading.
    ClientGone,
    /// Refused before the backend saw it.
    Refused {
        /// What kind of refusal.
        kind: ErrorKind,
        /// What the client was told.
        message: String,
    },
    /// The backend failed.
    Failed {
        /// What kind of failure.
        kind: ErrorKind,
        /// What happened.
        message: String,
    },
    /// The gateway's process ended while it was served; found by the next one.
    Aborted,
}

impl Outcome {
    /// Its name on spans and in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::ClientGone => "client_gone",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// What was said, where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The conversation, oldest message first.
    pub input: Vec<Message>,
    /// The answers, one for each choice.
    pub output: Vec<Message>,
    /// Why generation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Whether anything was left out.
    pub truncated: bool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// What was said.
    pub text: String,
}

/// Everything known of one request when it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The request.
    pub id: RequestId,
    /// What was asked of us.
    pub operation: Operation,
    /// Where it stands in its trace.
    pub trace: TracePlace,
    /// Who pays, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The `user` field, whoever pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the client asked for.
    pub asked: Asked,
    /// Who served it; absent if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<ServedBy>,
    /// The HTTP exchange.
    pub http: HttpExchange,
    /// Timings.
    pub phases: Phases,
    /// How it ended.
    pub outcome: Outcome,
    /// Why each choice ended, in their order, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<FinishReason>,
    /// What it used; absent if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What it cost.
    pub cost: CostOutcome,
    /// On what terms it was let in, where keys or limits say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// What it met in the engine of this process, where that served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineFacts>,
    /// The call to another server, where one served it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamCall>,
    /// What was said; only for tenants whose operator asked to keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The span that tells of it, where another program served it and sent us that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Box<ReceivedCall>>,
}
