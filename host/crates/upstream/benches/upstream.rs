//! What an upstream costs: `cargo xtask bench upstream`.
//!
//! A streamed event: the bytes of a long answer go through the same code as in a gateway, in frames as a network makes them, from one event in
//! each to many, in memory: framing, reading, stripping, the account. No sockets.
//!
//! A request: a round trip to a local server that answers at once, by `send` and by a bare socket, one after the other. The
//! difference is what routing, editing, the HTTP client and the account take.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{Server, file, load, plain, send, simple};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_upstream::reading_bench;

/// Events of an answer, and how often it is read: short enough that a round is not interrupted on a machine that does
/// other things too. The best round counts.
const EVENTS: usize = 500;
const ROUNDS: usize = 500;

fn main() {
    let mut rows = Vec::new();
    println!("{:<34} {:>16} {:>12}", "stream", "events in frame", "us/event");
    for (name, stream, strip) in [
        ("vLLM, usage not asked for", vllm(false), true),
        ("vLLM, usage in each chunk", vllm(true), true),
        ("vLLM, usage asked for", vllm(false), false),
    ] {
        for in_frame in [1, 4, 32] {
            let frames = frames(&stream, in_frame);
            let mut best = Duration::MAX;
            for _ in 0..ROUNDS {
                let began = Instant::now();
                let bytes = reading_bench(&frames, strip);
                best = best.min(began.elapsed());
                assert!(bytes > EVENTS * 100);
            }
            let events = u32::try_from(EVENTS).unwrap();
            let micros = best.as_secs_f64() * 1e6 / f64::from(events);
            println!("{name:<34} {in_frame:>16} {micros:>12.3}");
            rows.push(format!(
                r#"{{"stream":"{name}","events_in_frame":{in_frame},"us_per_event":{micros:.3}}}"#
            ));
        }
    }
    let (bare, sent) = round_trips();
    println!("\nround trip, median: {bare:.1} us by a bare socket, {sent:.1} us by send");
    println!(
        "\n{{\"bench\":\"upstream\",\"events\":{EVENTS},\"rows\":[{}],\"bare_round_trip_us\":{bare:.1},\"send_round_trip_us\":{sent:.1}}}",
        rows.join(",")
    );
}

/// Medians in microseconds: of a bare socket, and of `send` with all pieces taken.
fn round_trips() -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let body = r#"{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
        let server = Server::answering(plain(200, "", body)).await;
        let folder = file("", &[("a", server.address, "models = [{ as = \"m\", name = \"x\" }]")]);
        let upstreams = load(&folder);
        let outgoing = simple(false);
        let (mut bare, mut sent) = (Vec::new(), Vec::new());
        let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length:";
        let request = format!("{head} {}\r\n\r\n{}", outgoing.body.len(), str::from_utf8(&outgoing.body).unwrap());
        for _ in 0..3000 {
            let began = Instant::now();
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 4096];
            let mut length = 0;
            while !answer[..length].ends_with(b"}}") {
                length += socket.read(&mut answer[length..]).await.unwrap();
            }
            bare.push(began.elapsed());
            let began = Instant::now();
            let route = upstreams.route("m", None).unwrap();
            let mut exchange = send(&upstreams, &route, &outgoing).await.unwrap();
            while let Some(piece) = exchange.next().await {
                piece.unwrap();
            }
            assert!(exchange.account().usage.is_some());
            sent.push(began.elapsed());
        }
        let median = |took: &mut Vec<Duration>| {
            took.sort_unstable();
            took[took.len() / 2].as_secs_f64() * 1e6
        };
        (median(&mut bare), median(&mut sent))
    })
}

/// The events of an answer as vLLM writes them.
fn vllm(continuous: bool) -> Vec<String> {
    let mut events: Vec<String> = (0..EVENTS)
        .map(|number| {
            let usage = if continuous {
                format!("{{\"prompt_tokens\":12,\"total_tokens\":{},\"completion_tokens\":{number}}}", number + 12)
            } else {
                "null".to_owned()
            };
            format!(
                "data: {{\"id\":\"chatcmpl-5c2f0d4cbd6d4e8aa1b0a1d7c1f9b1aa\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1760000000,\"model\":\"meta-llama/Llama-3.3-70B-Instruct\",\"choices\":[{{\"index\":0,\
                 \"delta\":{{\"content\":\" word\"}},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}}],\
                 \"usage\":{usage}}}\n\n"
            )
        })
        .collect();
    events.push(
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":9}}\n\n"
            .to_owned(),
    );
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn frames(events: &[String], in_frame: usize) -> Vec<Bytes> {
    events.chunks(in_frame).map(|events| Bytes::from(events.concat())).collect()
}
