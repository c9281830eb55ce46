//! Whether servers can be reached with their keys, asked once and by hand: for an operator before a start, not for
//! routing, which has its checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::error::chain;
use crate::proxy::Proxy;
use crate::upstreams::Upstreams;

/// Most backends that are asked at the same time.
const AT_A_TIME: usize = 16;

/// What one backend said when it was asked for its models.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its name.
    pub backend: Arc<str>,
    /// What was asked.
    pub url: String,
    /// The proxy that it was asked by.
    pub proxy: Option<String>,
    /// What came of it; the error is a sentence.
    pub result: Result<Heard, String>,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its status.
    pub status: u16,
    /// Its `Date`, as it came.
    pub date: Option<String>,
}

impl Upstreams {
    /// Asks every backend for its models, each for at most `patience`; in the order of the file.
    pub async fn probe(&self, patience: Duration) -> Vec<Probe> {
        let snapshot = self.snapshot();
        let mut probes = Vec::with_capacity(snapshot.backends.len());
        let mut asked = JoinSet::new();
        for (at, backend) in snapshot.backends.iter().cloned().enumerate() {
            if asked.len() >= AT_A_TIME {
                probes.extend(asked.join_next().await.and_then(Result::ok));
            }
            asked.spawn(async move { (at, probe(&backend, patience).await) });
        }
        while let Some(done) = asked.join_next().await {
            probes.extend(done.ok());
        }
        probes.sort_by_key(|(at, _)| *at);
        probes.into_iter().map(|(_, probe)| probe).collect()
    }
}

async fn probe(backend: &Backend, patience: Duration) -> Probe {
    let result = match tokio::time::timeout(patience, ask(backend)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {patience:?}")),
    };
    let url = backend.below("/models").map(|url| url.to_string()).unwrap_or_default();
    let proxy = backend.settings.proxy.as_ref().map(Proxy::place);
    Probe { backend: Arc::clone(&backend.name), url, proxy, result }
}

async fn ask(backend: &Backend) -> Result<Heard, String> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = backend.below("/models").ok_or("the path cannot stand in a URL")?;
    if let Some(credentials) = &backend.credentials {
        request.headers_mut().insert(backend.credentials_header(), credentials.clone());
    }
    // Anthropic's servers ask for it; others do not look at it.
    let version = HeaderName::from_static("anthropic-version");
    request.headers_mut().insert(version, HeaderValue::from_static("2023-06-01"));
    let response = backend.transport.send(request).await.map_err(|error| chain(&error))?;
    let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
    Ok(Heard { status: response.status().as_u16(), date: date.map(str::to_owned) })
}
