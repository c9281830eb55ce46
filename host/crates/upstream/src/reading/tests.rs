//! Exchanges as servers have them, plain and streamed: that both come to the same, however the network cut them, and what is
//! known when they are cut off, fail, or say nothing of usage. The files in `tests/exchanges` are written by hand after the
//! servers' sources and documentation; what real servers answer is looked at in `tests/test_upstream.py`.

use super::*;
use proptest::prelude::*;
use tollgate_domain::TokenUsage;

/// One exchange and what it comes to.
struct Case {
    name: &'static str,
    operation: Operation,
    anthropic: bool,
    usage: TokenUsage,
    model: &'static str,
    finish: &'static [&'static str],
    tier: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let tokens =
        |input, input_cache_read, input_cache_write, output, output_reasoning| TokenUsage {
            input,
            input_cache_read,
            input_cache_write,
            output,
            output_reasoning,
            ..TokenUsage::default()
        };
    let case = |name, operation, usage, model, finish, tier| Case {
        name,
        operation,
        anthropic: false,
        usage,
        model,
        finish,
        tier,
    };
    let claude = "claude-sonnet-4-5-20250929";
    let (stop, length) = (&["stop"][..], &["length"][..]);
    let standard = Some("standard");
    vec![
        case(
            "openai-cached",
            Operation::Chat,
            tokens(1154, 1024, 0, 5, 0),
            "gpt-4o-mini-2024-07-18",
            stop,
            Some("default"),
        ),
        case(
            "openai-reasoning-tools",
            Operation::Chat,
            tokens(88, 0, 0, 345, 320),
            "o4-mini-2025-04-16",
            &["tool_calls"],
            Some("flex"),
        ),
        case(
            "vllm-reasoning",
            Operation::Chat,
            tokens(40, 32, 0, 17, 0),
            "Qwen/Qwen3-8B",
            length,
            None,
        ),
        case(
            "vllm-continuous",
            Operation::Chat,
            tokens(40, 32, 0, 17, 0),
            "Qwen/Qwen3-8B",
            length,
            None,
        ),
        case(
            "vllm-completions",
            Operation::TextCompletion,
            tokens(6, 0, 0, 4, 0),
            "base",
            &["length", "length"],
            None,
        ),
        case("llamacpp", Operation::Chat, tokens(25, 20, 0, 3, 0), "SmolLM2.gguf", stop, None),
        case(
            "llamacpp-silent",
            Operation::Chat,
            tokens(25, 20, 0, 3, 0),
            "SmolLM2.gguf",
            stop,
            None,
        ),
        case(
            "responses-reasoning",
            Operation::Responses,
            tokens(96, 64, 0, 140, 128),
            "gpt-5-2025-08-07",
            stop,
            Some("default"),
        ),
        Case {
            anthropic: true,
            ..case(
                "anthropic-cached-thinking",
                Operation::Chat,
                tokens(262, 200, 50, 31, 0),
                claude,
                stop,
                standard,
            )
        },
        Case {
            anthropic: true,
            ..case(
                "anthropic-tools",
                Operation::Chat,
                tokens(377, 0, 0, 65, 0),
                claude,
                &["tool_calls"],
                standard,
            )
        },
    ]
}

fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exchanges");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// What an answer came to.
#[derive(Debug, PartialEq)]
struct Came {
    account: Account,
    body: String,
    last: String,
    error: Option<String>,
}

impl Case {
    /// `asked`: whether the client asked for usage.
    fn events(&self, asked: bool) -> Source {
        let reader = match self.operation {
            _ if self.anthropic => EventReader::Anthropic(Box::new(Translator::at(asked, 7))),
            Operation::Responses => EventReader::Responses,
            _ => EventReader::Chunks(ChunkReader { strip_usage: !asked }),
        };
        Source::events(reader, 1 << 20)
    }

    fn stream(&self) -> String {
        file(&format!("{}.sse", self.name))
    }

