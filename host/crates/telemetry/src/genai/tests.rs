//! Spans as their writers write them, and what they come to.

use proptest::prelude::*;
use tollgate_domain::span::{Attributes, SpanKind, SpanStatus, Value};
use tollgate_domain::time::Interval;
use tollgate_domain::{SpanContext, SpanId, TraceId};

use super::*;

fn span(name: &str, attributes: &[(&str, Value)]) -> Span {
    let trace_id = TraceId(1);
    let context = SpanContext { trace_id, span_id: SpanId(2), sampled: true, trace_state: None };
    Span {
        context,
        parent: None,
        parent_is_remote: false,
        name: name.to_owned().into(),
        kind: SpanKind::Client,
        interval: Interval::new(UnixNanos(0), UnixNanos(10_000_000_000)),
        status: SpanStatus::Unset,
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        events: Vec::new(),
        received: None,
    }
}

fn call_of(span: &Span, origin: &Origin) -> Option<Call> {
    Look::at(span, &Source::of(origin)).call()
}

fn tenant_of(span: &Span, origin: &Origin) -> Option<String> {
    Look::at(span, &Source::of(origin)).tenant()
}

fn int(number: i64) -> Value {
    Value::Int(number)
}

/// Dialect, operation, provider, models, and input, cache read, cache write, output, reasoning.
type Told<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, Option<[u64; 5]>);

/// A span's name and attributes, and what they tell, if it is a call.
type Case = (&'static str, Vec<(&'static str, Value)>, Option<Told<'static>>);

