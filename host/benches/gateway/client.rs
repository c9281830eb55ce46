//! A client: one connection that is kept, one request after the other.

use std::net::SocketAddr;
use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::servers::MODEL;

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub struct Ask {
    address: SocketAddr,
    key: Option<String>,
    body: Bytes,
}

impl Ask {
    /// A chat, whose answer is streamed or not. Without a key everybody is let in.
    pub fn new(address: SocketAddr, key: Option<String>, streamed: bool) -> Self {
        let stream = if streamed { r#","stream":true"# } else { "" };
        let body = format!(
            r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"What is a span, and how does it relate to its parent? Answer in two sentences please."}}],"max_tokens":256,"user":"tenant-acme"{stream}}}"#
        );
        Self { address, key, body: body.into() }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = Request::post("/v1/chat/completions")
            .header("host", "127.0.0.1")
            .header("content-type", "application/json");
        let key = self.key.as_deref().unwrap_or("none");
        let request = request.header("authorization", format!("Bearer {key}"));
        request.body(Full::new(self.body.clone())).unwrap()
    }
}

/// An answer, as far as it was looked at.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// When the first bytes of its body came.
    pub first: Instant,
    /// Events of a stream.
    pub events: u64,
    /// The last piece of it; all of it, if it is short.
    pub last: Bytes,
}

pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(ask: &Ask) -> std::io::Result<Self> {
        let stream = TcpStream::connect(ask.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async { connection.await.ok() });
        Ok(Self(sender))
    }

    /// To the end of the answer, whatever it says.
    pub async fn ask(&mut self, ask: &Ask) -> hyper::Result<Answer> {
        self.0.ready().await?;
        let answer = self.0.send_request(ask.request()).await?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let (mut first, mut ends, mut last) = (None, 0, Bytes::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                first.get_or_insert_with(Instant::now);
                // Two at the end of each event, and nowhere else.
                ends += data.iter().filter(|byte| **byte == b'\n').count() as u64;
                last = data;
            }
        }
        Ok(Answer { status, first: first.unwrap_or_else(Instant::now), events: ends / 2, last })
    }
}
