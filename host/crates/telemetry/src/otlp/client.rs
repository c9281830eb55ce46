//! A client of one OTLP receiver, for any signal: one call is one attempt at one request.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::TelemetryError;
use crate::otlp::grpc::Grpc;
use crate::otlp::http::Http;
use crate::otlp::signal::{PartialSuccess, Signal};
use crate::settings::{OtlpSettings, Protocol};

/// Longest time that a receiver may ask to be left alone: a slip in its configuration should not
/// silence an exporter for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Who we say we are.
pub(crate) const USER_AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Most bytes of an answer that are read.
pub(crate) const LARGEST_ANSWER: usize = 4 << 20;

/// Most characters of what a receiver says that are repeated in the log.
const SHOWN: usize = 300;

/// A request was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The same request may be taken later.
    Later {
        /// What happened.
        problem: String,
        /// How long the receiver asks to be left alone.
        after: Option<Duration>,
    },
    /// It is not the request's fault: a key that has expired. It may be taken once an operator has
    /// helped.
    Setup {
        /// What happened.
        problem: String,
    },
    /// There is nothing that takes such requests: an endpoint that is another's, or a receiver that
    /// does not know the signal.
    Missing {
        /// What happened.
        problem: String,
    },
    /// It will not be taken, but halves of it might.
    TooLarge {
        /// What happened.
        problem: String,
    },
    /// It will never be taken.
    Never {
        /// What happened.
        problem: String,
    },
}

impl Refusal {
    /// May be taken later, whenever.
    pub(crate) fn later(problem: String) -> Self {
        Self::Later { problem, after: None }
    }

    /// May be taken after `pause`, if there is one.
    pub(crate) fn after(problem: String, pause: Option<Duration>) -> Self {
        Self::Later { problem, after: pause.map(|pause| pause.min(LONGEST_PAUSE)) }
    }
}

/// A client, which need not have a receiver that is up.
#[derive(Debug)]
pub(crate) struct OtlpClient {
    transport: Transport,
    endpoint: String,
    timeout: Duration,
}

#[derive(Debug)]
enum Transport {
    Grpc(Box<Grpc>),
    Http(Http),
}

impl OtlpClient {
    /// Builds the client. Needs a Tokio runtime around it.
    pub(crate) fn new(settings: &OtlpSettings) -> Result<Self, TelemetryError> {
        // The one TLS provider of this program; an error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = match settings.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(Grpc::new(settings)?)),
            Protocol::HttpProtobuf | Protocol::HttpJson => Transport::Http(Http::new(settings)?),
        };
        Ok(Self { transport, endpoint: settings.endpoint.clone(), timeout: settings.timeout })
    }

    /// Where it sends to, for messages.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// One attempt at one request; what the receiver did not take of it, if it says so.
    pub(crate) async fn export<S: Signal>(
        &mut self,
        request: S,
    ) -> Result<Option<PartialSuccess>, Refusal> {
        let timeout = self.timeout;
        let answer = match &self.transport {
            Transport::Grpc(grpc) => tokio::time::timeout(timeout, grpc.export(request)).await,
            Transport::Http(http) => tokio::time::timeout(timeout, http.export(request)).await,
        };
        if answer.is_err()
            && let Transport::Grpc(grpc) = &mut self.transport
        {
            // The connection may be one that nobody answers on any more.
            grpc.reconnect();
        }
        answer.unwrap_or_else(|_| Err(Refusal::later(format!("no answer within {timeout:?}"))))
    }
}

/// The headers that `settings` name, as secrets.
pub(crate) fn headers(settings: &OtlpSettings) -> Result<HeaderMap, TelemetryError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (header, mut secret) = header.ok_or_else(|| TelemetryError::Setting {
            name: "OTLP header".to_owned(),
            value: name.clone(),
            problem: "the name or the value is not allowed in a header".to_owned(),
        })?;
        secret.set_sensitive(true);
        headers.append(header, secret);
    }
    Ok(headers)
}

/// Whether the endpoint is spoken to under TLS.
pub(crate) fn is_tls(settings: &OtlpSettings) -> bool {
    settings.endpoint.starts_with("https://")
}

/// What a receiver says, as a line of the log: its start, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let line = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c });
    line.collect::<String>().trim().to_owned()
}

/// The client could not be built.
pub(crate) fn no_client(
    settings: &OtlpSettings,
    error: impl std::error::Error + Send + Sync + 'static,
) -> TelemetryError {
    TelemetryError::Client {
        endpoint: settings.endpoint.clone(),
        problem: chain(&error),
        source: Box::new(error),
    }
}

/// An error and what caused it, each cause once: transports hide the telling part at the end.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
