//! Names, units and bounds of the families that count requests, grouped by who defined them. What
//! plugins, ledger and exporters count has its names where it is counted.

use super::Unit;

/// A family's name, what it says, what it is measured in, and the bounds of its histograms.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// As in the description of [`super`].
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Of its values.
    pub unit: Unit,
    /// Empty if it is no histogram.
    pub bounds: &'static [f64],
}

impl Name {
    const fn plain(name: &'static str, help: &'static str) -> Self {
        Self { name, help, unit: Unit::None, bounds: &[] }
    }

    const fn seconds(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, unit: Unit::Seconds, bounds }
    }

    const fn tokens(name: &'static str, help: &'static str, bounds: &'static [f64]) -> Self {
        Self { name, help, unit: Unit::Tokens, bounds }
    }
}

/// Source: the tutorial, and its style for the two that it does not have. Its labels are its
/// attributes.
pub mod llm {
    use super::Name;

    /// Of requests that were served, whole or in part.
    pub const PROMPT_TOKENS: Name =
        Name::tokens("llm.prompt_tokens", "Tokens of the prompts of served requests.", &[]);
    /// Likewise.
    pub const COMPLETION_TOKENS: Name =
        Name::tokens("llm.completion_tokens", "Tokens of the answers to served requests.", &[]);
    /// The tutorial's.
    pub const TOTAL_TOKENS: Name =
        Name::tokens("llm.total_tokens", "Tokens of served requests, prompt and answer.", &[]);
    /// The tutorial's. Has no series where nothing was ever priced in US dollars.
    pub const ESTIMATED_COST_USD: Name = Name::plain(
        "llm.estimated_cost_usd",
        "Cost in US dollars of requests that have a price; credits are in tollgate_cost_credit.",
    );
    /// The model as the client named it.
    pub const MODEL: &str = "llm.model";
    /// Who pays.
    pub const USER: &str = "llm.user";
}

/// Source: semantic conventions for generative AI, 1.41.1 (status: development).
pub mod gen_ai {
    use super::Name;

    /// Of every request, refused ones included.
    pub const REQUEST_DURATION: Name = Name::seconds(
        "gen_ai.server.request.duration",
        "Time of a request, from its last byte to the end of its accounting.",
        &DURATION_BOUNDS,
    );
    /// Of whole answers.
    pub const TIME_TO_FIRST_TOKEN: Name = Name::seconds(
        "gen_ai.server.time_to_first_token",
        "Time from a request's last byte to its first text, of requests answered whole.",
        &[
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0,
        ],
    );
    /// Of whole answers of more than one token.
    pub const TIME_PER_OUTPUT_TOKEN: Name = Name::seconds(
        "gen_ai.server.time_per_output_token",
        "Time of each token after the first, of requests answered whole.",
        &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5],
    );
    /// The one name that the conventions have for tokens.
    pub const TOKEN_USAGE: Name = Name::tokens(
        "gen_ai.client.token.usage",
        "Tokens of a served request; not of those whose tokens are an estimate.",
        &[
            1.0,
            4.0,
            16.0,
            64.0,
            256.0,
            1024.0,
            4096.0,
            16384.0,
            65536.0,
            262_144.0,
            1_048_576.0,
            4_194_304.0,
            16_777_216.0,
            67_108_864.0,
        ],
    );
    /// Seconds.
    pub const DURATION_BOUNDS: [f64; 14] =
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
    /// `input` or `output`.
    pub const TOKEN_TYPE: &str = "gen_ai.token.type";
}

/// Source: vLLM, for what means the same here.
pub mod vllm {
    use super::Name;

    /// A gauge.
    pub const REQUESTS_RUNNING: Name =
        Name::plain("vllm:num_requests_running", "Requests that the engine works on.");
    /// A gauge.
    pub const REQUESTS_WAITING: Name =
        Name::plain("vllm:num_requests_waiting", "Requests that wait for the engine.");
    /// A counter.
    pub const PROMPT_TOKENS: Name =
        Name::tokens("vllm:prompt_tokens", "Tokens of prompts that were read.", &[]);
    /// A counter.
    pub const PROMPT_TOKENS_CACHED: Name =
        Name::tokens("vllm:prompt_tokens_cached", "Tokens of prompts that a cache served.", &[]);
    /// A counter.
    pub const GENERATION_TOKENS: Name =
        Name::tokens("vllm:generation_tokens", "Tokens that were generated.", &[]);
    /// A counter.
    pub const REQUEST_SUCCESS: Name =
        Name::plain("vllm:request_success", "Requests that the engine ended, by how.");
    /// `stop`, `length`, `abort` or `error`.
    pub const FINISHED_REASON: &str = "finished_reason";
    /// The model that served.
    pub const MODEL_NAME: &str = "model_name";

