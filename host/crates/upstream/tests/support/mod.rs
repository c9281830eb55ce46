//! Servers that behave as a test wants them to, on real sockets, and a gateway's side of them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::allow_attributes,
    reason = "each test uses a part of it, and fails by panicking"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tollgate_domain::record::Operation;
use tollgate_upstream::{
    Account, Attempt, AttemptOutcome, Exchange, Failed, Outgoing, PieceKind, Route, Trail,
    UpstreamError, Upstreams,
};

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    Write(Vec<u8>),
    Pause(Duration),
    /// Until the client goes away.
    Hang,
    /// Ends the connection, in order.
    Close,
    /// Ends it with a reset.
    Reset,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub head: String,
    pub body: String,
}

/// A server.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub arrived: Arc<Mutex<Vec<Arrived>>>,
    pub connections: Arc<AtomicUsize>,
    /// Hanging answers whose client went away.
    pub gone: Arc<AtomicUsize>,
}

impl Server {
    /// `acts` says what is done with the n-th request, counted from 0.
    pub async fn start(acts: impl Fn(usize, &Arrived) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            arrived: Arc::default(),
            connections: Arc::default(),
            gone: Arc::default(),
        };
        let (this, acts) = (server.clone(), Arc::new(acts));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.connections.fetch_add(1, SeqCst);
                let (this, acts) = (this.clone(), Arc::clone(&acts));
                tokio::spawn(async move { this.serve(stream, &*acts).await });
            }
        });
        server
    }

    /// One that answers everything with the same.
    pub async fn answering(acts: Vec<Act>) -> Self {
        Self::start(move |_, _| acts.clone()).await
    }

    pub fn requests(&self) -> usize {
        self.arrived.lock().unwrap().len()
    }

    pub fn last(&self) -> Arrived {
        self.arrived.lock().unwrap().last().unwrap().clone()
    }

    async fn serve(
        &self,
        mut stream: TcpStream,
        acts: &(impl Fn(usize, &Arrived) -> Vec<Act> + Sync),
    ) {
        stream.set_nodelay(true).unwrap();
        let mut buffer = Vec::new();
        while let Some(arrived) = read(&mut stream, &mut buffer).await {
            let number = {
                let mut all = self.arrived.lock().unwrap();
                all.push(arrived.clone());
                all.len() - 1
            };
            for act in acts(number, &arrived) {
                match act {
                    Act::Write(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            self.gone.fetch_add(1, SeqCst);
                            return;
                        }
                    }
                    Act::Pause(length) => sleep(length).await,
                    Act::Hang => {
                        let mut rest = [0; 64];
                        let _ = stream.read(&mut rest).await;
                        self.gone.fetch_add(1, SeqCst);
                        return;
                    }
                    Act::Close => return,
                    Act::Reset => {
                        #[expect(deprecated, reason = "a linger of zero does not block")]
                        stream.set_linger(Some(Duration::ZERO)).unwrap();
                        return;
                    }
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Arrived> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                })
                .unwrap_or(0);
            if buffer.len() >= end + 4 + length {
                let body = String::from_utf8(buffer[end + 4..end + 4 + length].to_vec()).unwrap();
                buffer.drain(..end + 4 + length);
                return Some(Arrived { head, body });
            }
        }
        if stream.read_buf(buffer).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// A plain answer.
pub fn plain(status: u16, headers: &str, body: &str) -> Vec<Act> {
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    vec![Act::Write(text.into_bytes())]
}

/// The head of a stream.
pub fn stream_head() -> Act {
    Act::Write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec(),
    )
}

/// A chunk of a stream.
pub fn chunk(text: &[u8]) -> Act {
    let mut bytes = format!("{:x}\r\n", text.len()).into_bytes();
    bytes.extend_from_slice(text);
    bytes.extend_from_slice(b"\r\n");
    Act::Write(bytes)
}

/// The end of a stream.
pub fn stream_end() -> Act {
    Act::Write(b"0\r\n\r\n".to_vec())
}

/// A stream of these events.
pub fn stream(events: &[&str]) -> Vec<Act> {
    let mut acts = vec![stream_head()];
    acts.extend(events.iter().map(|event| chunk(event.as_bytes())));
    acts.push(stream_end());
    acts
}

/// Writes `backends.toml`; `rest` follows each backend's name and URL.
pub fn file(top: &str, backends: &[(&str, SocketAddr, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    rewrite(&folder, top, backends);
    folder
}

pub fn rewrite(folder: &tempfile::TempDir, top: &str, backends: &[(&str, SocketAddr, &str)]) {
    let mut text = top.to_owned();
    for (name, address, rest) in backends {
        text.push_str(&format!(
            "\n[[backend]]\nname = \"{name}\"\nurl = \"http://{address}/v1\"\n{rest}\n"
        ));
    }
    std::fs::write(folder.path().join("backends.toml"), text).unwrap();
}

pub fn load(folder: &tempfile::TempDir) -> Upstreams {
    Upstreams::load(folder.path().join("backends.toml")).unwrap()
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub fn chat(body: &str, stream: bool) -> Outgoing {
    Outgoing {
        path: "/chat/completions".into(),
        method: Method::POST,
        body: Bytes::copy_from_slice(body.as_bytes()),
        stream,
        model: "m".to_owned(),
        headers: HeaderMap::new(),
        operation: Operation::Chat,
        keep_output: false,
    }
}

pub fn simple(stream: bool) -> Outgoing {
    chat(&format!(r#"{{"model":"m","stream":{stream},"messages":[]}}"#), stream)
}

/// Sends it, whatever trail it leaves.
pub async fn send(
    upstreams: &Upstreams,
    route: &Route,
    outgoing: &Outgoing,
) -> Result<Exchange, Failed> {
    upstreams.send(route, outgoing, &Trail::default()).await
}

/// All that came of an answer.
#[derive(Debug)]
pub struct Whole {
    pub body: Vec<u8>,
    pub last: Vec<u8>,
    pub account: Account,
    pub error: Option<UpstreamError>,
}

impl Whole {
    pub fn text(&self) -> String {
        String::from_utf8([&self.body[..], &self.last[..]].concat()).unwrap()
    }
}

pub async fn drain(mut exchange: Exchange) -> Whole {
    let (mut body, mut last, mut error) = (Vec::new(), Vec::new(), None);
    while let Some(piece) = exchange.next().await {
        match piece {
            Ok(piece) if piece.kind == PieceKind::Last => last.extend_from_slice(&piece.bytes),
            Ok(piece) => {
                assert!(last.is_empty(), "nothing follows what is last");
                body.extend_from_slice(&piece.bytes);
            }
            Err(failure) => error = Some(failure),
        }
    }
    assert!(exchange.next().await.is_none(), "it stays at its end");
    Whole { body, last, account: exchange.into_account(), error }
}

/// Waits until `what` holds, for a generous while.
pub async fn until(what: impl Fn() -> bool) {
    for _ in 0..1000 {
        if what() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to be");
}

/// Who was asked, and what came of it.
pub fn kinds(attempts: &[Attempt]) -> Vec<String> {
    let kind = |outcome: &AttemptOutcome| match outcome {
        AttemptOutcome::Answered { status } => status.to_string(),
        AttemptOutcome::Refused { status, .. } => format!("refused {status}"),
        AttemptOutcome::Failed { kind, .. } => kind.name().to_owned(),
    };
    attempts
        .iter()
        .map(|attempt| format!("{} {}", attempt.candidate.backend(), kind(&attempt.outcome)))
        .collect()
}
