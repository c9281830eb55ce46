//! Upstreams that misbehave, on real sockets.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_domain::TokenUsage;
use tollgate_domain::record::Operation;
use tollgate_upstream::{Candidate, FailedKind, Trail, UpstreamErrorKind};

const ANSWER: &str = r#"{"id":"c1","model":"m-1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
const TEXT: &str = "data: {\"id\":\"c1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const FAST: &str =
    "connect-timeout-ms = 2000\nfirst-byte-timeout-ms = 1000\nidle-timeout-ms = 1000";

fn used() -> Option<TokenUsage> {
    Some(TokenUsage { input: 3, output: 1, ..TokenUsage::default() })
}

#[tokio::test]
async fn a_stream_that_did_not_ask_for_usage_is_counted_and_has_none() {
    let server = Server::answering(stream(&[TEXT, STOP, USAGE, DONE])).await;
    let folder = file("", &[("a", server.address, "models = [{ as = \"m\", name = \"big/m\" }]")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let [first] = route.candidates() else { panic!("{route:?}") };
    assert_eq!((first.provider(), first.model()), ("openai", "big/m"));
    let mut outgoing = simple(true);
    outgoing.headers.insert("traceparent", "00-1".parse().unwrap());
    outgoing.headers.insert("authorization", "Bearer of-the-client".parse().unwrap());
    let exchange = send(&upstreams, &route, &outgoing).await.unwrap();
    assert_eq!(exchange.head().status, 200);
    assert_eq!(upstreams.status()[0].in_flight, 1);
    let whole = drain(exchange).await;
    assert_eq!(upstreams.status()[0].in_flight, 0);
    assert_eq!(whole.text(), [TEXT, STOP, DONE].concat().replace(",\"usage\":null", ""));
    assert_eq!(whole.last, DONE.as_bytes());
    let account = whole.account;
    assert_eq!(account.usage, used());
    assert!(account.ended && account.output_reported && account.first_token_at.is_some());
    assert_eq!(account.response_model.as_deref(), Some("m-1"));
    let arrived = server.last();
    assert!(arrived.body.contains(r#""model":"big/m""#), "{}", arrived.body);
    assert!(arrived.body.contains(r#""include_usage":true"#), "{}", arrived.body);
    assert!(arrived.head.contains("traceparent: 00-1"), "{}", arrived.head);
    assert!(!arrived.head.contains("authorization"), "{}", arrived.head);
    assert!(arrived.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", arrived.head);
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::start(|number, _| {
        if number % 2 == 0 { stream(&[TEXT, STOP, USAGE, DONE]) } else { plain(200, "", ANSWER) }
    })
    .await;
    let folder = file("", &[("a", server.address, "")]);
    let upstreams = load(&folder);
    for number in 0..6 {
        let route = upstreams.route("m", None).unwrap();
        let whole = drain(send(&upstreams, &route, &simple(number % 2 == 0)).await.unwrap()).await;
        assert_eq!(whole.account.usage, used());
        // The end of a stream is read beside.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn before_the_first_byte_another_backend_takes_over() {
    let garbage = b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec();
    let html =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_vec();
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let half = half.to_vec();
    let cases: Vec<(&str, Option<Vec<Act>>)> = vec![
        ("connect", None),
        ("timeout", Some(vec![Act::Hang])),
        ("timeout", Some(vec![stream_head(), Act::Hang])),
        ("connection_lost", Some(vec![Act::Close])),
        ("connection_lost", Some(vec![Act::Reset])),
        ("connection_lost", Some(vec![Act::Write(garbage)])),
        ("protocol", Some(vec![Act::Write(html)])),
        ("refused 429", Some(plain(429, "", "{}"))),
        ("refused 502", Some(plain(502, "", "{}"))),
        ("refused 503", Some(plain(503, "", "{}"))),
        ("refused 504", Some(plain(504, "", "{}"))),
        ("refused 307", Some(plain(307, "location: /elsewhere\r\n", "{}"))),
        ("401", Some(plain(401, "", "{}"))),
        ("403", Some(plain(403, "", "{}"))),
        ("404", Some(plain(404, "", "{}"))),
        ("408", Some(plain(408, "", "{}"))),
        ("500", Some(plain(500, "", "{}"))),
        ("520", Some(plain(520, "", "{}"))),
        // A stream without an event, or whose first one is nonsense or is cut off.
        ("connection_lost", Some(vec![stream_head(), stream_end()])),
        ("protocol", Some(vec![stream_head(), chunk(b"data: <html>\n\n"), stream_end()])),
        ("protocol", Some(vec![stream_head(), chunk(b"data: {\"choi"), stream_end()])),
        ("connection_lost", Some(vec![stream_head(), chunk(b"data: {\"choi"), Act::Reset])),
        ("timeout", Some(vec![stream_head(), chunk(b"data: {\"choi"), Act::Hang])),
        // A plain answer that is not whole, or not JSON.
        ("connection_lost", Some(vec![Act::Write(half), Act::Close])),
        ("protocol", Some(plain(200, "", "{\"id\": nope"))),
        ("protocol", Some(plain(200, "", ""))),
    ];
    for (expected, acts) in cases {
        let good = Server::answering(stream(&[TEXT, STOP, USAGE, DONE])).await;
        let bad = match acts {
            Some(acts) => Server::answering(acts).await.address,
            None => nobody().await,
        };
        // The bad one goes first.
        let folder =
            file("", &[("bad", bad, &format!("{FAST}\nweight = 2")), ("good", good.address, "")]);
        let upstreams = load(&folder);
        let route = upstreams.route("m", None).unwrap();
        assert_eq!(route.candidates()[0].backend(), "bad");
        let trail = Trail::default();
        let exchange = upstreams.send(&route, &simple(true), &trail).await.unwrap();
        let tried = trail.ended();
        assert_eq!(tried.last().map(Candidate::place), Some(1));
        assert_eq!(kinds(&tried.attempts), [format!("bad {expected}"), "good 200".to_owned()]);
        assert_eq!(drain(exchange).await.account.usage, used());
        assert_eq!(good.requests(), 1, "one answer, no duplicate");
        let broken = upstreams.status().iter().map(|status| status.broken).sum::<u64>();
        assert_eq!(broken, 0, "a failed attempt, and no answer that broke off");
    }
}

#[tokio::test]
async fn other_answers_are_the_upstreams() {
    let error =
        r#"{"error":{"message":"no such thing","type":"invalid_request_error","code":"x"}}"#;
    for status in [400, 401, 404, 409, 413, 422, 500] {
        let server = Server::answering(plain(
            status,
            "x-request-id: r1\r\nx-ratelimit-limit-requests: 1\r\n",
            error,
        ))
        .await;
        let folder = file("", &[("a", server.address, "")]);
        let upstreams = load(&folder);
        let route = upstreams.route("m", None).unwrap();
        let exchange = send(&upstreams, &route, &simple(true)).await.unwrap();
        assert_eq!(exchange.head().status, status);
        assert_eq!(exchange.head().headers.len(), 1);
        let whole = drain(exchange).await;
        assert_eq!(whole.text(), error);
        assert_eq!(whole.account.error.unwrap().code.as_deref(), Some("x"));
        assert_eq!(server.requests(), if status == 500 { 2 } else { 1 }, "{status}");
    }
}

#[tokio::test]
async fn what_breaks_off_in_the_middle_is_told_and_not_tried_again() {
    let half = "data: {\"choices\":[{\"index\":0,\"del";
    let cases: Vec<(UpstreamErrorKind, Vec<Act>)> = vec![
        (UpstreamErrorKind::Timeout, vec![Act::Hang]),
        (UpstreamErrorKind::Lost, vec![Act::Reset]),
        (UpstreamErrorKind::Lost, vec![Act::Close]),
        (UpstreamErrorKind::Lost, vec![stream_end()]),
        (UpstreamErrorKind::Lost, vec![Act::Write(b"zz\r\n".to_vec()), Act::Close]),
        (UpstreamErrorKind::Protocol, vec![chunk(half.as_bytes()), stream_end()]),
        (UpstreamErrorKind::Protocol, vec![chunk(b"data: \xff\n\n")]),
        (UpstreamErrorKind::Protocol, vec![chunk(b"data: <html>\n\n")]),
    ];
    for (expected, acts) in cases {
        let mut all =
            vec![stream_head(), chunk(TEXT.as_bytes()), Act::Pause(Duration::from_millis(20))];
        all.extend(acts.clone());
        let server = Server::answering(all).await;
        let folder = file("", &[("a", server.address, FAST), ("b", server.address, FAST)]);
        let upstreams = load(&folder);
        let route = upstreams.route("m", None).unwrap();
        let whole = drain(send(&upstreams, &route, &simple(true)).await.unwrap()).await;
        let error = whole.error.as_ref().unwrap_or_else(|| panic!("no error after {acts:?}"));
        assert_eq!(error.kind(), expected, "{error} after {acts:?}");
        assert_eq!(whole.text(), TEXT.replace(",\"usage\":null", ""));
        let account = whole.account;
        assert!(!account.ended && account.usage.is_none() && account.output_text == "hi");
        assert_eq!(server.requests(), 1);
        assert_eq!(upstreams.status().iter().map(|s| s.broken).sum::<u64>(), 1);
        assert_eq!(upstreams.status().iter().map(|s| s.in_flight).sum::<u32>(), 0);
    }
}

#[tokio::test]
async fn an_error_in_the_stream_is_passed_on_and_noted() {
    let error = "data: {\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"code\":500}}\n\n";
    let server = Server::answering(stream(&[TEXT, error, DONE])).await;
    let folder = file("", &[("a", server.address, "")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let whole = drain(send(&upstreams, &route, &simple(true)).await.unwrap()).await;
    assert_eq!(whole.last, error.as_bytes());
    assert!(!whole.account.ended && whole.error.is_none());
    assert_eq!(whole.account.error.unwrap().message, "out of memory");
}

#[tokio::test]
async fn events_of_ten_megabytes_pass_and_larger_ones_do_not() {
    let event = |size: usize| {
        let text = "x".repeat(size);
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    for (size, fits) in [(10 << 20, true), (17 << 20, false)] {
        let large = event(size);
        let mut acts = vec![stream_head()];
        acts.extend(large.as_bytes().chunks(100_000).map(chunk));
        acts.extend([STOP, DONE].map(|event| chunk(event.as_bytes())));
        acts.push(stream_end());
        let server = Server::answering(acts).await;
        let folder = file("", &[("a", server.address, "")]);
        let upstreams = load(&folder);
        let route = upstreams.route("m", None).unwrap();
        let sent = send(&upstreams, &route, &simple(true)).await;
        assert_eq!(sent.is_ok(), fits, "{size}");
        match sent {
            Ok(exchange) => {
                let whole = drain(exchange).await;
                assert!(whole.error.is_none());
                assert_eq!(whole.account.output_chars, size as u64);
                assert!(whole.account.output_beyond > 0 && whole.account.ended);
                assert_eq!(whole.body.len(), large.len() + STOP.len() - ",\"usage\":null".len());
            }
            Err(failed) => {
                assert_eq!(failed.kind, FailedKind::Upstream(UpstreamErrorKind::Protocol));
                assert_eq!(server.requests(), 1, "it would be as large again");
            }
        }
    }
}

#[tokio::test]
async fn answers_larger_than_the_limit_are_refused() {
    let body = format!("{{\"choices\":[],\"x\":\"{}\"}}", "y".repeat(2 << 20));
    let server = Server::answering(plain(200, "", &body)).await;
    let folder = file("", &[("a", server.address, "max-answer-mib = 1")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let failed = send(&upstreams, &route, &simple(false)).await.unwrap_err();
    assert_eq!(failed.kind, FailedKind::Upstream(UpstreamErrorKind::Protocol));
    assert_eq!(server.requests(), 1, "it would be as large again");
}

#[tokio::test]
async fn whoever_gives_up_is_noticed_by_the_upstream() {
    let hanging = Server::answering(vec![stream_head(), chunk(TEXT.as_bytes()), Act::Hang]).await;
    let silent = Server::answering(vec![Act::Hang]).await;
    let folder = file(
        "",
        &[("a", hanging.address, "models = [\"m\"]"), ("b", silent.address, "models = [\"n\"]")],
    );
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let mut exchange = send(&upstreams, &route, &simple(true)).await.unwrap();
    exchange.next().await.unwrap().unwrap();
    exchange.cancel();
    until(|| hanging.gone.load(SeqCst) == 1).await;
    // Before the first byte, too.
    let route = upstreams.route("n", None).unwrap();
    let outgoing = simple(true);
    let trail = Trail::default();
    tokio::select! {
        answer = upstreams.send(&route, &outgoing, &trail) => panic!("{answer:?}"),
        () = until(|| silent.requests() == 1) => {}
    }
    let tried = trail.ended();
    assert_eq!(tried.last().map(Candidate::backend), Some("b"));
    assert!(tried.asking.is_some() && tried.attempts.is_empty());
    until(|| silent.gone.load(SeqCst) == 1).await;
    assert_eq!(upstreams.status().iter().map(|s| s.in_flight).sum::<u32>(), 0);
}

#[tokio::test]
async fn a_refusal_that_is_final_has_the_upstreams_words() {
    let server =
        Server::start(|_, _| plain(429, "retry-after: 60\r\n", r#"{"error":"slow down"}"#)).await;
    let folder = file("", &[("a", server.address, "retries = 3")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let failed = send(&upstreams, &route, &simple(false)).await.unwrap_err();
    assert_eq!(failed.kind, FailedKind::Upstream(UpstreamErrorKind::Status));
    assert_eq!(failed.retry_after, Some(Duration::from_secs(60)));
    assert_eq!(failed.answer.unwrap().body, r#"{"error":"slow down"}"#);
    assert_eq!(server.requests(), 1, "it asked for more patience than we have");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::start(|number, _| match number {
        0 => plain(503, "retry-after: 1\r\n", "{}"),
        _ => plain(200, "", ANSWER),
    })
    .await;
    let folder = file("", &[("a", server.address, "")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let began = Instant::now();
    let trail = Trail::default();
    upstreams.send(&route, &simple(false), &trail).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(kinds(&trail.ended().attempts), ["a refused 503", "a 200"]);
}

#[tokio::test]
async fn retries_have_a_budget() {
    let server = Server::answering(plain(429, "", "{}")).await;
    let folder = file("retry-budget = 0.0\n", &[("a", server.address, "retries = 1")]);
    let upstreams = load(&folder);
    let outgoing = simple(false);
    let route = upstreams.route("m", None).unwrap();
    let began = Instant::now();
    let one = || async {
        let trail = Trail::default();
        upstreams.send(&route, &outgoing, &trail).await.unwrap_err();
        trail.ended().attempts.len()
    };
    let tries: usize = futures_all((0..40).map(|_| one())).await.into_iter().sum();
    let earned = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((50..=50 + earned).contains(&tries), "{tries} attempts of 40 requests");
    assert_eq!(server.requests(), tries);
}

/// All at once, as tasks do.
async fn futures_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = all.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn a_dead_backend_loses_no_request_of_many_at_once() {
    let good = Server::answering(plain(200, "", ANSWER)).await;
    let dead = nobody().await;
    let folder =
        file("balance = \"round-robin\"\n", &[("dead", dead, ""), ("good", good.address, "")]);
    let upstreams = load(&folder);
    let outgoing = simple(false);
    let one = || async {
        let route = upstreams.route("m", None).unwrap();
        drain(send(&upstreams, &route, &outgoing).await.unwrap()).await.account.usage
    };
    for usage in futures_all((0..100).map(|_| one())).await {
        assert_eq!(usage, used());
    }
    assert_eq!(good.requests(), 100);
}

#[tokio::test]
async fn what_is_full_is_refused_at_once() {
    let server = Server::answering(vec![Act::Hang]).await;
    let folder = file("", &[("a", server.address, "max-in-flight = 1")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let outgoing = simple(false);
    let held = send(&upstreams, &route, &outgoing);
    tokio::pin!(held);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut held).await.is_err());
    let trail = Trail::default();
    let failed = upstreams.send(&route, &outgoing, &trail).await.unwrap_err();
    assert_eq!((failed.kind, trail.ended().last().is_none()), (FailedKind::Full, true));
}

#[tokio::test]
async fn whoever_reads_slowly_slows_the_upstream() {
    let event = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(60_000)
    );
    let written = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while stream.write_all(event.as_bytes()).await.is_ok() {
                written.fetch_add(event.len(), SeqCst);
            }
        }
    });
    let folder = file("", &[("a", address, "")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let mut exchange = send(&upstreams, &route, &simple(true)).await.unwrap();
    exchange.next().await.unwrap().unwrap();
    // Until nothing moves any more: what the kernel's and our buffers take, and no more.
    let mut before = usize::MAX;
    while before != written.load(SeqCst) {
        before = written.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 64 << 20, "{before} bytes for nobody");
}

#[tokio::test]
async fn what_nobody_knows_passes_as_it_is() {
    let binary: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {}\r\n\r\n",
        binary.len()
    );
    let json = r#"{"results":[],"model":"m-1","usage":{"prompt_tokens":9,"total_tokens":9}}"#;
    let audio = vec![Act::Write(head.into_bytes()), Act::Write(binary.clone())];
    let server = Server::start(move |_, arrived| {
        if arrived.head.contains("/rerank") { plain(200, "", json) } else { audio.clone() }
    })
    .await;
    let folder = file("", &[("a", server.address, "models = [{ as = \"m\", name = \"x\" }]")]);
    let upstreams = load(&folder);
    let route = upstreams.route("m", None).unwrap();
    let mut outgoing = simple(false);
    (outgoing.path, outgoing.operation) = ("/audio/speech?a=b".into(), Operation::Other);
    let exchange = send(&upstreams, &route, &outgoing).await.unwrap();
    assert_eq!(exchange.head().content_type.as_deref(), Some("audio/mpeg"));
    let whole = drain(exchange).await;
    assert!([&whole.body[..], &whole.last[..]].concat() == binary && !whole.last.is_empty());
    assert!(whole.account.ended && whole.account.usage.is_none());
    assert!(server.last().head.starts_with("POST /v1/audio/speech?a=b HTTP"));
    assert!(server.last().body.contains(r#""model":"x""#));
    outgoing.path = "/rerank".into();
    let whole = drain(send(&upstreams, &route, &outgoing).await.unwrap()).await;
    assert_eq!((whole.text().as_str(), whole.account.usage.unwrap().input), (json, 9));
    // A form is not JSON and is left alone.
    outgoing.headers.insert("content-type", "multipart/form-data; boundary=b".parse().unwrap());
    outgoing.body = "--b\r\nmodel=m".into();
    drain(send(&upstreams, &route, &outgoing).await.unwrap()).await;
    let arrived = server.last();
    assert_eq!(arrived.body, "--b\r\nmodel=m");
    assert!(arrived.head.contains("content-type: multipart/form-data; boundary=b"));
}
