//! Every span, event and attribute name, once, grouped by who defined it.
//!
//! The GenAI names are constants of our own because the crate of OpenTelemetry's conventions
//! marks all of them deprecated since they moved to a repository of their own.

/// Instrumentation scope of all spans.
pub const SCOPE: &str = "tollgate";

/// The conventions' version that the names below follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.1";

/// Span names. Source: the tutorial, and `inference.queue` of ours in its style.
pub mod span {
    /// The whole request; the only SERVER span.
    pub const REQUEST: &str = "inference.request";
    /// Waiting for the engine.
    pub const QUEUE: &str = "inference.queue";
    /// Making tokens of the prompt.
    pub const TOKENIZE: &str = "inference.tokenize";
    /// Reading the prompt into the model.
    pub const PREFILL: &str = "inference.prefill";
    /// Generating.
    pub const DECODE: &str = "inference.decode";
}

/// Event names. Source: the tutorial for `rate_limit.applied`; ours, since no convention names the
/// others.
pub mod event {
    /// The first text was ready; carries [`super::llm::TIME_TO_FIRST_TOKEN_MS`].
    pub const FIRST_TOKEN: &str = "gen_ai.first_token";
    /// A plugin gave no usable answer.
    pub const PLUGIN_FAILED: &str = "tollgate.plugin.failed";
    /// An attempt at a backend failed, and another was made.
    pub const UPSTREAM_RETRY: &str = "tollgate.upstream.retry";
    /// A limit or a budget refused the request.
    pub const RATE_LIMIT_APPLIED: &str = "rate_limit.applied";
    /// More is spent of a budget than its soft threshold.
    pub const BUDGET_SOFT: &str = "tollgate.budget.soft_threshold";
}

/// Source: the tutorial, and its style for what it does not have. Milliseconds are doubles.
pub mod llm {
    #![expect(missing_docs, reason = "the tutorial's names say it all")]
    pub const MODEL: &str = "llm.model";
    pub const REQUEST_ID: &str = "llm.request_id";
    pub const MAX_TOKENS: &str = "llm.max_tokens";
    pub const TEMPERATURE: &str = "llm.temperature";
    pub const USER: &str = "llm.user";
    pub const PROMPT_TOKENS: &str = "llm.prompt_tokens";
    pub const PROMPT_LENGTH_CHARS: &str = "llm.prompt_length_chars";
    pub const COMPLETION_TOKENS: &str = "llm.completion_tokens";
    pub const TOTAL_TOKENS: &str = "llm.total_tokens";
    /// Double, US dollars. Absent, never zero, where there is no price in US dollars.
    pub const ESTIMATED_COST_USD: &str = "llm.estimated_cost_usd";
    pub const TRACE_ID: &str = "llm.trace_id";
    pub const PREFILL_LATENCY_MS: &str = "llm.prefill_latency_ms";
    pub const DECODE_LATENCY_MS: &str = "llm.decode_latency_ms";
    /// Ours, in the tutorial's style.
    pub const QUEUE_LATENCY_MS: &str = "llm.queue_latency_ms";
    /// Ours, in the tutorial's style.
    pub const TIME_TO_FIRST_TOKEN_MS: &str = "llm.time_to_first_token_ms";
}

/// Source: semantic conventions for generative AI, 1.41.1 (status: development).
pub mod gen_ai {
    #![expect(missing_docs, reason = "the convention documents them")]
    pub const OPERATION_NAME: &str = "gen_ai.operation.name";
    pub const PROVIDER_NAME: &str = "gen_ai.provider.name";
    pub const REQUEST_MODEL: &str = "gen_ai.request.model";
    pub const REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
    pub const REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
    pub const REQUEST_TOP_P: &str = "gen_ai.request.top_p";
    pub const REQUEST_TOP_K: &str = "gen_ai.request.top_k";
    pub const REQUEST_SEED: &str = "gen_ai.request.seed";
    /// Set only if more than one answer was asked for.
    pub const REQUEST_CHOICE_COUNT: &str = "gen_ai.request.choice.count";
    pub const REQUEST_STOP_SEQUENCES: &str = "gen_ai.request.stop_sequences";
    /// Only where content is kept.
    pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
    /// Only where content is kept.
    pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
    /// Set only if true.
    pub const REQUEST_STREAM: &str = "gen_ai.request.stream";
    pub const RESPONSE_ID: &str = "gen_ai.response.id";
    pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
    pub const RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
    /// Double, seconds; streamed answers only.
    pub const RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
    pub const USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
    pub const USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
    pub const USAGE_CACHE_READ_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
    pub const USAGE_CACHE_CREATION_INPUT_TOKENS: &str = "gen_ai.usage.cache_creation.input_tokens";
    pub const USAGE_REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
}