    /// Tokens of each prompt.
    pub const REQUEST_PROMPT_TOKENS: Name =
        Name::tokens("vllm:request_prompt_tokens", "Tokens of a prompt.", &TOKEN_BOUNDS);
    /// Tokens of each answer.
    pub const REQUEST_GENERATION_TOKENS: Name =
        Name::tokens("vllm:request_generation_tokens", "Tokens of an answer.", &TOKEN_BOUNDS);
    /// From arrival to the first text.
    pub const TIME_TO_FIRST_TOKEN: Name = Name::seconds(
        "vllm:time_to_first_token",
        "Time from a request's arrival to its first text.",
        &[
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
        ],
    );
    /// Decode time over the tokens after the first.
    pub const TIME_PER_OUTPUT_TOKEN: Name = Name::seconds(
        "vllm:request_time_per_output_token",
        "Time of each token after the first, on average over a request.",
        &[
            0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0,
        ],
    );
    /// From arrival to the last token.
    pub const E2E_LATENCY: Name = Name::seconds(
        "vllm:e2e_request_latency",
        "Time from a request's arrival to its last token.",
        &LATENCY_BOUNDS,
    );
    /// Waiting for the engine.
    pub const QUEUE_TIME: Name = Name::seconds(
        "vllm:request_queue_time",
        "Time that a request waited for the engine.",
        &LATENCY_BOUNDS,
    );
    /// Prefill and decode.
    pub const INFERENCE_TIME: Name = Name::seconds(
        "vllm:request_inference_time",
        "Time that a request was being worked on.",
        &LATENCY_BOUNDS,
    );
    /// Reading the prompt.
    pub const PREFILL_TIME: Name = Name::seconds(
        "vllm:request_prefill_time",
        "Time in which a request's prompt was read.",
        &LATENCY_BOUNDS,
    );
    /// Generating.
    pub const DECODE_TIME: Name = Name::seconds(
        "vllm:request_decode_time",
        "Time in which a request's answer was generated.",
        &LATENCY_BOUNDS,
    );

    /// Seconds.
    pub const LATENCY_BOUNDS: [f64; 21] = [
        0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
        240.0, 480.0, 960.0, 1920.0, 7680.0,
    ];
    /// vLLM's series of 1, 2 and 5, which it ends at the length of the model's context.
    pub const TOKEN_BOUNDS: [f64; 19] = [
        1.0,
        2.0,
        5.0,
        10.0,
        20.0,
        50.0,
        100.0,
        200.0,
        500.0,
        1000.0,
        2000.0,
        5000.0,
        10_000.0,
        20_000.0,
        50_000.0,
        100_000.0,
        200_000.0,
        500_000.0,
        1_000_000.0,
    ];
}

/// Source: ours.
pub mod tollgate {
    use super::Name;

    /// A gauge that is 1; the version is its label.
    pub const BUILD_INFO: Name = Name::plain("tollgate.build_info", "Which version this is.");
    /// A counter.
    pub const REQUESTS: Name =
        Name::plain("tollgate.requests", "Requests ended, by outcome and status of their cost.");
    /// A counter.
    pub const REQUESTS_UNPRICED: Name = Name::plain(
        "tollgate.requests.unpriced",
        "Requests that were served and have no price, by model and reason.",
    );
    /// A counter.
    pub const REQUESTS_UNAUTHORIZED: Name = Name::plain(
        "tollgate.requests.unauthorized",
        "Requests without a key that holds, by what was wrong with it. They are not on record.",
    );
    /// Of other programs.
    pub const OTLP_REQUESTS: Name = Name::plain(
        "tollgate.otlp.requests",
        "Requests with spans of other programs, by whether they were taken or why not.",
    );
    /// A span that is passed on is counted as such, and once more where it says why it is not billed.
    pub const OTLP_SPANS: Name = Name::plain(
        "tollgate.otlp.received_spans",
        "Spans of other programs: billed as priced, estimated, unpriced or plugin_failed; passed, \
         of those counted_elsewhere and ours; duplicate and rejected.",
    );
    /// A gauge.
    pub const REQUESTS_IN_FLIGHT: Name = Name::plain(
        "tollgate.requests.in_flight",
        "Requests that were admitted and are not accounted for yet.",
    );
    /// A counter of money.
    pub const COST: Name = Name::plain(
        "tollgate.cost",
        "Cost of requests that have a price, in major units of the currency.",
    );
    /// A counter of money.
    pub const COST_CREDIT: Name = Name::plain(
        "tollgate.cost.credit",
        "What requests whose price is below zero were credited, in major units of the currency.",
    );
    /// A histogram.
    pub const GATEWAY_OVERHEAD: Name = Name::seconds(
        "tollgate.gateway.overhead",
        "Time of a served request that the gateway took for itself, not waiting for the backend.",
        &[
            0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
            0.25, 0.5, 1.0, 2.5,
        ],
    );
    /// A gauge.
    pub const SERIES_LEFT_OUT: Name = Name::plain(
        "tollgate.metrics.series_left_out",
        "Series of this page that did not fit into their family.",
    );
    /// Requests whose name of a model or a tenant is counted as `other`.
    pub const NAMES_LEFT_OUT: Name = Name::plain(
        "tollgate.metrics.names_left_out",
        "Served requests counted under `other`, since there were too many names before them.",
    );
}
