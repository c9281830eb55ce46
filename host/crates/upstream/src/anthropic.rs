//! Anthropic's Messages API behind chat completions: requests one way, answers and streams the other.
//!
//! What has no counterpart is an error that names the parameter, and never left out in silence.

pub(crate) mod answer;
mod messages;
pub(crate) mod request;
pub(crate) mod stream;

/// `anthropic-version`.
pub(crate) const VERSION: &str = "2023-06-01";

/// Most tools that one answer may call.
const CALLS: usize = 1024;

/// Why generation ended, in OpenAI's words.
fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        // `end_turn`, `stop_sequence`, `pause_turn`, and whatever comes to be.
        _ => "stop",
    }
}
