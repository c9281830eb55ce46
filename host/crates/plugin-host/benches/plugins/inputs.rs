//! What is priced, enriched and filtered.

use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::usage::{Phase, TokenUsage, UsageSource};
use tollgate_domain::{Span, SpanContext, SpanId, TraceId, UnixNanos, Usage};

/// A usage with what most have.
pub fn usage() -> Usage {
    Usage {
        provider: "tollgate".to_owned(),
        request_model: "gpt-4o-mini".to_owned(),
        response_model: "gpt-4o-mini".to_owned(),
        operation: "chat".to_owned(),
        service_tier: None,
        phase: Phase::Final,
        source: UsageSource::Counted,
        start: UnixNanos(1_760_000_000_000_000_000),
        tokens: TokenUsage { input: 1234, output: 567, ..TokenUsage::default() },
        compute: None,
        units: Vec::new(),
    }
}

/// Spans of 20 attributes, in the order in which a gateway learns them rather than in the plugin's.
pub fn spans(count: usize) -> Vec<Span> {
    (0..count)
        .map(|number| {
            let mut attributes = Attributes::new();
            attributes.set("gen_ai.operation.name", "chat");
            attributes.set("gen_ai.provider.name", "mistral_ai");
            attributes.set("server.address", "inference-7.eu-west.example.com");
            attributes.set("server.port", 443_i64);
            attributes.set("tollgate.tenant", "acme-research");
            attributes.set("tollgate.route", "/v1/chat/completions");
            attributes.set("user.id", "c3f1b7d2-55aa-4d0e-9d35-0a3f6f2f8a10");
            attributes.set("gen_ai.request.model", "mistral-7b-instruct");
            attributes.set("gen_ai.request.max_tokens", 512_i64);
            attributes.set("gen_ai.request.temperature", 0.7_f64);
            attributes.set("gen_ai.request.top_p", 0.95_f64);
            attributes.set("tollgate.stream", true);
            attributes.set("tollgate.queue_ms", 0.41_f64);
            attributes.set("tollgate.first_token_ms", 38.2_f64);
            attributes.set("gen_ai.response.model", "mistral-7b-instruct-v0.3");
            attributes.set("gen_ai.response.id", "cmpl-7f3c9a52e1b84d6fa0c2");
            attributes.set("gen_ai.output.type", "text");
            attributes.set(
                "gen_ai.usage.input_tokens",
                1_874_i64 + i64::try_from(number).unwrap_or_default(),
            );
            attributes.set("gen_ai.usage.cache_read.input_tokens", 1_024_i64);
            attributes.set("gen_ai.usage.output_tokens", 207_i64);
            Span {
                context: SpanContext {
                    trace_id: TraceId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
                    span_id: SpanId(0xb7ad_6b71_6920_3331),
                    sampled: true,
                    trace_state: None,
                },
                parent: None,
                parent_is_remote: false,
                name: "chat mistral-7b-instruct".into(),
                kind: SpanKind::Server,
                interval: Interval::new(UnixNanos(1), UnixNanos(2)),
                status: SpanStatus::Ok,
                attributes,
                events: Vec::new(),
                received: None,
            }
        })
        .collect()
}