    fn plain(&self, text: &str) -> Came {
        let reader = if self.anthropic {
            WholeReader::Anthropic
        } else {
            WholeReader::OpenAi(self.operation)
        };
        came(Source::whole(reader, 1 << 20), &[text.as_bytes()], Instant::now())
    }
}

fn came(mut source: Source, pieces: &[&[u8]], at: Instant) -> Came {
    let mut account = Account { keep_output: true, ..Account::default() };
    let mut came =
        Came { account: Account::default(), body: String::new(), last: String::new(), error: None };
    // As an exchange does: what comes after the end or an error is not taken.
    let mut keep = |taken: Taken, account: &Account| {
        for piece in taken.pieces {
            let text = String::from_utf8_lossy(&piece.bytes).into_owned();
            match piece.kind {
                PieceKind::Body => {
                    assert!(came.last.is_empty(), "nothing follows what is last");
                    came.body.push_str(&text);
                }
                PieceKind::Last => came.last.push_str(&text),
            }
        }
        came.error = taken.error.map(|error| error.to_string());
        came.error.is_some() || account.is_over()
    };
    let mut over = false;
    for piece in pieces {
        if !over {
            let taken = source.take(&Bytes::copy_from_slice(piece), &mut account, at);
            over = keep(taken, &account);
        }
    }
    if !over {
        let taken = source.end(&mut account, at);
        keep(taken, &account);
    }
    came.account = account;
    came
}

fn whole(source: Source, text: &str) -> Came {
    came(source, &[text.as_bytes()], Instant::now())
}

/// Without the space that JSON may have anywhere.
fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn a_stream_comes_to_what_a_plain_answer_comes_to() {
    for case in cases() {
        let name = case.name;
        let plain = case.plain(&file(&format!("{name}.json")));
        assert_eq!((&plain.error, &plain.body), (&None, &String::new()), "{name}");
        for asked in [false, true] {
            let streamed = whole(case.events(asked), &case.stream());
            assert_eq!(streamed.error, None, "{name}");
            for account in [&plain.account, &streamed.account] {
                assert_eq!(account.usage, Some(case.usage), "{name}");
                assert!(account.ended && account.output_reported, "{name}");
                assert_eq!(account.response_model.as_deref(), Some(case.model), "{name}");
                assert_eq!(account.finish_reasons, case.finish, "{name}");
                assert_eq!(account.service_tier.as_deref(), case.tier, "{name}");
                assert!(account.response_id.is_some() && account.error.is_none(), "{name}");
                assert_eq!((account.unread_events, account.output_beyond), (0, 0), "{name}");
                assert_eq!(account.phases.is_some(), name.starts_with("llamacpp"), "{name}");
            }
            assert_eq!(plain.account.choices, streamed.account.choices, "{name}");
            let texts = [&plain, &streamed].map(|came| dense(&came.account.output_text));
            assert!(!texts[0].is_empty() && texts[0] == texts[1], "{name}: {texts:?}");
        }
    }
}

#[test]
fn embeddings_use_input_only() {
    let text = file("vllm-embeddings.json");
    let reader = WholeReader::OpenAi(Operation::Embeddings);
    let came = whole(Source::whole(reader, 1 << 20), &text);
    assert_eq!(came.account.usage, Some(TokenUsage { input: 7, ..TokenUsage::default() }));
    assert_eq!(came.last, text, "it goes out as it came");
}