/// Source: proposal 443 to the GenAI conventions (open).
pub mod gen_ai_cost {
    /// Double, in major units of the currency. The exact amount is [`super::cost::AMOUNT`].
    pub const AMOUNT: &str = "gen_ai.usage.cost.amount";
    /// ISO 4217.
    pub const CURRENCY: &str = "gen_ai.usage.cost.currency";
    /// `provider` or `local`; always [`SOURCE_LOCAL`] here.
    pub const SOURCE: &str = "gen_ai.usage.cost.source";
    /// Computed here and not by the provider.
    pub const SOURCE_LOCAL: &str = "local";
}

/// Source: vLLM's tracing. Doubles, seconds.
pub mod vllm {
    /// Waiting for the engine.
    pub const TIME_IN_QUEUE: &str = "gen_ai.latency.time_in_queue";
    /// From the request to the first text.
    pub const TIME_TO_FIRST_TOKEN: &str = "gen_ai.latency.time_to_first_token";
    /// The whole request.
    pub const E2E: &str = "gen_ai.latency.e2e";
    /// Reading the prompt.
    pub const TIME_IN_MODEL_PREFILL: &str = "gen_ai.latency.time_in_model_prefill";
    /// Generating.
    pub const TIME_IN_MODEL_DECODE: &str = "gen_ai.latency.time_in_model_decode";
}

/// Source: ours. What became of pricing the request.
pub mod cost {
    /// Exact decimal number of major units, as text.
    pub const AMOUNT: &str = "tollgate.cost.amount";
    /// ISO 4217.
    pub const CURRENCY: &str = "tollgate.cost.currency";
    /// `priced`, `estimated`, `unpriced` or `plugin_failed`. Always there.
    pub const STATUS: &str = "tollgate.cost.status";
    /// Why there is no amount.
    pub const REASON: &str = "tollgate.cost.reason";
    /// The cost plugin.
    pub const PLUGIN_NAME: &str = "tollgate.cost.plugin.name";
    /// Its version.
    pub const PLUGIN_VERSION: &str = "tollgate.cost.plugin.version";
    /// SHA-256 of its file.
    pub const PLUGIN_DIGEST: &str = "tollgate.cost.plugin.digest";
    /// SHA-256 of the configuration it had. Set only if it had one.
    pub const PLUGIN_CONFIG_DIGEST: &str = "tollgate.cost.plugin.config_digest";
}

