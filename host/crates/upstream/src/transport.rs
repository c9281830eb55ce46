//! Connections to one server: HTTP/1.1, kept alive, `TCP_NODELAY`, TLS where the URL says so.
//!
//! HTTP/1.1 only: one answer per connection, so one slow reader holds up no other answer, and dropping an answer closes the
//! connection, by which servers notice that nobody wants it any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::proxy::Proxy;
use crate::reach::Reach;

/// Most connections that wait for their next request.
const IDLE_CONNECTIONS: usize = 256;
/// How long they do. Below the five seconds after which uvicorn, which vLLM runs on, closes them, where a new one costs
/// little; longer where it costs a TLS handshake.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
const IDLE_TLS: Duration = Duration::from_secs(55);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What sends requests to one server.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    client: AnyClient,
    /// For a proxy that reads the requests.
    credentials: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
enum AnyClient {
    Plain(Client<Reach, Full<Bytes>>),
    Tls(Client<HttpsConnector<Reach>, Full<Bytes>>),
}

impl Transport {
    /// For that URL. `ca`: PEM of what is trusted instead of the system's authorities. The error is a sentence.
    pub fn new(
        url: &Uri,
        connect_timeout: Duration,
        ca: Option<&[u8]>,
        proxy: Option<&Proxy>,
    ) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.enforce_http(false);
        let reach = match proxy {
            None => Reach::straight(connector),
            Some(proxy) => {
                let by_tls = proxy.uri.scheme_str() == Some("https");
                let tls = by_tls.then(|| tls(connector.clone(), None)).transpose()?;
                Reach::by(proxy.clone(), connector, tls, connect_timeout)
            }
        };
        let mut builder: Builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_CONNECTIONS);
        if url.scheme_str() == Some("https") {
            let client = builder.pool_idle_timeout(IDLE_TLS).build(tls(reach, ca)?);
            return Ok(Self { client: AnyClient::Tls(client), credentials: None });
        }
        let client = builder.pool_idle_timeout(IDLE_PLAIN).build(reach);
        let credentials = proxy.and_then(|proxy| proxy.credentials.clone());
        Ok(Self { client: AnyClient::Plain(client), credentials })
    }

    /// Sends a request.
    pub fn send(&self, mut request: Request<Full<Bytes>>) -> ResponseFuture {
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
        }
        match &self.client {
            AnyClient::Plain(client) => client.request(request),
            AnyClient::Tls(client) => client.request(request),
        }
    }
}

/// TLS over what `connector` makes. The error is a sentence.
fn tls<C>(connector: C, ca: Option<&[u8]>) -> Result<HttpsConnector<C>, String> {
    let builder = HttpsConnectorBuilder::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = match ca {
        None => builder
            .with_provider_and_platform_verifier(provider)
            .map_err(|error| format!("the system's certificates cannot be used: {error}"))?,
        Some(pem) => {
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots(pem)?)
                .with_no_client_auth();
            builder.with_tls_config(config)
        }
    };
    Ok(builder.https_only().enable_http1().wrap_connector(connector))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("ca-file: {error}"))?;
        roots.add(certificate).map_err(|error| format!("ca-file: {error}"))?;
    }
    if roots.is_empty() {
        return Err("ca-file: there is no certificate in it".to_owned());
    }
    Ok(roots)
}
