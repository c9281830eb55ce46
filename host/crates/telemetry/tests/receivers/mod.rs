//! Receivers on local sockets that answer what they are told to, and keep what came in.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test uses some of it, and a failure there is the test's"
)]

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_domain::{Resource, Span};
use tollgate_telemetry::{
    Exporter, ExporterSettings, OtlpSettings, Protocol, SendError, SinkSettings, build_exporters,
};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An exporter to the receiver at `address`.
pub fn otlp(
    protocol: Protocol,
    address: &str,
    change: impl FnOnce(&mut OtlpSettings),
) -> Fallible<Exporter> {
    let mut settings = OtlpSettings::new(protocol);
    settings.endpoint = format!("http://{address}/v1/traces");
    change(&mut settings);
    let settings = vec![ExporterSettings::new("otlp", SinkSettings::Otlp(settings))];
    let exporter = build_exporters(settings, &Resource::default())?.pop();
    exporter.ok_or_else(|| "no exporter".into())
}

/// One attempt, in short: `taken`, `taken but N`, `later`, `later in N s`, `never`; and the message.
pub async fn attempt(exporter: &mut Exporter, spans: &[Span]) -> (String, String) {
    match exporter.send(spans).await {
        Ok(accepted) => {
            let outcome = match accepted.rejected_spans {
                0 => "taken".to_owned(),
                rejected => format!("taken but {rejected}"),
            };
            (outcome, accepted.message.unwrap_or_default())
        }
        Err(SendError::Later { message, after: None }) => ("later".to_owned(), message),
        Err(SendError::Later { message, after: Some(after) }) => {
            (format!("later in {} s", after.as_secs_f64().round()), message)
        }
        Err(SendError::Never { message }) => ("never".to_owned(), message),
    }
}

/// What an HTTP request was.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.len()));
        self.head
            .lines()
            .find(|line| of(line).is_some_and(|(found, _)| found == name))
            .and_then(|line| line.split_once(": "))
            .map(|(_, value)| value)
    }
}

/// What is sent back for a request, byte for byte.
pub type Answer = Arc<dyn Fn(&Received) -> Vec<u8> + Send + Sync>;

/// An HTTP answer.
pub fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

/// A server of HTTP.
pub struct HttpReceiver {
    pub address: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl HttpReceiver {
    /// Starts it.
    pub async fn start(answer: Answer) -> Fallible<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&kept)));
            }
        });
        Ok(Self { address, received })
    }

    /// Starts one that speaks TLS.
    pub async fn start_tls(answer: Answer, config: rustls::ServerConfig) -> Fallible<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("localhost:{}", listener.local_addr()?.port());
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, answer, kept).await;
                    }
                });
            }
        });
        Ok(Self { address, received })
    }

    /// What came in so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Answer,
    kept: Arc<Mutex<Vec<Received>>>,
) {
    if let Some(request) = read_request(&mut stream).await {
        let bytes = answer(&request);
        kept.lock().unwrap().push(request);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).ok()?;
            bytes = body;
            break head;
        }
    };
    let mut request = Received { head, body: bytes };
    let length: usize = request.header("content-length")?.parse().ok()?;
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}

/// Answers of a gRPC server, one for each request; the last for all that follow.
pub type Statuses = Vec<Result<ExportTraceServiceResponse, Status>>;

/// A server of OTLP's trace service.
#[derive(Clone, Default)]
pub struct GrpcReceiver {
    pub address: String,
    answers: Arc<Mutex<VecDeque<Result<ExportTraceServiceResponse, Status>>>>,
    received: Arc<Mutex<Vec<(MetadataMap, ExportTraceServiceRequest)>>>,
}

impl GrpcReceiver {
    /// Starts it.
    pub async fn start(answers: Statuses, limit: usize) -> Fallible<Self> {
        Self::start_with(answers, limit, None).await
    }

    /// Starts it, under TLS if there is a configuration.
    pub async fn start_with(
        answers: Statuses,
        limit: usize,
        tls: Option<ServerTlsConfig>,
    ) -> Fallible<Self> {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let port = incoming.local_addr()?.port();
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let receiver = Self {
            address: format!("{host}:{port}"),
            answers: Arc::new(Mutex::new(answers.into())),
            ..Self::default()
        };
        let service = TraceServiceServer::new(receiver.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(limit);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls)?;
        }
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        Ok(receiver)
    }

    /// What came in so far.
    pub fn received(&self) -> Vec<(MetadataMap, ExportTraceServiceRequest)> {
        self.received.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for GrpcReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.received.lock().unwrap().push((metadata, request));
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.unwrap_or_else(|| Ok(ExportTraceServiceResponse::default())).map(Response::new)
    }
}

/// All spans of requests.
pub fn spans_of<'a>(
    requests: impl IntoIterator<Item = &'a ExportTraceServiceRequest>,
) -> Vec<OtlpSpan> {
    let resources = requests.into_iter().flat_map(|request| &request.resource_spans);
    resources.flat_map(|r| &r.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
}

/// The same server for every protocol does not exist; the same tests do.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];

/// An address where nobody listens.
pub async fn nobody() -> Fallible<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}
