//! What is known of backends: breakers, health, the configuration, and their changes while requests are under way.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate_domain::BreakerState;
use tollgate_upstream::{
    FailedKind, HealthState, Trail, UpstreamError, UpstreamErrorKind, Upstreams,
};

const ANSWER: &str = r#"{"model":"m-1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
const BREAKER: &str = "[breaker]\nfaults = 3\npause-ms = 1500\nlongest-pause-ms = 1500\n";

#[tokio::test]
async fn a_breaker_opens_and_half_opens() {
    let well = Arc::new(AtomicBool::new(false));
    let server = {
        let well = Arc::clone(&well);
        Server::start(move |_, _| match well.load(SeqCst) {
            true => plain(200, "", ANSWER),
            false => plain(502, "", "{}"),
        })
        .await
    };
    let folder = file(BREAKER, &[("a", server.address, "retries = 0")]);
    let upstreams = load(&folder);
    let outgoing = simple(false);
    let ask = || async {
        let route = upstreams.route("m", None).unwrap();
        send(&upstreams, &route, &outgoing).await.map(|_| ()).map_err(|failed| failed.kind)
    };
    let refused = Err(FailedKind::Upstream(UpstreamErrorKind::Status));
    for _ in 0..3 {
        assert_eq!(ask().await, refused);
    }
    let status = || upstreams.status().remove(0);
    assert!(matches!(status().breaker, BreakerState::Open { .. }));
    assert_eq!(ask().await, Err(FailedKind::Resting));
    assert_eq!((server.requests(), status().breaker_openings), (3, 1));
    until(|| status().breaker == BreakerState::HalfOpen).await;
    assert_eq!(ask().await, refused, "the probe");
    assert_eq!(ask().await, Err(FailedKind::Resting));
    well.store(true, SeqCst);
    until(|| status().breaker == BreakerState::HalfOpen).await;
    assert_eq!(ask().await, Ok(()));
    assert_eq!(status().breaker, BreakerState::Closed);
    assert_eq!((server.requests(), status().refused, status().answered), (5, 4, 1));
}

#[tokio::test]
async fn many_at_once_make_one_probe() {
    let server = Server::answering(plain(502, "", "{}")).await;
    let folder = file(BREAKER, &[("a", server.address, "retries = 0")]);
    let upstreams = load(&folder);
    let ask = |upstreams: Upstreams| async move {
        let route = upstreams.route("m", None).unwrap();
        send(&upstreams, &route, &simple(false)).await.map(|_| ())
    };
    for _ in 0..3 {
        ask(upstreams.clone()).await.unwrap_err();
    }
    until(|| upstreams.status()[0].breaker == BreakerState::HalfOpen).await;
    let all: Vec<_> = (0..20).map(|_| tokio::spawn(ask(upstreams.clone()))).collect();
    let mut resting = 0;
    for one in all {
        let failed = one.await.unwrap().unwrap_err();
        resting += usize::from(failed.kind == FailedKind::Resting);
        assert!(failed.retry_after.is_none_or(|wait| wait <= Duration::from_millis(1500)));
    }
    assert_eq!((resting, server.requests()), (19, 4));
}

#[tokio::test]
async fn an_open_breaker_is_passed_by() {
    let bad = nobody().await;
    let good = Server::answering(plain(200, "", ANSWER)).await;
    let folder = file(BREAKER, &[("bad", bad, "weight = 1000"), ("good", good.address, "")]);
    let upstreams = load(&folder);
    for number in 0..20 {
        let route = upstreams.route("m", None).unwrap();
        let trail = Trail::default();
        let exchange = upstreams.send(&route, &simple(false), &trail).await.unwrap();
        let tries = trail.ended().attempts.len();
        assert_eq!(tries, if number < 3 { 2 } else { 1 }, "request {number}");
        // None of them is held, so that load does not decide.
        drain(exchange).await;
    }
}