#[test]
fn how_the_network_cut_it_makes_no_difference() {
    for case in cases() {
        let text = case.stream();
        for asked in [false, true] {
            let at = Instant::now();
            let expected = came(case.events(asked), &[text.as_bytes()], at);
            for cut in 0..=text.len() {
                let (a, b) = text.as_bytes().split_at(cut);
                assert_eq!(
                    came(case.events(asked), &[a, b], at),
                    expected,
                    "{} at {cut}",
                    case.name
                );
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(came(case.events(asked), &bytes, at), expected, "{}", case.name);
        }
    }
}

#[test]
fn what_goes_out_is_what_came_but_for_usage_that_nobody_asked_for() {
    for case in cases().iter().filter(|case| !case.anthropic) {
        let text = case.stream();
        let asked = whole(case.events(true), &text);
        assert_eq!(asked.body + &asked.last, text, "{}", case.name);
        let not_asked = whole(case.events(false), &text);
        let out = not_asked.body + &not_asked.last;
        if case.operation == Operation::Responses {
            assert_eq!(out, text);
            continue;
        }
        assert!(
            !out.contains("\"usage\"") && out.ends_with("data: [DONE]\n\n"),
            "{}: {out}",
            case.name
        );
        let removed = text.replace(",\"usage\":null", "");
        let expected: Vec<&str> = removed
            .split_inclusive("\n\n")
            .filter(|event| !event.contains("\"choices\":[],"))
            .collect();
        if case.name != "vllm-continuous" {
            assert_eq!(out, expected.concat(), "{}", case.name);
        }
        assert_eq!(out.matches("data:").count(), expected.len(), "{}", case.name);
    }
}

#[test]
fn a_stream_that_is_cut_off_says_how_far_it_got() {
    for case in cases() {
        let text = case.stream();
        let full = whole(case.events(false), &text).account.output_text;
        for cut in 0..text.len() {
            let came = whole(case.events(false), &text[..cut]);
            let account = &came.account;
            assert!(full.starts_with(&account.output_text), "{} at {cut}", case.name);
            assert_eq!(came.error.is_none(), account.ended, "{} at {cut}", case.name);
            if account.ended && account.usage.is_none() {
                assert!(!account.finish_reasons.is_empty(), "{} at {cut}", case.name);
            }
            if account.output_reported {
                assert!(account.usage.is_some_and(|usage| usage.output <= case.usage.output));
            }
        }
        // In the middle, before the upstream reports anything of the output.
        let middle = text.find("Hel").or(text.find("{\\\"city")).or(text.find("it?"));
        let middle = middle.filter(|_| case.name != "vllm-continuous");
        if let Some(middle) = middle {
            let account = whole(case.events(false), &text[..middle]).account;
            assert!(!account.output_reported, "{}", case.name);
            let input = account.usage.map(|usage| usage.input);
            assert_eq!(input, case.anthropic.then_some(case.usage.input), "{}", case.name);
        }
    }
}

#[test]
fn an_error_in_the_middle_is_noted_with_what_came_before() {
    for case in cases() {
        let text = case.stream();
        let blank = if text.contains('\r') { "\r\n\r\n" } else { "\n\n" };
        let before: String = text.split_inclusive(blank).take(3).collect();
        let error = match (case.anthropic, case.operation) {
            (true, _) => {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"boom\"}}\n\n"
            }
            (_, Operation::Responses) => {
                "event: error\r\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"boom\",\"sequence_number\":3}\r\n\r\n"
            }
            _ => {
                "data: {\"error\":{\"message\":\"boom\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}\n\n"
            }
        };
        let came = whole(case.events(false), &format!("{before}{error}"));
        let account = came.account;
        assert_eq!(account.error.unwrap().message, "boom", "{}", case.name);
        assert!(!account.ended && came.error.is_none(), "{}", case.name);
        assert!(came.last.contains("boom"), "{}: {}", case.name, came.last);
    }
}

#[test]
fn silence_about_usage_leaves_the_text_to_be_counted() {
    for case in cases().iter().filter(|case| !case.name.starts_with("llamacpp")) {
        let silent = |text: &str| text.replace("\"usage\"", "\"not_usage\"");
        let plain = case.plain(&silent(&file(&format!("{}.json", case.name))));
        let streamed = whole(case.events(false), &silent(&case.stream()));
        for came in [&plain, &streamed] {
            let account = &came.account;
            assert!(account.ended && !account.output_reported, "{}", case.name);
            assert_eq!((account.usage, &came.error), (None, &None), "{}", case.name);
        }
        let texts = [&plain, &streamed].map(|came| dense(&came.account.output_text));
        assert!(!texts[0].is_empty() && texts[0] == texts[1], "{}: {texts:?}", case.name);
    }
}

#[test]
fn anthropics_stream_has_openais_form() {
    let find = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap();
    let streamed = whole(find("anthropic-tools").events(true), &file("anthropic-tools.sse"));
    let head = r#"{"id":"msg_01B","object":"chat.completion.chunk","created":7,"model":"claude-sonnet-4-5-20250929","choices":["#;
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {head}{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let body = [
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(r#"{"content":"I look."}"#, "null"),
        chunk(
            r#"{"tool_calls":[{"index":0,"id":"toolu_1","type":"function","function":{"name":"weather","arguments":""}}]}"#,
            "null",
        ),
        chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\": "}}]}"#, "null"),
        chunk(r#"{"tool_calls":[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]}"#, "null"),
        chunk("{}", "\"tool_calls\""),
    ];
    assert_eq!(streamed.body, body.concat());
    let usage = r#""usage":{"prompt_tokens":377,"completion_tokens":65,"total_tokens":442,"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":0}}"#;
    assert_eq!(streamed.last, format!("data: {head}],{usage}}}\n\ndata: [DONE]\n\n"));
    let thinking = whole(
        find("anthropic-cached-thinking").events(false),
        &file("anthropic-cached-thinking.sse"),
    );
    assert!(thinking.body.contains(r#"{"reasoning_content":" waves."}"#), "{}", thinking.body);
    assert!(thinking.body.contains(": ping\n\n") && !thinking.last.contains("usage"));
}

proptest! {
    #[test]
    fn nothing_that_arrives_does_harm(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "(data|event|): ?(\\{\"(type|usage|choices|error|delta|timings)\":|[0-9.eE+-]+|null|\\[|\"|\\}|\\]|,|\\[DONE\\]){0,6}(\n|\r\n|\n\n)"
                    .prop_map(String::into_bytes),
            ],
            0..12,
        ),
    ) {
        let at = Instant::now();
        let joined = pieces.concat();
        let split: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for case in cases() {
            for asked in [false, true] {
                let expected = came(case.events(asked), &[&joined], at);
                prop_assert_eq!(came(case.events(asked), &split, at), expected);
            }
            for reader in [
                WholeReader::OpenAi(case.operation),
                WholeReader::Anthropic,
                WholeReader::Error { anthropic: case.anthropic, told_as: Some(400) },
            ] {
                came(Source::whole(reader, 100), &split, at);
            }
        }
    }
}

