//! What a request used: the input of every price.

use serde::{Deserialize, Serialize};

use crate::span::is_zero;
use crate::time::UnixNanos;

/// Where token counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// Reported by the engine or the upstream that served the request.
    Reported,
    /// Counted by the gateway with the served model's own tokenizer.
    Counted,
    /// Counted by the gateway with another tokenizer; a cost from it is an estimate.
    Estimated,
}

impl UsageSource {
    /// Its name on spans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
        }
    }
}

/// How far the request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The stream is open; counts so far. For budgets, never for bills.
    Interim,
    /// It ended normally.
    Final,
    /// The client went away or the backend failed; what was used is billed.
    Interrupted,
}

/// Token counts with OpenTelemetry's meaning: `input` and `output` are totals, the others are
/// parts of them and never to be added on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// All tokens that went in.
    pub input: u64,
    /// Part of `input` that a cache served.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input_cache_read: u64,
    /// Part of `input` that was written to a cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input_cache_write: u64,
    /// Part of `input` that was audio.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input_audio: u64,
    /// Part of `input` that was images.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input_image: u64,
    /// All tokens that came out.
    pub output: u64,
    /// Part of `output` that was reasoning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_reasoning: u64,
    /// Part of `output` that was audio.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_audio: u64,
    /// Part of `output` that was images.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_image: u64,
}

impl TokenUsage {
    /// Input and output together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// What came out, without what went in.
    #[must_use]
    pub fn without_input(self) -> Self {
        let Self { output, output_reasoning, output_audio, output_image, .. } = self;
        Self { output, output_reasoning, output_audio, output_image, ..Self::default() }
    }
}

/// Device time of our own hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeUsage {
    /// Operator's label: `h200-sxm`, `cpu`.
    pub device: String,
    /// Nanoseconds of device time given to this request, summed over devices.
    pub device_time_nanos: u64,
    /// That share of the batches it rode in, in parts per million.
    pub share_ppm: u32,
    /// Measured energy, where the host can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_millijoules: Option<u64>,
}

/// Usage that is not tokens: images made, searches, seconds of audio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitUsage {
    /// What is counted.
    pub unit: String,
    /// How many, in millionths.
    pub quantity_micros: u64,
}

/// Everything a cost model may base a price on. Stored whole, so that any price can be computed
/// again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// `gen_ai.provider.name`.
    pub provider: String,
    /// The model as the client named it.
    pub request_model: String,
    /// The model that served.
    pub response_model: String,
    /// `gen_ai.operation.name`.
    pub operation: String,
    /// `standard`, `batch`, `flex`, `priority` or the provider's own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// How far the request got.
    pub phase: Phase,
    /// Where the counts come from.
    pub source: UsageSource,
    /// When the request began: which price list applies.
    pub start: UnixNanos,
    /// Tokens.
    pub tokens: TokenUsage,
    /// Own hardware, when the model ran in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<ComputeUsage>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitUsage>,
}
