//! What a streamed event costs: `cargo xtask bench sse`.
//!
//! The bytes of a long answer go through the same code as in a gateway, in frames as a network makes them, from one event in
//! each to many, in memory: framing, reading, stripping, the account. No sockets.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a benchmark prints, and ends at the first fault"
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tollgate_upstream::reading_bench;

/// Events of an answer, and how often it is read.
const EVENTS: usize = 10_000;
const ROUNDS: usize = 20;

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
    println!("\n{{\"bench\":\"sse\",\"events\":{EVENTS},\"rows\":[{}]}}", rows.join(","));
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
