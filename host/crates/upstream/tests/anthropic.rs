//! Chat completions that a server of Anthropic's kind answers, on real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::*;
use tollgate_upstream::FailedKind;

fn exchange(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/exchanges/{name}", env!("CARGO_MANIFEST_DIR")))
        .unwrap()
}

#[tokio::test]
async fn a_chat_goes_there_and_back() {
    let server = Server::start(|_, arrived| {
        if arrived.body.contains("\"stream\":true") {
            let text = exchange("anthropic-tools.sse");
            let events: Vec<&str> = text.split_inclusive("\n\n").collect();
            return stream(&events);
        }
        plain(200, "request-id: req_1\r\n", &exchange("anthropic-tools.json"))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "sk-ant").unwrap();
    let models =
        "kind = \"anthropic\"\nkey-file = \"key\"\nmodels = [{ as = \"m\", name = \"claude\" }]";
    rewrite(&folder, "", &[("a", server.address, models)]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    assert_eq!(route.candidates()[0].provider(), "anthropic");
    let body = |stream| {
        format!(
            r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let exchange = send(&upstreams, &route, &chat(&body(false), false)).await.unwrap();
    assert_eq!(exchange.head().content_type.as_deref(), Some("application/json"));
    assert_eq!(exchange.head().headers["request-id"], "req_1");
    let plain = drain(exchange).await;
    let value: serde_json::Value = serde_json::from_slice(&plain.last).unwrap();
    assert_eq!(value["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather");
    let arrived = server.last();
    assert!(arrived.head.starts_with("POST /v1/messages HTTP/1.1"), "{}", arrived.head);
    for header in
        ["x-api-key: sk-ant", "anthropic-version: 2023-06-01", "content-type: application/json"]
    {
        assert!(arrived.head.contains(header), "{}", arrived.head);
    }
    assert!(arrived.body.contains(r#""model":"claude""#) && arrived.body.contains("max_tokens"));
    let streamed = drain(send(&upstreams, &route, &chat(&body(true), true)).await.unwrap()).await;
    assert_eq!(streamed.account.usage, plain.account.usage);
    assert!(streamed.text().ends_with("data: [DONE]\n\n") && !streamed.text().contains("usage"));
}

#[tokio::test]
async fn what_cannot_be_translated_is_refused_or_served_elsewhere() {
    let answer = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#;
    let other = Server::answering(plain(200, "", answer)).await;
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let claude =
        Server::start(move |number, _| plain(if number == 0 { 400 } else { 529 }, "", error)).await;
    let kind = "kind = \"anthropic\"\nweight = 2";
    let folder = file("", &[("a", claude.address, kind)]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let body = r#"{"model":"m","n":2,"messages":[{"role":"user","content":"hi"}]}"#;
    let failed = send(&upstreams, &route, &chat(body, false)).await.unwrap_err();
    assert_eq!((failed.kind, failed.parameter.as_deref()), (FailedKind::Request, Some("n")));
    assert_eq!(claude.requests(), 0);
    // Its errors have OpenAI's form, whether they may be tried again or not.
    let simple = body.replace("\"n\":2,", "");
    let exchange = send(&upstreams, &route, &chat(&simple, false)).await.unwrap();
    assert_eq!(exchange.head().status, 400);
    let whole = drain(exchange).await;
    assert_eq!(whole.account.error.as_ref().unwrap().message, "Overloaded");
    assert!(whole.text().starts_with(r#"{"error":{"#), "{}", whole.text());
    let failed = send(&upstreams, &route, &chat(&simple, false)).await.unwrap_err();
    let answer = failed.answer.unwrap();
    assert!(answer.status == 529 && answer.body.starts_with(br#"{"error":{"#), "{answer:?}");
    let folder = file("", &[("a", claude.address, kind), ("b", other.address, "")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let exchange = send(&upstreams, &route, &chat(body, false)).await.unwrap();
    assert_eq!(exchange.head().candidate.backend(), "b");
}
