//! The server on real sockets, with routes of the tests' own.

use std::convert::Infallible;

use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

const SOON: Duration = Duration::from_millis(200);
/// Never reached unless a test fails.
const LATE: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

async fn start(router: Router, settings: HttpSettings) -> Running {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = bind(HttpSettings { listen, ..settings }).await.unwrap();
    let (address, stop) = (server.local_addr(), CancellationToken::new());
    let stopped = stop.clone();
    let ended = tokio::spawn(async move { server.serve(router, &stopped).await });
    Running { address, stop, ended }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn ask(client: &mut TcpStream) {
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
}

/// Reads until `end` was read.
async fn read_until(client: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(timeout(LATE, client.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(read).unwrap()
}

/// Reads until the server closes the connection.
async fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    timeout(LATE, client.read_to_end(&mut read)).await.unwrap().unwrap();
    read
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = start(hello(), HttpSettings::default()).await;
    let mut client = connect(server.address).await;
    for _ in 0..3 {
        ask(&mut client).await;
        assert!(read_until(&mut client, "hello").await.starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn a_client_that_does_not_ask_is_sent_away() {
    let settings = HttpSettings { header_timeout: SOON, ..HttpSettings::default() };
    let server = start(hello(), settings).await;
    let mut silent = connect(server.address).await;
    let mut slow = connect(server.address).await;
    slow.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let mut idle = connect(server.address).await;
    ask(&mut idle).await;
    read_until(&mut idle, "hello").await;
    for client in [&mut silent, &mut slow, &mut idle] {
        let rest = read_to_end(client).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_answer() {
    let (held, mut dropped) = mpsc::channel::<()>(1);
    let endless = move || {
        let held = held.clone();
        let pieces = stream::unfold(held, |held| async move {
            Some((Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 * 1024])), held))
        });
        async move { Body::from_stream(pieces) }
    };
    let settings = HttpSettings { write_stall: SOON, ..HttpSettings::default() };
    let server = start(Router::new().route("/", get(endless)), settings).await;
    let mut client = connect(server.address).await;
    ask(&mut client).await;
    read_until(&mut client, "xxx").await;
    server.stop.cancel();
    timeout(LATE, server.ended).await.unwrap().unwrap();
    // The routes are gone, so whoever still holds a sender is an answer.
    assert_eq!(timeout(LATE, dropped.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn stopping_lets_requests_in_flight_finish_and_closes_the_rest() {
    let (entered, mut inside) = mpsc::channel(1);
    let slow = move || {
        let entered = entered.clone();
        async move {
            let _ = entered.send(()).await;
            sleep(SOON).await;
            "finished"
        }
    };
    let server = start(hello().route("/slow", get(slow)), HttpSettings::default()).await;
    let mut idle = connect(server.address).await;
    ask(&mut idle).await;
    read_until(&mut idle, "hello").await;
    let mut busy = connect(server.address).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    inside.recv().await.unwrap();
    server.stop.cancel();
    assert!(read_to_end(&mut idle).await.is_empty());
    assert!(read_to_end(&mut busy).await.ends_with(b"finished"));
    timeout(LATE, server.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let server =
        start(hello(), HttpSettings { max_connections: 1, ..HttpSettings::default() }).await;
    let mut first = connect(server.address).await;
    ask(&mut first).await;
    read_until(&mut first, "hello").await;
    let mut second = connect(server.address).await;
    ask(&mut second).await;
    assert!(timeout(SOON, second.read_u8()).await.is_err());
    drop(first);
    read_until(&mut second, "hello").await;
}

#[tokio::test]
async fn a_head_beyond_the_bound_is_refused() {
    let server = start(hello(), HttpSettings::default()).await;
    let mut client = connect(server.address).await;
    let head = format!("GET / HTTP/1.1\r\nhost: test\r\nx: {}", "x".repeat(BUFFER_BYTES));
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut client, "\r\n").await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn an_address_that_cannot_be_had_says_what_to_do() {
    let first =
        bind(HttpSettings { listen: ([127, 0, 0, 1], 0).into(), ..HttpSettings::default() });
    let taken = first.await.unwrap();
    let listen = taken.local_addr();
    let error = bind(HttpSettings { listen, ..HttpSettings::default() }).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains(&listen.to_string()) && told.contains("--listen"), "{told}");
    assert!(matches!(error, HttpError::AddressInUse { .. }));
    // An address kept for documentation, which no machine has.
    let listen = SocketAddr::from(([192, 0, 2, 1], 8080));
    let error = bind(HttpSettings { listen, ..HttpSettings::default() }).await.unwrap_err();
    assert!(matches!(error, HttpError::AddressUnavailable { .. }), "{error}");
}