/// Source: ours. What no convention has a name for.
pub mod tollgate {
    /// Who pays.
    pub const TENANT: &str = "tollgate.tenant";
    /// `completed`, `client_gone`, `refused`, `failed` or `aborted`.
    pub const OUTCOME: &str = "tollgate.outcome";
    /// `reported`, `counted` or `estimated`.
    pub const USAGE_SOURCE: &str = "tollgate.usage.source";
    /// `counted_elsewhere` on a choice that is billed without its prompt, which another one of the same
    /// request is billed with.
    pub const USAGE_PROMPT: &str = "tollgate.usage.prompt";
    /// Operator's label of the hardware that served.
    pub const USAGE_DEVICE: &str = "tollgate.usage.device";
    /// Set only if something was left out of the content that is kept.
    pub const CONTENT_TRUNCATED: &str = "tollgate.content.truncated";
    /// Device time given to the request, whole nanoseconds.
    pub const USAGE_DEVICE_TIME_NS: &str = "tollgate.usage.device_time_ns";
    /// The backend that answered, as the configuration names it.
    pub const BACKEND: &str = "tollgate.backend";
    /// Of a failed attempt: the backend that was asked.
    pub const RETRY_BACKEND: &str = "tollgate.upstream.retry.backend";
    /// Of a failed attempt: how.
    pub const RETRY_ERROR: &str = "tollgate.upstream.retry.error";
    /// Pieces in which the prompt was read.
    pub const PREFILL_CHUNKS: &str = "tollgate.engine.prefill_chunks";
    /// Tokens of the prompt whose keys and values were there already.
    pub const CACHED_TOKENS: &str = "tollgate.engine.cached_tokens";
    /// Forward passes that the request was in.
    pub const PASSES: &str = "tollgate.engine.passes";
    /// Double: sequences in these passes on average, itself included.
    pub const BATCH_MEAN: &str = "tollgate.engine.batch_mean";
    /// Sequences in the largest of them.
    pub const BATCH_MAX: &str = "tollgate.engine.batch_max";
    /// Most blocks of keys and values that it held at a time.
    pub const KV_BLOCKS: &str = "tollgate.engine.kv_blocks_peak";
    /// Times that its memory was given to others.
    pub const PREEMPTIONS: &str = "tollgate.engine.preemptions";
    /// Tokens that were computed again because of that.
    pub const RECOMPUTED_TOKENS: &str = "tollgate.engine.recomputed_tokens";
    /// Double, milliseconds that it waited again because of that.
    pub const REQUEUED_MS: &str = "tollgate.engine.requeued_ms";
    /// Id of the API key, which is no secret.
    pub const KEY_ID: &str = "tollgate.key.id";
    /// Whose limit was reached: `key`, `tenant` or `model`.
    pub const LIMIT_SCOPE: &str = "tollgate.limit.scope";
    /// Of what: `requests`, `tokens`, `concurrent` or `budget`.
    pub const LIMIT_OF: &str = "tollgate.limit.of";
    /// How much is allowed, in words.
    pub const LIMIT: &str = "tollgate.limit";
    /// How limits were kept without the store they share: `open`, `closed` or `local`.
    pub const LIMITS_DEGRADED: &str = "tollgate.limits.degraded";
    /// Of a budget that is nearly spent: which, in words.
    pub const BUDGET: &str = "tollgate.budget";
    /// Of a failed plugin: its name.
    pub const PLUGIN_NAME: &str = "tollgate.plugin.name";
    /// Of a failed plugin: its version.
    pub const PLUGIN_VERSION: &str = "tollgate.plugin.version";
    /// Of a failed plugin: SHA-256 of its file.
    pub const PLUGIN_DIGEST: &str = "tollgate.plugin.digest";
    /// Of a failed plugin: `cost-model`, `attribute-enricher` or `export-filter`.
    pub const PLUGIN_ROLE: &str = "tollgate.plugin.role";
    /// Of a failed plugin: the kind of fault.
    pub const PLUGIN_FAULT_KIND: &str = "tollgate.plugin.fault.kind";
    /// Of a failed plugin: one line for people.
    pub const PLUGIN_FAULT_MESSAGE: &str = "tollgate.plugin.fault.message";
}

/// Source: semantic conventions for HTTP, 1.41.1 (stable).
pub mod http {
    #![expect(missing_docs, reason = "the convention documents them")]
    pub const REQUEST_METHOD: &str = "http.request.method";
    pub const ROUTE: &str = "http.route";
    pub const RESPONSE_STATUS_CODE: &str = "http.response.status_code";
    pub const SERVER_ADDRESS: &str = "server.address";
    pub const SERVER_PORT: &str = "server.port";
    pub const ERROR_TYPE: &str = "error.type";
    /// `error.type` of a request whose client went away.
    pub const ERROR_TYPE_CLIENT_GONE: &str = "client_gone";
    /// `error.type` of a request that was in flight when the gateway's process ended.
    pub const ERROR_TYPE_ABORTED: &str = "aborted";
}

/// Source: semantic conventions for resources, 1.41.1; `deployment.environment` is the name
/// before 1.27, which the tutorial uses.
pub mod resource {
    #![expect(missing_docs, reason = "the convention documents them")]
    pub const SERVICE_NAME: &str = "service.name";
    pub const SERVICE_VERSION: &str = "service.version";
    pub const DEPLOYMENT_ENVIRONMENT: &str = "deployment.environment";
    pub const DEPLOYMENT_ENVIRONMENT_NAME: &str = "deployment.environment.name";
    pub const SDK_NAME: &str = "telemetry.sdk.name";
    pub const SDK_LANGUAGE: &str = "telemetry.sdk.language";
    pub const SDK_VERSION: &str = "telemetry.sdk.version";
}