#[tokio::test]
async fn health_is_checked_and_counts() {
    let well = Arc::new(AtomicBool::new(true));
    let checks = Arc::new(AtomicUsize::new(0));
    let server = {
        let (well, checks) = (Arc::clone(&well), Arc::clone(&checks));
        Server::start(move |_, arrived| {
            if !arrived.head.starts_with("GET /health HTTP") {
                return plain(200, "", ANSWER);
            }
            checks.fetch_add(1, SeqCst);
            plain(if well.load(SeqCst) { 200 } else { 500 }, "", "")
        })
        .await
    };
    let other = Server::answering(plain(200, "", ANSWER)).await;
    let health = "weight = 9\nhealth = { path = \"/health\", every-ms = 20, timeout-ms = 5000 }";
    let folder = file("", &[("a", server.address, health), ("b", other.address, "")]);
    let upstreams = load(&folder);
    let status = |place: usize| upstreams.status().remove(place).health;
    assert_eq!(status(0), HealthState::Unknown);
    let watching = tokio::spawn({
        let upstreams = upstreams.clone();
        async move { upstreams.watch().await }
    });
    until(|| status(0) == HealthState::Healthy).await;
    let first = || upstreams.route("m", None).unwrap().candidates()[0].backend().to_owned();
    assert_eq!((status(1), first()), (HealthState::Unknown, "a".to_owned()));
    well.store(false, SeqCst);
    until(|| matches!(status(0), HealthState::Unhealthy { problem } if problem.contains("500")))
        .await;
    assert_eq!(first(), "b");
    well.store(true, SeqCst);
    until(|| status(0) == HealthState::Healthy).await;
    assert_eq!(first(), "a");
    // Nobody watches, nobody checks.
    watching.abort();
    let _ = watching.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = checks.load(SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(checks.load(SeqCst), before);
}

#[tokio::test]
async fn the_configuration_changes_while_requests_are_under_way() {
    let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    let old = Server::answering(vec![
        stream_head(),
        chunk(text.as_bytes()),
        Act::Pause(Duration::from_secs(4)),
        chunk(b"data: [DONE]\n\n"),
        stream_end(),
    ])
    .await;
    let new = Server::answering(plain(200, "", ANSWER)).await;
    let folder = file("", &[("a", old.address, "models = [\"m\"]")]);
    let upstreams = load(&folder);
    let watching = tokio::spawn({
        let upstreams = upstreams.clone();
        async move { upstreams.watch().await }
    });
    let route = upstreams.route("m", None).unwrap();
    let mut exchange = send(&upstreams, &route, &simple(true)).await.unwrap();
    exchange.next().await.unwrap().unwrap();
    let names = || -> Vec<String> {
        upstreams.models(None).into_iter().map(|m| format!("{} {}", m.name, m.backend)).collect()
    };
    assert_eq!(names(), ["m a"]);
    // A bad file changes nothing.
    rewrite(&folder, "nonsense = 1\n", &[("b", new.address, "")]);
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!(names(), ["m a"]);
    rewrite(&folder, "", &[("b", new.address, "models = [\"n\", { as = \"m\", name = \"x\" }]")]);
    until(|| names() == ["n b", "m b"]).await;
    // A request goes the way it was sent, a route leads where it did, and a new one elsewhere.
    let again = send(&upstreams, &route, &simple(true)).await.unwrap();
    assert_eq!(again.head().candidate.backend(), "a");
    drop(again);
    let whole = drain(exchange).await;
    assert!(whole.error.is_none() && whole.account.ended);
    let route = upstreams.route("m", None).unwrap();
    let exchange = send(&upstreams, &route, &simple(false)).await.unwrap();
    let candidate = &exchange.head().candidate;
    assert_eq!((candidate.backend(), candidate.model()), ("b", "x"));
    watching.abort();
}

#[tokio::test]
async fn keys_are_sent_and_read_again() {
    let server = Server::answering(plain(200, "", ANSWER)).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "sesame-1\n").unwrap();
    rewrite(&folder, "", &[("a", server.address, "key-file = \"key\"")]);
    let upstreams = load(&folder);
    let ask = || async {
        let route = upstreams.route("m", None).unwrap();
        drain(send(&upstreams, &route, &simple(false)).await.unwrap()).await;
        server.last().head
    };
    assert!(ask().await.contains("authorization: Bearer sesame-1\r\n"));
    assert!(!format!("{upstreams:?}").contains("sesame"), "no key in what is printed");
    std::fs::write(folder.path().join("key"), "sesame-2\n").unwrap();
    let watching = upstreams.watch();
    tokio::pin!(watching);
    let _ = tokio::time::timeout(Duration::from_millis(3000), &mut watching).await;
    assert!(ask().await.contains("authorization: Bearer sesame-2\r\n"));
}

#[tokio::test]
async fn a_server_with_its_own_authority_is_trusted_by_file_only() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rcgen::KeyPair::serialize_der(&made.signing_key);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
            let text = format!("{head}content-length: {}\r\n\r\n{ANSWER}", ANSWER.len());
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    for trusted in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let ca = if trusted { "ca-file = \"ca.pem\"\n" } else { "" };
        let text = format!(
            "[[backend]]\nname = \"a\"\nurl = \"https://localhost:{port}/v1\"\nretries = 0\n{ca}"
        );
        std::fs::write(folder.path().join("backends.toml"), text).unwrap();
        let Ok(upstreams) = Upstreams::load(folder.path().join("backends.toml")) else {
            assert!(!trusted, "only a machine without authorities refuses that");
            continue;
        };
        let route = upstreams.route("m", None).unwrap();
        match send(&upstreams, &route, &simple(false)).await {
            Ok(exchange) => {
                assert!(trusted);
                assert!(drain(exchange).await.account.usage.is_some());
            }
            Err(failed) => {
                assert!(!trusted, "{failed:?}");
                assert_eq!(failed.kind, FailedKind::Upstream(UpstreamErrorKind::Connect));
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), "nothing").unwrap();
    let text = "[[backend]]\nname = \"a\"\nurl = \"https://h/v1\"\nca-file = \"ca.pem\"\n";
    std::fs::write(folder.path().join("backends.toml"), text).unwrap();
    let error = Upstreams::load(folder.path().join("backends.toml")).unwrap_err();
    assert!(
        matches!(&error, UpstreamError::Configuration { problem, .. } if problem.contains("ca-file")),
        "{error}"
    );
}
