//! The other servers, as JSON:
//!
//! ```json
//! {"backends": [{"name": "vllm-a", "url": "http://10.0.0.7:8000/v1", "kind": "openai", "provider": "vllm",
//!   "health": "unhealthy", "problem": "status 500", "breaker": "closed", "breaker_openings": 0,
//!   "in_flight": 3, "max_in_flight": 256, "weight": 1,
//!   "attempts": {"answered": 90, "refused": 2, "failed": 1, "broken": 0}}]}
//! ```
//!
//! `health` is `unknown` where nothing is checked; counts are since the gateway began.

use serde_json::{Value, json};
use tollgate_gateway::{BackendStatus, HealthState};

/// The whole answer.
pub(super) fn view(backends: &[BackendStatus]) -> Value {
    json!({"backends": backends.iter().map(one).collect::<Vec<_>>()})
}

fn one(status: &BackendStatus) -> Value {
    let problem = match &status.health {
        HealthState::Unhealthy { problem } => Some(problem),
        HealthState::Unknown | HealthState::Healthy => None,
    };
    json!({
        "name": &*status.name,
        "url": status.url,
        "kind": status.kind.name(),
        "provider": status.provider,
        "health": status.health.name(),
        "problem": problem,
        "breaker": status.breaker.name(),
        "breaker_openings": status.breaker_openings,
        "in_flight": status.in_flight,
        "max_in_flight": status.max_in_flight,
        "weight": status.weight,
        "attempts": {
            "answered": status.answered,
            "refused": status.refused,
            "failed": status.failed,
            "broken": status.broken,
        },
    })
}
