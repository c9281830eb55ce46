//! The server: a socket, its connections, and the orderly end of both.
//!
//! Connections are bounded in number, in the time they may take to ask and in the time they may
//! leave an answer unread. Whatever a connection does, it ends alone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tollgate_gateway::Gateway;

use crate::stall::StallGuard;
use crate::tls::TlsError;
use crate::{HttpSettings, routes, version};

/// Bound of what is read ahead and of what is written but not sent, per connection; so also of a
/// request's head.
const BUFFER_BYTES: usize = 64 * 1024;

/// Requests of one HTTP/2 connection at a time, and bytes of the head of one.
const STREAMS: u32 = 32;
const HEADER_BYTES: u32 = 16 * 1024;

/// Longest time that a peer may take to agree on TLS.
const GREETING: Duration = Duration::from_secs(10);

/// How long to wait after a connection could not be accepted: mostly there are too many open
/// files, and none is closed by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody else listens there.
    #[error(
        "{address} is in use by another program; stop that, or choose another with `--{setting}`"
    )]
    AddressInUse {
        /// The name of the setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It is not ours to listen on.
    #[error(
        "cannot listen on {address}; choose another with `--{setting}`, such as 127.0.0.1:8080"
    )]
    AddressUnavailable {
        /// The name of the setting.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its certificate cannot be used.
    #[error("{setting}-certificate and {setting}-key: {source}")]
    Tls {
        /// What the names of the settings begin with.
        setting: &'static str,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Others could use the admin API.
    #[error(
        "the admin API on {address} needs a token, since others can reach it; set one with \
         `--admin-token-file`, or listen on 127.0.0.1"
    )]
    Unguarded {
        /// The address.
        address: SocketAddr,
    },
}

/// A server that listens and does not answer yet: clients that connect wait.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: HttpSettings,
}

/// Starts to listen.
///
/// # Errors
/// [`HttpError`], which says what to do about it.
pub async fn bind(settings: HttpSettings) -> Result<HttpServer, HttpError> {
    let (address, setting) = (settings.listen, settings.setting);
    match listen(address).await {
        Ok((listener, address)) => Ok(HttpServer { listener, address, settings }),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(HttpError::AddressInUse { setting, address, source })
        }
        Err(source) => Err(HttpError::AddressUnavailable { setting, address, source }),
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl HttpServer {
    /// Where it listens: the real port, also when any was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. Then it accepts no more, closes what is idle, and returns once the
    /// requests in flight are answered. How long that may take is the caller's to say: dropping
    /// the future leaves the connections to end by themselves.
    ///
    /// # Errors
    /// None so far; what goes wrong with one connection is no reason to stop.
    pub async fn run(self, gateway: Gateway, stop: CancellationToken) -> Result<(), HttpError> {
        let router = routes::router(gateway, &self.settings);
        self.serve(router, &stop).await;
        Ok(())
    }

    /// The same for any routes.
    pub(crate) async fn serve(self, router: Router, stop: &CancellationToken) {
        let Self { listener, settings, .. } = self;
        let connections = Arc::new(Semaphore::new(settings.max_connections));
        let graceful = GracefulShutdown::new();
        while let Some((stream, place)) = accept(&listener, &connections, stop).await {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY is not set");
            }
            let (router, settings) = (router.clone(), settings.clone());
            let (watcher, stop) = (graceful.watcher(), stop.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(stream, router, &settings, watcher, &stop).await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
                }
                drop(place);
            });
        }
        drop(listener);
        graceful.shutdown().await;
    }
}

/// Answers one connection until it ends.
async fn converse(
    stream: TcpStream,
    router: Router,
    settings: &HttpSettings,
    watcher: Watcher,
    stop: &CancellationToken,
) -> Result<(), hyper::Error> {
    if let Some(tls) = &settings.tls {
        let guarded = StallGuard::new(stream, settings.write_stall);
        let greeting = tokio::time::timeout(GREETING, tls.acceptor().accept(guarded));
        let greeted = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            greeted = greeting => greeted,
        };
        return match greeted {
            Ok(Ok(stream)) => {
                let is_http2 = settings.http2 && stream.get_ref().1.alpn_protocol() == Some(b"h2");
                answer(stream, is_http2, router, settings, watcher).await
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection was not greeted under TLS");
                Ok(())
            }
            Err(_) => Ok(()),
        };
    }
    let is_http2 = settings.http2
        && tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            found = version::is_http2(&stream, settings.header_timeout) => match found {
                Some(found) => found,
                None => return Ok(()),
            },
        };
    let stream = StallGuard::new(stream, settings.write_stall);
    answer(stream, is_http2, router, settings, watcher).await
}

/// Answers what is asked on a stream, in one of the two protocols.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
    router: Router,
    settings: &HttpSettings,
    watcher: Watcher,
) -> Result<(), hyper::Error> {
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(router));
    if is_http2 {
        let connection = http2(settings).serve_connection(io, service);
        return watcher.watch(connection).await;
    }
    watcher.watch(http1(settings).serve_connection(io, service)).await
}

fn http1(settings: &HttpSettings) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(BUFFER_BYTES);
    protocol
}

/// A peer that is gone is found out by its silence.
fn http2(settings: &HttpSettings) -> http2::Builder<TokioExecutor> {
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.header_timeout)
        .keep_alive_timeout(settings.write_stall)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .max_send_buf_size(BUFFER_BYTES);
    protocol
}

/// The next connection and its place among those there may be; `None` at `stop`.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let place = Arc::clone(connections).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, place)),
                // The client left before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        accepted = next => accepted,
    }
}

#[cfg(test)]
mod tests;
