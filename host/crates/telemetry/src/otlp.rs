//! Spans to an OTLP receiver, and metrics and logs as they came, in requests that receivers take: one call is one attempt at all of
//! them.

mod client;
mod grpc;
mod http;
pub(crate) mod message;
mod raw;
mod signal;
mod tls;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tollgate_domain::otlp;
use tollgate_domain::passed::Signal;
use tollgate_domain::received::Origin;
use tollgate_domain::span::{Resource, Span};

pub(crate) use self::client::{OtlpClient, Refusal};
use self::raw::Raw;
use crate::error::TelemetryError;
use crate::exporter::{Accepted, SendError};
use crate::settings::{OtlpSettings, Protocol};

/// Largest request, a little below the 4 MiB that most receivers take at most.
const LARGEST_REQUEST: usize = 4_000_000;

/// A sender of spans to one receiver.
#[derive(Debug)]
pub(crate) struct Otlp {
    client: OtlpClient,
    /// Of receivers whose address for them follows from that for spans.
    metrics: Option<OtlpClient>,
    logs: Option<OtlpClient>,
    own: Origin,
}

impl Otlp {
    /// Builds the client. The receiver need not be up.
    pub(crate) fn new(
        settings: &OtlpSettings,
        resource: &Resource,
    ) -> Result<Self, TelemetryError> {
        let client = OtlpClient::new(settings)?;
        let own = message::own(resource);
        let of = |signal| beside(settings, signal).map(|settings| OtlpClient::new(&settings));
        let (metrics, logs) = (of(Signal::Metrics).transpose()?, of(Signal::Logs).transpose()?);
        Ok(Self { client, metrics, logs, own })
    }

    /// Whether it knows where to send metrics or logs.
    pub(crate) fn passes(&self, signal: Signal) -> bool {
        match signal {
            Signal::Metrics => self.metrics.is_some(),
            Signal::Logs => self.logs.is_some(),
        }
    }

    /// One attempt at one request of metrics or logs, as it came. A receiver that does not know the
    /// signal will never take it; spans are not to wait for that.
    pub(crate) async fn pass(
        &mut self,
        signal: Signal,
        request: Bytes,
    ) -> Result<Accepted, SendError> {
        let never = |problem: &str| SendError::Never {
            message: format!("cannot pass {} on: {problem}", signal.name()),
        };
        let client = match signal {
            Signal::Metrics => self.metrics.as_mut(),
            Signal::Logs => self.logs.as_mut(),
        };
        let Some(client) = client else {
            return Err(never("the exporter's endpoint does not end in /v1/traces"));
        };
        let sent = match signal {
            Signal::Metrics => {
                client.export(Raw::<ExportMetricsServiceRequest>::new(request)).await
            }
            Signal::Logs => client.export(Raw::<ExportLogsServiceRequest>::new(request)).await,
        };
        let message = |problem: &str, advice: &str| {
            let to = client.endpoint();
            format!("cannot pass {} on to {to}: {problem}; {advice}", signal.name())
        };
        match sent {
            Ok(partial) => {
                let signal::PartialSuccess { rejected, message } = partial.unwrap_or_default();
                let message = (!message.is_empty()).then_some(message);
                Ok(Accepted { rejected_spans: rejected, message })
            }
            Err(
                Refusal::Never { problem }
                | Refusal::Missing { problem }
                | Refusal::TooLarge { problem },
            ) => Err(SendError::Never { message: message(&problem, "it is left out") }),
            Err(Refusal::Setup { problem }) => {
                let message = message(&problem, CHECK_SETTINGS);
                Err(SendError::Later { message, after: None })
            }
            Err(Refusal::Later { problem, after }) => {
                let message = message(&problem, advice(&problem));
                Err(SendError::Later { message, after })
            }
        }
    }

    /// One attempt at all of `spans`. A request that the receiver finds too large is halved, down to
    /// a span that counts as rejected if the receiver takes others.
    pub(crate) async fn send(&mut self, spans: &[Span]) -> Result<Accepted, SendError> {
        let mut outcome = Outcome::default();
        // The next ones are the last.
        let mut left = vec![spans];
        while let Some(next) = left.pop() {
            let (count, request) = otlp::write(&self.own, next, LARGEST_REQUEST);
            let (now, later) = next.split_at(count);
            left.extend((!later.is_empty()).then_some(later));
            match self.client.export(Raw::<ExportTraceServiceRequest>::new(request.into())).await {
                Ok(partial) => outcome.took(partial.unwrap_or_default()),
                Err(Refusal::TooLarge { .. }) if now.len() > 1 => {
                    let (first, second) = now.split_at(now.len() / 2);
                    left.extend([second, first]);
                }
                Err(Refusal::TooLarge { problem }) => outcome.refused(problem),
                Err(Refusal::Never { problem }) => return Err(self.never(&problem)),
                Err(Refusal::Setup { problem } | Refusal::Missing { problem }) => {
                    let message = self.message(&problem, CHECK_SETTINGS);
                    return Err(SendError::Later { message, after: None });
                }
                Err(Refusal::Later { problem, after }) => {
                    let message = self.message(&problem, advice(&problem));
                    return Err(SendError::Later { message, after });
                }
            }
        }
        outcome.result().map_err(|problem| self.never(&problem))
    }

    fn never(&self, problem: &str) -> SendError {
        let message = self.message(problem, CHECK_SETTINGS);
        SendError::Never { message }
    }

    fn message(&self, problem: &str, advice: &str) -> String {
        format!("cannot export to {}: {problem}; {advice}", self.client.endpoint())
    }
}

/// How metrics or logs go to a receiver of spans: by gRPC to the same address, by HTTP to the path
/// beside.
fn beside(settings: &OtlpSettings, signal: Signal) -> Option<OtlpSettings> {
    let endpoint = match settings.protocol {
        Protocol::Grpc => settings.endpoint.clone(),
        Protocol::HttpProtobuf | Protocol::HttpJson => {
            format!("{}/v1/{}", settings.endpoint.strip_suffix("/v1/traces")?, signal.name())
        }
    };
    Some(OtlpSettings { endpoint, ..settings.clone() })
}

/// What to look at when a receiver answered, and not as one that is meant.
const CHECK_SETTINGS: &str = "check endpoint, protocol and headers";

/// What to look at when a receiver could not be asked.
fn advice(problem: &str) -> &'static str {
    if problem.to_ascii_lowercase().contains("certificate") {
        "check the host name in the endpoint, certificate (who is trusted) and client-certificate"
    } else {
        "start the receiver, or correct the endpoint"
    }
}

/// What became of the requests of one attempt.
#[derive(Default)]
struct Outcome {
    any_taken: bool,
    rejected: u64,
    message: Option<String>,
}

impl Outcome {
    fn took(&mut self, partial: signal::PartialSuccess) {
        self.any_taken = true;
        self.rejected = self.rejected.saturating_add(partial.rejected);
        if !partial.message.is_empty() {
            self.message.get_or_insert(partial.message);
        }
    }

    /// The receiver does not take a single span.
    fn refused(&mut self, problem: String) {
        self.rejected = self.rejected.saturating_add(1);
        self.message.get_or_insert(problem);
    }

    /// `Err` is why the receiver took nothing.
    fn result(self) -> Result<Accepted, String> {
        if self.any_taken {
            Ok(Accepted { rejected_spans: self.rejected, message: self.message })
        } else {
            Err(self.message.unwrap_or_default())
        }
    }
}
