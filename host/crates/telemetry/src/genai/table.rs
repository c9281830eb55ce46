//! The table: under which names each fact of a call is kept, the newest name first.
//!
//! Sources: semantic conventions for generative AI from 1.27 to 1.42 and the drafts after it
//! (`gen_ai.*`), vLLM's `tracing/utils.py`, OpenInference's `semconv/trace`, OpenLLMetry's
//! `semconv_ai` in its older (`llm.*`) and newer form, Strands' `telemetry/tracer.py`, the tutorial.

use crate::names::{cost, tollgate, vllm};

/// Something that is known of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Operation,
    Provider,
    RequestModel,
    ResponseModel,
    /// Where one name stands for both.
    Model,
    Input,
    Output,
    Total,
    CacheRead,
    CacheWrite,
    Reasoning,
    InputAudio,
    InputImage,
    OutputAudio,
    OutputImage,
    ResponseId,
    /// The server's name of the request, which clients may choose.
    RequestId,
    ServiceTier,
    MaxTokens,
    Temperature,
    TopP,
    Stream,
    FinishReason,
    /// Seconds from the start.
    FirstToken,
    User,
    /// Who pays, on a span or on its process.
    Tenant,
    /// How cached tokens are counted, where no total tells: on a span, its scope or its process.
    Cached,
    /// What OpenInference says that a span is of.
    Kind,
    /// Where it keeps an answer as it came, and what that is.
    Answer,
    AnswerType,
    /// How long vLLM says that all of it took.
    EndToEnd,
    /// What only a Tollgate tells.
    Ours,
}

/// All of them.
pub(super) const FACTS: [Fact; 32] = [
    Fact::Operation,
    Fact::Provider,
    Fact::RequestModel,
    Fact::ResponseModel,
    Fact::Model,
    Fact::Input,
    Fact::Output,
    Fact::Total,
    Fact::CacheRead,
    Fact::CacheWrite,
    Fact::Reasoning,
    Fact::InputAudio,
    Fact::InputImage,
    Fact::OutputAudio,
    Fact::OutputImage,
    Fact::ResponseId,
    Fact::RequestId,
    Fact::ServiceTier,
    Fact::MaxTokens,
    Fact::Temperature,
    Fact::TopP,
    Fact::Stream,
    Fact::FinishReason,
    Fact::FirstToken,
    Fact::User,
    Fact::Tenant,
    Fact::Cached,
    Fact::Kind,
    Fact::Answer,
    Fact::AnswerType,
    Fact::EndToEnd,
    Fact::Ours,
];

