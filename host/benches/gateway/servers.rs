//! What stands behind a gateway: an upstream with fixed answers and a receiver of OTLP that takes everything at once. Each is
//! a thread of this process, so that its work is on the load's core and in no gateway's processor time.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Interval, MissedTickBehavior};

/// What the upstream calls its model; the bundled price list knows it.
pub const MODEL: &str = "gpt-4o-mini";

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"A span is one timed operation. It has a name, a start, an end and attributes, and it points to its parent."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":24,"completion_tokens":27,"total_tokens":51,"prompt_tokens_details":{"cached_tokens":0}}}"#;

/// What a streamed answer is like.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// How many there are, each an event of its own.
    pub tokens: usize,
    /// How long it takes from one to the next; none: each comes as soon as the one before is on its way.
    pub pace: Duration,
}

/// The upstream: what vLLM's API server would say.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    stream: Arc<Mutex<Stream>>,
}

impl Upstream {
    pub fn start() -> Self {
        let stream = Arc::new(Mutex::new(Stream { tokens: 1, pace: Duration::ZERO }));
        let given = Arc::clone(&stream);
        let address = serve(move |request| answer(request, Arc::clone(&given)));
        Self { address, stream }
    }

    /// What streams that begin from now on are like.
    pub fn stream(&self, stream: Stream) {
        *self.stream.lock().unwrap() = stream;
    }
}

/// The receiver, and how many bytes it took.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    pub taken: Arc<AtomicU64>,
}

impl Receiver {
    pub fn start() -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let address = serve(move |request: Request<Incoming>| {
            let count = Arc::clone(&count);
            async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    count.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                reply("application/x-protobuf", Full::default())
            }
        });
        Self { address, taken }
    }
}

async fn answer(
    request: Request<Incoming>,
    stream: Arc<Mutex<Stream>>,
) -> Response<Either<Full<Bytes>, Events>> {
    let json = |text: &'static str| reply("application/json", Either::Left(Full::from(text)));
    let chat = request.uri().path() == "/v1/chat/completions";
    if request.method() != Method::POST || !chat {
        return json(match request.uri().path() {
            "/v1/models" => {
                r#"{"object":"list","data":[{"id":"gpt-4o-mini","object":"model","created":1,"owned_by":"mock"}]}"#
            }
            "/server_info" | "/get_server_info" => {
                r#"{"model_path":"gpt-4o-mini","served_model_name":"gpt-4o-mini"}"#
            }
            _ => "{}",
        });
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asks: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if asks["stream"] != true {
        return json(ANSWER);
    }
    let with_usage = asks["stream_options"]["include_usage"] == true;
    let events = Events::new(with_usage, *stream.lock().unwrap());
    reply("text/event-stream", Either::Right(events))
}

fn reply<B>(kind: &'static str, body: B) -> Response<B> {
    Response::builder().header("content-type", kind).body(body).unwrap()
}

/// A streamed answer, each event a write of its own.
struct Events {
    next: usize,
    tokens: usize,
    with_usage: bool,
    pace: Option<Interval>,
    /// Whether the event before is on its way.
    flushed: bool,
}

impl Events {
    fn new(with_usage: bool, Stream { tokens, pace }: Stream) -> Self {
        let pace = (!pace.is_zero()).then(|| {
            let mut pace = tokio::time::interval(pace);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        Self { next: 0, tokens, with_usage, pace, flushed: true }
    }

    fn event(&self, number: usize) -> Option<Bytes> {
        let chunk = |delta: &str, reason: &str, usage: &str| {
            let choices = match usage {
                "null" => format!(
                    r#"[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason},"token_ids":null}}]"#
                ),
                _ => "[]".to_owned(),
            };
            Bytes::from(format!(
                "data: {{\"id\":\"chatcmpl-5c2f0d4cbd6d4e8aa1b0a1d7c1f9b1aa\",\"object\":\"chat.completion.chunk\",\
                 \"created\":1760000000,\"model\":\"{MODEL}\",\"choices\":{choices},\"usage\":{usage}}}\n\n"
            ))
        };
        let usage = || {
            format!(
                r#"{{"prompt_tokens":24,"completion_tokens":{},"total_tokens":{}}}"#,
                self.tokens,
                self.tokens + 24
            )
        };
        match number.checked_sub(self.tokens) {
            None => Some(chunk(r#"{"content":" word"}"#, "null", "null")),
            Some(0) => Some(chunk("{}", "\"stop\"", "null")),
            Some(1) if self.with_usage => Some(chunk("", "", &usage())),
            Some(1 | 2) if self.with_usage == (number == self.tokens + 2) => {
                Some(Bytes::from_static(b"data: [DONE]\n\n"))
            }
            _ => None,
        }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_tick(context));
        } else if !self.flushed {
            // Whoever is told to wait sends what it has.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flushed = false;
        let event = self.event(self.next);
        self.next += 1;
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

/// Serves on a free port, on a thread of its own, for as long as the process lives.
fn serve<S, F, B>(answer: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let answer = answer.clone();
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async { Ok::<_, Infallible>(answered.await) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                let connection = connection.serve_connection(TokioIo::new(stream), service);
                // It ends when the other side is killed.
                tokio::task::spawn_local(async { connection.await.ok() });
            }
        });
    });
    address
}