#[test]
fn each_writer_is_understood() {
    let cases: Vec<Case> = vec![
        (
            "chat gpt-4o",
            vec![
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.provider.name", "openai".into()),
                ("gen_ai.request.model", "gpt-4o".into()),
                ("gen_ai.response.model", "gpt-4o-2024-08-06".into()),
                ("gen_ai.usage.input_tokens", int(100)),
                ("gen_ai.usage.cache_read.input_tokens", int(60)),
                ("gen_ai.usage.output_tokens", int(20)),
                ("gen_ai.usage.reasoning.output_tokens", int(5)),
            ],
            Some((
                "gen_ai",
                "chat",
                "openai",
                "gpt-4o",
                "gpt-4o-2024-08-06",
                Some([100, 60, 0, 20, 5]),
            )),
        ),
        (
            "older conventions, without an operation",
            vec![
                ("gen_ai.system", "az.ai.openai".into()),
                ("gen_ai.request.model", "gpt-4".into()),
                ("gen_ai.usage.prompt_tokens", int(7)),
                ("gen_ai.usage.completion_tokens", int(3)),
            ],
            Some(("gen_ai", "chat", "azure.ai.openai", "gpt-4", "gpt-4", Some([7, 0, 0, 3, 0]))),
        ),
        (
            "Anthropic's own counts: cached tokens are apart",
            vec![
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.system", "anthropic".into()),
                ("gen_ai.request.model", "claude".into()),
                ("gen_ai.usage.input_tokens", int(10)),
                ("gen_ai.usage.cache_read_input_tokens", int(1000)),
                ("gen_ai.usage.cache_creation_input_tokens", int(50)),
                ("gen_ai.usage.output_tokens", int(4)),
            ],
            Some(("gen_ai", "chat", "anthropic", "claude", "claude", Some([1060, 1000, 50, 4, 0]))),
        ),
        (
            "llm_request",
            vec![
                ("gen_ai.latency.e2e", 1.5.into()),
                ("gen_ai.usage.prompt_tokens", int(12)),
                ("gen_ai.usage.cached_tokens", int(4)),
                ("gen_ai.usage.completion_tokens", int(34)),
                ("gen_ai.request.id", "cmpl-1".into()),
            ],
            Some((
                "vllm",
                "text_completion",
                "vllm",
                "of-the-process",
                "of-the-process",
                Some([12, 4, 0, 34, 0]),
            )),
        ),
        (
            "ChatCompletion",
            vec![
                ("openinference.span.kind", "LLM".into()),
                ("llm.system", "openai".into()),
                ("llm.model_name", "gpt-4o-mini".into()),
                ("llm.token_count.prompt", int(8)),
                ("llm.token_count.prompt_details.cache_read", int(2)),
                ("llm.token_count.completion", int(9)),
                ("llm.token_count.completion_details.reasoning", int(1)),
                ("llm.token_count.total", int(17)),
            ],
            Some((
                "openinference",
                "chat",
                "openai",
                "gpt-4o-mini",
                "gpt-4o-mini",
                Some([8, 2, 0, 9, 1]),
            )),
        ),
        (
            "in its words, without its kind",
            vec![
                ("llm.model_name", "gpt-4o-mini".into()),
                ("llm.token_count.prompt", int(8)),
                ("llm.token_count.prompt_details.cache_input", int(2)),
                ("llm.token_count.completion", int(9)),
            ],
            Some((
                "openinference",
                "chat",
                "",
                "gpt-4o-mini",
                "gpt-4o-mini",
                Some([8, 2, 0, 9, 0]),
            )),
        ),
        (
            "an embedding, without its kind",
            vec![("embedding.model_name", "e".into()), ("llm.token_count.prompt", int(8))],
            Some(("openinference", "embeddings", "", "e", "e", Some([8, 0, 0, 0, 0]))),
        ),
        ("no count", vec![("llm.model_name", "gpt-4o-mini".into())], None),
        (
            "details",
            vec![
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.request.model", "m".into()),
                ("gen_ai.usage.input_tokens", int(100)),
                ("gen_ai.usage.details.cache_read_tokens", int(60)),
                ("gen_ai.usage.details.cache_write_tokens", int(10)),
                ("gen_ai.usage.output_tokens", int(20)),
            ],
            Some(("gen_ai", "chat", "", "m", "m", Some([100, 60, 10, 20, 0]))),
        ),
        ("agent", vec![("openinference.span.kind", "AGENT".into())], None),
        (
            "openai.chat",
            vec![
                ("llm.request.type", "chat".into()),
                ("gen_ai.system", "OpenAI".into()),
                ("gen_ai.request.model", "gpt-4o".into()),
                ("gen_ai.response.model", "gpt-4o-x".into()),
                ("gen_ai.usage.prompt_tokens", int(5)),
                ("gen_ai.usage.completion_tokens", int(6)),
                ("llm.usage.total_tokens", int(11)),
            ],
            Some(("openllmetry", "chat", "openai", "gpt-4o", "gpt-4o-x", Some([5, 0, 0, 6, 0]))),
        ),
        ("workflow", vec![("traceloop.span.kind", "workflow".into())], None),
        (
            "inference.request",
            vec![
                ("llm.model", "mistral-7b".into()),
                ("llm.user", "tenant-a".into()),
                ("llm.prompt_tokens", int(11)),
                ("llm.completion_tokens", int(36)),
                ("llm.total_tokens", int(47)),
            ],
            Some((
                "tutorial",
                "text_completion",
                "",
                "mistral-7b",
                "mistral-7b",
                Some([11, 0, 0, 36, 0]),
            )),
        ),
        // A phase of it, not a call of its own.
        ("inference.prefill", vec![("llm.prompt_tokens", int(11))], None),
        (
            "embeddings by their total",
            vec![
                ("gen_ai.operation.name", "embeddings".into()),
                ("gen_ai.request.model", "e".into()),
                ("gen_ai.usage.total_tokens", int(9)),
            ],
            Some(("gen_ai", "embeddings", "", "e", "e", Some([9, 0, 0, 0, 0]))),
        ),
        (
            "a chat that tells of no token",
            vec![("gen_ai.operation.name", "chat".into()), ("gen_ai.request.model", "m".into())],
            Some(("gen_ai", "chat", "", "m", "m", None)),
        ),
        ("execute_tool x", vec![("gen_ai.operation.name", "execute_tool".into())], None),
        ("GET /", vec![("http.request.method", "GET".into())], None),
    ];
    let mut origin = Origin::default();
    origin.resource.attributes.set("gen_ai.request.model", "of-the-process");
    for (name, attributes, wanted) in cases {
        let found = call_of(&span(name, &attributes), &origin);
        let told = found.as_ref().map(|call| {
            let tokens = call.tokens.map(|t| {
                [t.input, t.input_cache_read, t.input_cache_write, t.output, t.output_reasoning]
            });
            let models = (call.request_model.as_str(), call.response_model.as_str());
            (
                call.dialect.name(),
                call.operation.as_str(),
                call.provider.as_str(),
                models.0,
                models.1,
                tokens,
            )
        });
        assert_eq!(told, wanted, "{name}");
    }
}