/// The names of a fact.
pub(super) fn keys(fact: Fact) -> &'static [&'static str] {
    match fact {
        Fact::Operation => &["gen_ai.operation.name", "llm.request.type"],
        Fact::Provider => {
            &["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor"]
        }
        Fact::RequestModel => {
            &["gen_ai.request.model", "llm.request.model_name", "llm.request.model"]
        }
        Fact::ResponseModel => {
            &["gen_ai.response.model", "llm.response.model_name", "llm.response.model"]
        }
        Fact::Model => &["llm.model_name", "embedding.model_name", "llm.model"],
        Fact::Input => &[
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.token_count.prompt",
            "llm.usage.prompt_tokens",
            "llm.prompt_tokens",
        ],
        Fact::Output => &[
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.token_count.completion",
            "llm.usage.completion_tokens",
            "llm.completion_tokens",
        ],
        Fact::Total => &[
            "gen_ai.usage.total_tokens",
            "llm.token_count.total",
            "llm.usage.total_tokens",
            "llm.total_tokens",
        ],
        Fact::CacheRead => &[
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.cache_read_input_tokens",
            "gen_ai.usage.cached_tokens",
            "gen_ai.usage.details.cache_read_tokens",
            "gen_ai.usage.details.cache_read_input_tokens",
            "gen_ai.usage.details.cached_tokens",
            "llm.token_count.prompt_details.cache_read",
            "llm.token_count.prompt_details.cache_input",
            "llm.usage.cache_read_input_tokens",
        ],
        Fact::CacheWrite => &[
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_creation_input_tokens",
            "gen_ai.usage.cache_write_input_tokens",
            "gen_ai.usage.details.cache_write_tokens",
            "gen_ai.usage.details.cache_creation_input_tokens",
            "llm.token_count.prompt_details.cache_write",
            "llm.usage.cache_creation_input_tokens",
        ],
        Fact::Reasoning => &[
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.usage.reasoning_tokens",
            "llm.token_count.completion_details.reasoning",
            "llm.usage.reasoning_tokens",
        ],
        Fact::InputAudio => {
            &["gen_ai.usage.audio.input_tokens", "llm.token_count.prompt_details.audio"]
        }
        Fact::InputImage => &["gen_ai.usage.image.input_tokens"],
        Fact::OutputAudio => {
            &["gen_ai.usage.audio.output_tokens", "llm.token_count.completion_details.audio"]
        }
        Fact::OutputImage => &["gen_ai.usage.image.output_tokens"],
        Fact::ResponseId => &["gen_ai.response.id", "llm.response.id"],
        Fact::RequestId => &["gen_ai.request.id"],
        Fact::ServiceTier => &[
            "openai.response.service_tier",
            "gen_ai.openai.response.service_tier",
            "openai.request.service_tier",
            "gen_ai.openai.request.service_tier",
        ],
        Fact::MaxTokens => &["gen_ai.request.max_tokens", "llm.max_tokens"],
        Fact::Temperature => &["gen_ai.request.temperature", "llm.temperature"],
        Fact::TopP => &["gen_ai.request.top_p", "llm.top_p"],
        Fact::Stream => &["gen_ai.request.stream", "llm.is_streaming"],
        Fact::FinishReason => &["gen_ai.response.finish_reasons", "llm.finish_reason"],
        Fact::FirstToken => {
            &["gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token"]
        }
        Fact::User => {
            &["llm.user", "user.id", "enduser.id", "traceloop.association.properties.user_id"]
        }
        Fact::Tenant => &["tollgate.tenant", "tenant.id"],
        Fact::Cached => &["tollgate.usage.cached"],
        Fact::Kind => &["openinference.span.kind"],
        Fact::Answer => &["output.value"],
        Fact::AnswerType => &["output.mime_type"],
        Fact::EndToEnd => &[vllm::E2E],
        Fact::Ours => &[cost::STATUS, tollgate::OUTCOME, tollgate::BACKEND],
    }
}

/// How cached tokens may be said to be counted.
pub(super) const CACHED_APART: &str = "apart";
pub(super) const CACHED_INCLUDED: &str = "included";

/// Anthropic's own names of cached tokens. Who writes them without being one of the dialects that are
/// known passes on what its API says, which counts them apart.
pub(super) const ANTHROPIC_CACHED: &[&str] =
    &["gen_ai.usage.cache_read_input_tokens", "gen_ai.usage.cache_creation_input_tokens"];

/// Scopes of instrumentations that are known to count them in, whatever the provider does.
pub(super) const COUNTS_CACHED_IN: &str = "opentelemetry.instrumentation.";

/// Whether a provider's own API, for this model, counts cached tokens apart from the input.
pub(super) fn counts_cached_apart(provider: &str, model: &str) -> bool {
    let of_anthropic = || ["anthropic", "claude"].iter().any(|name| model.contains(name));
    provider == "anthropic" || (provider == "aws.bedrock" && of_anthropic())
}

/// What an answer is, of which the id is read.
pub(super) const JSON: &str = "application/json";

/// Longest answer that is read for its id.
pub(super) const OUTPUT_BYTES: usize = 1 << 20;

/// Longest name of a tenant.
pub(super) const TENANT_BYTES: usize = 256;

/// Operations that call a model: such a span is a request also where it tells of no token. Others
/// (agents, tools, workflows) are one only with counts.
pub(super) const INFERENCE: &[&str] =
    &["chat", "text_completion", "generate_content", "embeddings"];

/// An operation by its name of today.
pub(super) fn operation(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "completion" | "text_completion" => "text_completion",
        "embedding" | "embeddings" => "embeddings",
        "chat" | "message" | "messages" | "chat_completion" => "chat",
        _ => name,
    }
    .to_owned()
}

/// A provider by its name of today.
pub(super) fn provider(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    match name.as_str() {
        "az.ai.openai" | "azure" | "azure_openai" | "azure openai" => "azure.ai.openai",
        "az.ai.inference" => "azure.ai.inference",
        "aws" | "bedrock" | "aws_bedrock" => "aws.bedrock",
        "vertex_ai" | "vertexai" | "google_vertexai" => "gcp.vertex_ai",
        "gemini" => "gcp.gemini",
        "google" | "google_genai" => "gcp.gen_ai",
        "mistralai" | "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "watsonx" | "ibm" => "ibm.watsonx.ai",
        _ => return name,
    }
    .to_owned()
}
