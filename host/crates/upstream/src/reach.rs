//! The way to a server: straight, or by a proxy, which forwards plain requests and opens tunnels (CONNECT) for TLS.
//!
//! Whatever a proxy does instead is an error of connecting: the server has not seen the request, so the next backend may.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use tokio::time::timeout;
use tower_service::Service;

use crate::error::chain;
use crate::proxy::Proxy;

/// Most bytes of what a proxy answers to CONNECT.
const ANSWER: usize = 16 << 10;

type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    straight: HttpConnector,
    detour: Option<Arc<Detour>>,
}

/// The way by a proxy.
#[derive(Debug)]
struct Detour {
    proxy: Proxy,
    /// To a proxy that is spoken to by TLS.
    tls: Option<HttpsConnector<HttpConnector>>,
    /// For a connection to it, and again for its tunnel.
    patience: Duration,
}

/// A connection.
pub(crate) struct Reached {
    io: Box<dyn Io>,
    /// Whether a proxy reads the requests.
    forwarded: bool,
}

trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

impl Reach {
    /// Without a proxy.
    pub fn straight(connector: HttpConnector) -> Self {
        Self { straight: connector, detour: None }
    }

    /// By `proxy`. `tls`: what reaches it if it is to be spoken to by TLS.
    pub fn by(
        proxy: Proxy,
        connector: HttpConnector,
        tls: Option<HttpsConnector<HttpConnector>>,
        patience: Duration,
    ) -> Self {
        Self { straight: connector, detour: Some(Arc::new(Detour { proxy, tls, patience })) }
    }
}

impl Service<Uri> for Reach {
    type Response = Reached;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Reached, Problem>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        self.straight.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let mut straight = self.straight.clone();
        let detour = self.detour.clone();
        Box::pin(async move {
            match detour {
                Some(detour) => detour.reach(straight, &server).await.map_err(Into::into),
                None => {
                    let io = Box::new(straight.call(server).await?);
                    Ok(Reached { io, forwarded: false })
                }
            }
        })
    }
}

impl Detour {
    async fn reach(&self, straight: HttpConnector, server: &Uri) -> Result<Reached, String> {
        let (place, patience) = (self.proxy.place(), self.patience);
        let io = match timeout(patience, self.connect(straight)).await {
            Ok(connected) => connected.map_err(|error| {
                format!("the proxy {place} cannot be reached: {}", chain(&*error))
            })?,
            Err(_) => {
                return Err(format!("the proxy {place} cannot be reached within {patience:?}"));
            }
        };
        if server.scheme_str() != Some("https") {
            return Ok(Reached { io, forwarded: true });
        }
        match timeout(patience, tunnel(io, server, self.proxy.credentials.clone())).await {
            Ok(Ok(io)) => Ok(Reached { io, forwarded: false }),
            Ok(Err(why)) => Err(format!("the proxy {place} opens no tunnel: {why}")),
            Err(_) => {
                Err(format!("the proxy {place} opens no tunnel: no answer within {patience:?}"))
            }
        }
    }

    async fn connect(&self, mut straight: HttpConnector) -> Result<Box<dyn Io>, Problem> {
        let uri = self.proxy.uri.clone();
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.clone().call(uri).await?),
            None => Box::new(straight.call(uri).await?),
        })
    }
}

/// Has the proxy connect to the server. The error is a sentence.
async fn tunnel(
    io: Box<dyn Io>,
    server: &Uri,
    credentials: Option<HeaderValue>,
) -> Result<Box<dyn Io>, String> {
    let host = server.host().unwrap_or_default();
    let authority = format!("{host}:{}", server.port_u16().unwrap_or(443));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().map_err(|_| format!("{authority} is no server"))?;
    let host = HeaderValue::try_from(authority).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    if let Some(credentials) = credentials {
        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials);
    }
    let garbled = |error: hyper::Error| format!("it does not speak HTTP: {}", chain(&error));
    let handshake = http1::Builder::new().max_buf_size(ANSWER).handshake(io);
    let (mut sender, connection) = handshake.await.map_err(garbled)?;
    let asking = async move {
        let answer = sender.send_request(request).await.map_err(garbled)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(garbled),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err("it answered 407: it wants other credentials".to_owned())
            }
            status => Err(format!("it answered {status}")),
        }
    };
    tokio::pin!(asking);
    let tunnel = tokio::select! {
        tunnel = &mut asking => tunnel,
        // It ends once there is a tunnel, or nothing to wait for.
        _ = connection.with_upgrades() => asking.await,
    };
    tunnel.map(|tunnel| Box::new(tunnel) as Box<dyn Io>)
}

impl Connection for Reached {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.forwarded)
    }
}

impl Read for Reached {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Reached {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}
