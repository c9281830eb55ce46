//! OTLP in: the listeners that other programs export their spans, metrics and logs to. Each speaks OTLP/HTTP
//! (protobuf and JSON) and OTLP/gRPC, which a connection's first bytes tell apart.
//!
//! What is decompressed has a bound, and so has what is worked on at a time. An export is answered
//! once it is on record.

mod body;
mod grpc;
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tollgate_domain::ErrorKind;
use tollgate_domain::passed::Signal;
use tollgate_gateway::{Caller, Encoding, Gateway, Refusal, accepted};

use crate::server::{HttpError, HttpServer, bind};
use crate::settings::HttpSettings;
use crate::tls::{ServerTls, TlsFiles};

/// Largest request in bytes, compressed or not.
const LARGEST: usize = 16 << 20;

/// Longest wait for a whole request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Most connections of one listener at a time.
const CONNECTIONS: usize = 256;

/// Requests whose bodies are in memory at a time. Policy when there are more: *refuse*, with 429.
const BODIES: usize = 32;

/// When a sender may try again.
const RETRY: Duration = Duration::from_secs(1);

/// Servers that listen for spans and do not answer yet.
#[derive(Debug)]
pub struct OtlpServer {
    servers: Vec<HttpServer>,
}

/// Starts to listen for spans at these addresses, under TLS if there is a certificate.
///
/// # Errors
/// [`HttpError`], which says what to do about it.
pub async fn bind_otlp(
    addresses: &[SocketAddr],
    tls: Option<TlsFiles>,
) -> Result<OtlpServer, HttpError> {
    let tls = tls.map(ServerTls::load).transpose();
    let tls = tls.map_err(|source| HttpError::Tls { setting: "otlp", source: Box::new(source) })?;
    let mut servers = Vec::with_capacity(addresses.len());
    for listen in addresses {
        let settings = HttpSettings {
            listen: *listen,
            setting: "otlp-listen",
            max_connections: CONNECTIONS,
            http2: true,
            tls: tls.clone(),
            ..HttpSettings::default()
        };
        servers.push(bind(settings).await?);
    }
    Ok(OtlpServer { servers })
}

impl OtlpServer {
    /// Where it listens: the real ports, also when any was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(HttpServer::local_addr).collect()
    }

    /// Serves until `stop`, and returns once the requests in flight are answered.
    pub async fn run(self, gateway: Gateway, stop: CancellationToken) {
        let router = router(gateway);
        let mut running = tokio::task::JoinSet::new();
        for server in self.servers {
            let (router, stop) = (router.clone(), stop.clone());
            running.spawn(async move { server.serve(router, &stop).await });
        }
        while running.join_next().await.is_some() {}
    }
}

/// What handlers share.
#[derive(Clone)]
struct Otlp {
    gateway: Gateway,
    bodies: Arc<Semaphore>,
}

impl Otlp {
    /// A place for a body.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.bodies).try_acquire_owned().map_err(|_| {
            let message = "The gateway reads many other requests with spans.";
            Refusal::new(ErrorKind::Overloaded, message).retry_after(RETRY)
        })
    }
}

fn router(gateway: Gateway) -> Router {
    let otlp = Otlp { gateway, bodies: Arc::new(Semaphore::new(BODIES)) };
    let signals = [
        (["/v1/traces", "/v1/traces/"], grpc::TRACES, What::Spans),
        (["/v1/metrics", "/v1/metrics/"], grpc::METRICS, What::Passed(Signal::Metrics)),
        (["/v1/logs", "/v1/logs/"], grpc::LOGS, What::Passed(Signal::Logs)),
    ];
    let router = signals.into_iter().fold(Router::new(), |router, (paths, method, what)| {
        let router = paths.into_iter().fold(router, |router, path| {
            router
                .route(path, post(move |State(otlp), request| http::exported(otlp, what, request)))
        });
        router.route(method, post(move |State(otlp), request| grpc::exported(otlp, what, request)))
    });
    router.fallback(http::other).with_state(otlp)
}

/// What a request is of.
#[derive(Clone, Copy)]
enum What {
    Spans,
    /// Metrics or logs, which pass through.
    Passed(Signal),
}

impl Otlp {
    /// Puts a request on record; what to answer.
    async fn take(
        &self,
        caller: Caller,
        what: What,
        body: Bytes,
        encoding: Encoding,
    ) -> Result<Vec<u8>, Refusal> {
        match what {
            What::Spans => {
                let receipt = self.gateway.ingest(caller, body, encoding).await?;
                Ok(accepted(encoding, receipt.rejected, receipt.problem.as_deref()))
            }
            What::Passed(signal) => {
                self.gateway.pass_on(caller, signal, body, encoding).await?;
                // An answer that says nothing is the same of every signal.
                Ok(accepted(encoding, 0, None))
            }
        }
    }
}

/// Who did not send a whole body in time may come again: the same request is no worse then.
fn slow(refusal: Refusal) -> Refusal {
    if refusal.kind == ErrorKind::Timeout { refusal.retry_after(RETRY) } else { refusal }
}

/// There is nothing there.
fn not_there(path: &str) -> Refusal {
    let message = format!(
        "There is nothing at {path}. Tollgate takes spans, metrics and logs, at /v1/traces, \
         /v1/metrics and /v1/logs and by the services of gRPC."
    );
    Refusal::new(ErrorKind::NotFound, message)
}
