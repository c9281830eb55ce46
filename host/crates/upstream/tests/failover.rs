//! Errors that are about one backend, and who is asked after it.

mod support;

use std::time::Instant;

use support::*;
use tollgate_upstream::{Candidate, Trail};

const ANSWER: &str =
    r#"{"model":"m-1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#;

#[tokio::test]
async fn whoever_would_say_the_same_again_is_not_asked_again() {
    for (first, second, expected) in [
        (500, 404, vec!["a 500", "b 404", "a 500"]),
        (404, 500, vec!["a 404", "b 500", "b 500"]),
        (401, 403, vec!["a 401", "b 403"]),
    ] {
        let said = |status: u16| format!("{{\"error\":{{\"message\":\"{status}\"}}}}");
        let a = Server::answering(plain(first, "", &said(first))).await;
        let b = Server::answering(plain(second, "", &said(second))).await;
        let folder = file("", &[("a", a.address, ""), ("b", b.address, "")]);
        let upstreams = load(&folder);
        let route = upstreams.route("m", None).unwrap();
        let trail = Trail::default();
        let exchange = upstreams.send(&route, &simple(false), &trail).await.unwrap();
        let tried = trail.ended();
        assert_eq!(kinds(&tried.attempts), expected);
        // The last one's words, under its name.
        let status = exchange.head().status;
        assert_eq!(expected.last().unwrap()[2..], status.to_string());
        assert_eq!(exchange.head().candidate.place(), tried.last().map_or(9, Candidate::place));
        assert_eq!(upstreams.status().iter().map(|status| status.in_flight).sum::<u32>(), 0);
        assert_eq!(drain(exchange).await.text(), said(status));
    }
}

#[tokio::test]
async fn errors_that_another_may_do_better_are_paid_from_the_budget() {
    let bad = Server::answering(plain(404, "", "{}")).await;
    let good = Server::answering(plain(200, "", ANSWER)).await;
    let head = "retry-budget = 0.0\nbalance = \"round-robin\"\n";
    let folder = file(head, &[("bad", bad.address, "weight = 1000"), ("good", good.address, "")]);
    let upstreams = load(&folder);
    let began = Instant::now();
    let mut answered = 0;
    for _ in 0..30 {
        let route = upstreams.route("m", None).unwrap();
        let exchange = send(&upstreams, &route, &simple(false)).await.unwrap();
        answered += usize::from(exchange.head().status == 200);
    }
    let earned = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((10..=10 + earned).contains(&answered), "{answered} of 30");
    assert_eq!((good.requests(), bad.requests()), (answered, 30));
}