/// Input, cache read, cache write, output, reasoning and total as they are sent, what the process says
/// of cached tokens, and the input and output that it comes to.
type Counted = ([Option<i64>; 6], Option<&'static str>, (u64, u64));

#[test]
fn parts_that_are_counted_apart_are_added() {
    let cases: [Counted; 14] = [
        // As the conventions ask; so OpenAI's API, and OpenLLMetry and OpenInference of any.
        ([Some(100), Some(60), None, Some(20), Some(5), None], None, (100, 20)),
        ([Some(100), Some(60), None, Some(20), Some(5), Some(120)], None, (100, 20)),
        // Anthropic's API as it is: nobody could read more from a cache than all there was.
        ([Some(10), Some(1000), Some(50), Some(4), None, None], None, (1060, 4)),
        // Fewer cached than others: only the total tells.
        ([Some(100), Some(60), Some(10), Some(20), None, Some(190)], None, (170, 20)),
        ([Some(100), Some(60), Some(10), Some(20), None, Some(120)], None, (100, 20)),
        // Without one it is as the conventions say, unless the process says otherwise.
        ([Some(100), Some(60), Some(10), Some(20), None, None], None, (100, 20)),
        ([Some(100), Some(60), Some(10), Some(20), None, None], Some("apart"), (170, 20)),
        ([Some(100), Some(60), Some(10), Some(20), None, Some(190)], Some("included"), (100, 20)),
        ([Some(100), Some(60), Some(10), Some(20), None, None], Some("so so"), (100, 20)),
        // No process can say what cannot be.
        ([Some(10), Some(60), None, Some(20), None, None], Some("included"), (70, 20)),
        // Gemini's API has thoughts beside what it says.
        ([Some(100), None, None, Some(20), Some(15), Some(135)], None, (100, 35)),
        ([Some(100), Some(60), None, Some(20), Some(15), Some(195)], None, (160, 35)),
        // A total that has something else in it tells nothing.
        ([Some(100), Some(60), None, Some(20), Some(15), Some(777)], None, (100, 20)),
        // What is beyond may be either: it is added once.
        ([Some(100), Some(5), None, Some(20), Some(5), Some(125)], None, (105, 20)),
    ];
    let keys = [
        "input_tokens",
        "cache_read.input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "total_tokens",
    ];
    for (sent, said, wanted) in cases {
        let sent = keys.iter().zip(sent).filter_map(|(key, count)| Some((key, count?)));
        let sent = sent.map(|(key, count)| (format!("gen_ai.usage.{key}"), Value::Int(count)));
        let sent: Vec<(String, Value)> = sent.collect();
        let attributes: Attributes = sent.iter().cloned().collect();
        // Whoever says it: the process, the instrumentation, or the span.
        for place in 0..3 {
            let (mut span, mut origin) = (span("chat", &[]), Origin::default());
            span.attributes = attributes.clone();
            let places = [
                &mut origin.resource.attributes,
                &mut origin.scope.attributes,
                &mut span.attributes,
            ];
            places.into_iter().nth(place).unwrap().set_some("tollgate.usage.cached", said);
            let call = call_of(&span, &origin).unwrap();
            let found = call.tokens.unwrap();
            assert_eq!((found.input, found.output), wanted, "{sent:?} {said:?} {place}");
            assert_eq!(call.source, UsageSource::Reported);
        }
    }
}

#[test]
fn who_passes_on_what_an_api_says_counts_alike_in_all_spans() {
    // By Anthropic's own names cached tokens are apart, whether there are many of them or few.
    let counts = |read: i64, names: &str| {
        let read = (format!("gen_ai.usage.{names}"), int(read));
        [("gen_ai.usage.input_tokens".to_owned(), int(1000)), read]
    };
    let (own, conventional) = ("cache_read_input_tokens", "cache_read.input_tokens");
    let known = "opentelemetry.instrumentation.anthropic";
    for (provider, model, scope, names, read, input) in [
        ("anthropic", "claude", "app", own, 900, 1900),
        ("anthropic", "claude", "app", own, 1100, 2100),
        ("aws.bedrock", "anthropic.claude-3", "app", own, 900, 1900),
        ("aws.bedrock", "amazon.nova", "app", own, 900, 1000),
        ("openai", "gpt-4o", "app", own, 900, 1000),
        // By the conventions' they are within, and so they are with who is known to add them.
        ("anthropic", "claude", "app", conventional, 900, 1000),
        ("anthropic", "claude", known, own, 900, 1000),
    ] {
        let mut span = span("chat", &[("gen_ai.usage.output_tokens", int(5))]);
        span.attributes.set("gen_ai.system", provider);
        span.attributes.set("gen_ai.request.model", model);
        for (key, value) in counts(read, names) {
            span.attributes.set(key, value);
        }
        let mut origin = Origin::default();
        scope.clone_into(&mut origin.scope.name);
        let found = call_of(&span, &origin).unwrap().tokens.unwrap();
        assert_eq!(
            (found.input, found.input_cache_read),
            (input, read.cast_unsigned()),
            "{provider} {names}"
        );
        // A total knows better.
        span.attributes.set("gen_ai.usage.total_tokens", 1005_i64);
        let found = call_of(&span, &origin).unwrap().tokens.unwrap();
        assert_eq!(found.input, if read > 1000 { input } else { 1000 }, "{provider} {names}");
    }
}

#[test]
fn what_is_not_told_is_not_nothing() {
    let (input, output) = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens");
    let told = |operation: &str, counts: &[(&str, i64)]| {
        let mut span = span("call", &[("gen_ai.operation.name", operation.into())]);
        counts.iter().for_each(|(key, count)| span.attributes.set((*key).to_owned(), *count));
        let call = call_of(&span, &Origin::default()).unwrap();
        call.tokens.map(|tokens| (tokens.input, tokens.output, call.source))
    };
    let (reported, estimated) = (UsageSource::Reported, UsageSource::Estimated);
    for (operation, counts, wanted) in [
        ("chat", &[(input, 7), (output, 3)][..], Some((7, 3, reported))),
        ("chat", &[(input, 7), (output, 0)], Some((7, 0, reported))),
        ("chat", &[(input, 7)], Some((7, 0, estimated))),
        ("chat", &[(output, 3)], Some((0, 3, estimated))),
        ("chat", &[(input, -5), (output, 3)], Some((0, 3, estimated))),
        ("chat", &[(input, -5), (output, -1)], None),
        ("chat", &[(input, 7), ("gen_ai.usage.total_tokens", 9)], Some((7, 2, reported))),
        ("embeddings", &[(input, 7)], Some((7, 0, reported))),
        ("embeddings", &[(output, 3)], Some((0, 3, estimated))),
    ] {
        assert_eq!(told(operation, counts), wanted, "{operation} {counts:?}");
    }
}

#[test]
fn an_answers_id_is_told_by_its_name_or_by_the_answer() {
    let id = "chatcmpl-0123456789abcdef";
    let answer = format!(r#"{{"choices":[{{"id":7}}],"id":"{id}","object":"chat.completion"}}"#);
    let message = format!(r#"{{"id":"{id}","type":"message","usage":null}}"#);
    let long =
        format!(r#"{{"id":"{id}","object":"chat.completion","x":"{}"}}"#, "y".repeat(1 << 20));
    let (json, text) = ("application/json", "text/plain");
    for (kind, output, wanted) in [
        (json, answer.as_str(), Some(id)),
        (json, &message, Some(id)),
        (text, &answer, None),
        (json, &long, None),
        // No answer of an API.
        (json, r#"{"id":"a-document-0123456789"}"#, None),
        (json, r#"{"id":5,"object":"chat.completion"}"#, None),
        (json, "[1]", None),
        (json, "{", None),
        (json, &"[".repeat(100_000), None),
    ] {
        let mut span = span("ChatCompletion", &[("openinference.span.kind", "LLM".into())]);
        span.attributes.set("output.mime_type", kind);
        span.attributes.set("output.value", output);
        let found = call_of(&span, &Origin::default()).unwrap().response_id;
        assert_eq!(found.as_deref(), wanted, "{output:.60}");
    }
    let of_vllm = span(
        "llm_request",
        &[
            ("gen_ai.latency.e2e", 1.5.into()),
            ("gen_ai.usage.prompt_tokens", int(1)),
            ("gen_ai.request.id", id.into()),
        ],
    );
    let found = call_of(&of_vllm, &Origin::default()).unwrap();
    assert_eq!((found.response_id, found.request_id.as_deref()), (None, Some(id)));
}

#[test]
fn vllm_is_understood_as_its_source_has_it() {
    let sent = include_bytes!("../../tests/spans/vllm.json");
    let incoming = crate::receive::decode(sent, crate::receive::Encoding::Json).unwrap();
    let group = &incoming.groups[0];
    let calls: Vec<Call> =
        group.spans.iter().map(|span| call_of(span, &group.origin).unwrap()).collect();
    assert_eq!(calls.len(), 2);
    for (call, (reason, cached)) in calls.iter().zip([(None, 0), (Some("stop"), 16)]) {
        assert_eq!((call.dialect, call.provider.as_str()), (Dialect::Vllm, "vllm"));
        assert_eq!(call.request_model, "meta-llama/Llama-3.1-8B-Instruct");
        let tokens = call.tokens.unwrap();
        assert_eq!((tokens.input, tokens.input_cache_read, tokens.output), (42, cached, 17));
        assert_eq!((call.max_tokens, call.temperature), (Some(64), Some(0.7)));
        assert_eq!(call.finish_reason.as_deref(), reason);
        assert_eq!(call.first_token, Some(UnixNanos(1_764_000_000_125_000_000)));
    }
}

#[test]
fn tenants_come_from_the_span_then_the_process_then_the_user() {
    let mut origin = Origin::default();
    let of_user = span("x", &[("llm.user", "u".into())]);
    let of_span = span("x", &[("llm.user", "u".into()), ("tollgate.tenant", "s".into())]);
    assert_eq!(tenant_of(&of_user, &origin).as_deref(), Some("u"));
    origin.resource.attributes.set("tenant.id", "p");
    assert_eq!(tenant_of(&of_user, &origin).as_deref(), Some("p"));
    assert_eq!(tenant_of(&of_span, &origin).as_deref(), Some("s"));
    // Names that are too long are none, and the next one counts.
    let long = |key: &'static str| (key, Value::from("x".repeat(300)));
    assert_eq!(tenant_of(&span("x", &[long("tollgate.tenant")]), &origin).as_deref(), Some("p"));
    let both = span("x", &[long("tollgate.tenant"), ("tenant.id", "i".into())]);
    assert_eq!(tenant_of(&both, &origin).as_deref(), Some("i"));
    let none = Origin::default();
    assert_eq!(tenant_of(&span("x", &[long("llm.user")]), &none), None);
    // Numbers are names, too.
    assert_eq!(tenant_of(&span("x", &[("tenant.id", int(42))]), &none).as_deref(), Some("42"));
    assert_eq!(tenant_of(&span("x", &[("user.id", int(-1))]), &none).as_deref(), Some("-1"));
    origin.resource.attributes.set("tenant.id", 7_i64);
    assert_eq!(tenant_of(&of_user, &origin).as_deref(), Some("7"));
}

proptest! {
    /// Whatever is counted, parts are within the whole.
    #[test]
    fn parts_are_in_the_whole(counts in prop::collection::vec(any::<i64>(), 6)) {
        let keys = ["input_tokens", "output_tokens", "cache_read.input_tokens",
            "cache_creation.input_tokens", "reasoning.output_tokens", "audio.input_tokens"];
        let pairs: Vec<(String, Value)> = keys.iter().zip(counts)
            .map(|(key, count)| (format!("gen_ai.usage.{key}"), Value::Int(count))).collect();
        let attributes: Attributes = pairs.into_iter().collect();
        if let Some((t, _)) = tokens(&told::Told::by(&attributes), "chat", None) {
            prop_assert!(t.input_cache_read.saturating_add(t.input_cache_write) <= t.input);
            prop_assert!(t.output_reasoning <= t.output && t.input_audio <= t.input);
        }
    }
}