#[test]
fn an_error_in_any_form_is_told_as_openai_tells_one() {
    let object = r#"{"error":{"message":"no","type":"t","param":null,"code":7}}"#;
    let cases = [
        (object, object.to_owned()),
        ("<html>404</html>", told("<html>404</html>", "invalid_request_error", None)),
        (r#"{"detail":"Not Found"}"#, told("Not Found", "invalid_request_error", None)),
        (
            r#"{"detail":[{"loc":["body"]}]}"#,
            told(r#"[{"loc":["body"]}]"#, "invalid_request_error", None),
        ),
        (
            r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#,
            told("The model `x` does not exist.", "NotFoundError", Some("404")),
        ),
        (
            r#"{"error":"model not loaded"}"#,
            told("model not loaded", "invalid_request_error", None),
        ),
        ("", told("The backend gave no reason.", "invalid_request_error", None)),
    ];
    for (body, expected) in cases {
        let reader =
            |told_as| Source::whole(WholeReader::Error { anthropic: false, told_as }, 1 << 20);
        let came = whole(reader(Some(404)), body);
        let [told, expected] = [&came.last, &expected]
            .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(told, expected, "{body}");
        assert!(came.account.error.is_some());
        assert_eq!(whole(reader(None), body).last, body, "of what is not known nothing is changed");
    }
    let long = "x".repeat(100_000);
    let reader = WholeReader::Error { anthropic: false, told_as: Some(500) };
    let came = whole(Source::whole(reader, 1 << 20), &long);
    assert!(came.last.len() < 1200 && came.last.contains("server_error"));
}

fn told(message: &str, kind: &str, code: Option<&str>) -> String {
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        .to_string()
}
