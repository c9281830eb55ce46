//! Connections to one server: HTTP/1.1, kept alive, `TCP_NODELAY`, TLS where the URL says so.
//!
//! HTTP/1.1 only: one answer per connection, so one slow reader holds up no other answer, and dropping an answer closes the
//! connection, by which servers notice that nobody wants it any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Most connections that wait for their next request.
const IDLE_CONNECTIONS: usize = 256;
/// How long they do. Below the five seconds after which uvicorn, which vLLM runs on, closes them, where a new one costs
/// little; longer where it costs a TLS handshake.
const IDLE_PLAIN: Duration = Duration::from_secs(4);
const IDLE_TLS: Duration = Duration::from_secs(55);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What sends requests to one server.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

impl Transport {
    /// For that URL. `ca`: PEM of what is trusted instead of the system's authorities. The error is a sentence.
    pub fn new(url: &Uri, connect_timeout: Duration, ca: Option<&[u8]>) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_keepalive(Some(KEEPALIVE));
        connector.enforce_http(false);
        let mut builder: Builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_CONNECTIONS);
        if url.scheme_str() != Some("https") {
            builder.pool_idle_timeout(IDLE_PLAIN);
            return Ok(Self::Plain(builder.build(connector)));
        }
        builder.pool_idle_timeout(IDLE_TLS);
        let tls = HttpsConnectorBuilder::new();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = match ca {
            None => tls
                .with_provider_and_platform_verifier(provider)
                .map_err(|error| format!("the system's certificates cannot be used: {error}"))?,
            Some(pem) => {
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(roots(pem)?)
                    .with_no_client_auth();
                tls.with_tls_config(config)
            }
        };
        Ok(Self::Tls(builder.build(tls.https_only().enable_http1().wrap_connector(connector))))
    }

    /// Sends a request.
    pub fn send(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Self::Plain(client) => client.request(request),
            Self::Tls(client) => client.request(request),
        }
    }
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
