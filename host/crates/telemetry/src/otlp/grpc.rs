//! OTLP over gRPC.

use std::error::Error;

use http::uri::PathAndQuery;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use crate::error::TelemetryError;
use crate::otlp::client::{self, LARGEST_ANSWER, Refusal, USER_AGENT};
use crate::otlp::signal::{PartialSuccess, Signal};
use crate::otlp::tls;
use crate::settings::{Compression, OtlpSettings};

/// A channel to one receiver, connected when it is first used and again when it broke.
#[derive(Debug)]
pub(crate) struct Grpc {
    endpoint: Endpoint,
    channel: Channel,
    metadata: MetadataMap,
    gzip: bool,
}

impl Grpc {
    /// Builds the channel.
    pub(crate) fn new(settings: &OtlpSettings) -> Result<Self, TelemetryError> {
        let failed = |error: tonic::transport::Error| client::no_client(settings, error);
        let mut endpoint = Endpoint::from_shared(settings.endpoint.clone())
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(failed)?
            .connect_timeout(settings.timeout);
        if client::is_tls(settings) {
            endpoint = endpoint.tls_config(client_tls(settings)?).map_err(failed)?;
        }
        let metadata = MetadataMap::from_headers(client::headers(settings)?);
        let gzip = match settings.compression {
            None => false,
            Some(Compression::Gzip) => true,
            Some(Compression::Zstd) => {
                return Err(TelemetryError::Setting {
                    name: "OTLP compression".to_owned(),
                    value: "zstd".to_owned(),
                    problem: "over gRPC it is gzip or none".to_owned(),
                });
            }
        };
        let channel = endpoint.connect_lazy();
        Ok(Self { endpoint, channel, metadata, gzip })
    }

    /// Leaves the connection alone: the next request makes a new one.
    pub(crate) fn reconnect(&mut self) {
        self.channel = self.endpoint.connect_lazy();
    }

    /// One attempt at one request.
    pub(crate) async fn export<S: Signal>(
        &self,
        request: S,
    ) -> Result<Option<PartialSuccess>, Refusal> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(LARGEST_ANSWER);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let ready = client.ready().await;
        ready.map_err(|error| Refusal::later(client::chain(&error)))?;
        let mut request = Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        let method = PathAndQuery::from_static(S::METHOD);
        let codec = ProstCodec::<S, S::Response>::default();
        match client.unary(request, method, codec).await {
            Ok(answer) => Ok(S::partial(answer.into_inner())),
            Err(status) => Err(refusal(&status)),
        }
    }
}

fn client_tls(settings: &OtlpSettings) -> Result<ClientTlsConfig, TelemetryError> {
    let config = match tls::authorities(settings)? {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    Ok(match tls::own(settings)? {
        Some(own) => config.identity(Identity::from_pem(own.certificate, own.key)),
        None => config,
    })
}

/// What OTLP says of each code; where that would lose spans for a wrong setting, they wait. A status that did not come from the receiver has a cause: it
/// could not be asked.
fn refusal(status: &Status) -> Refusal {
    if let Some(cause) = status.source() {
        return Refusal::later(client::chain(cause));
    }
    let problem = format!("gRPC code {:?}: {}", status.code(), client::shown(status.message()));
    let retry = status.get_details_retry_info();
    let after = retry.as_ref().and_then(|retry| retry.retry_delay);
    match status.code() {
        Code::OutOfRange if status.message().contains("too large") => Refusal::TooLarge { problem },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Refusal::after(problem, after),
        Code::ResourceExhausted if retry.is_some() => Refusal::after(problem, after),
        // Without a word on when to retry it is no throttling; receivers say so of a request
        // that is larger than they allow.
        Code::ResourceExhausted => Refusal::TooLarge { problem },
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound => {
            Refusal::Setup { problem }
        }
        Code::Unimplemented => Refusal::Missing { problem },
        _ => Refusal::Never { problem },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn name(status: &Status) -> &'static str {
        match refusal(status) {
            Refusal::Later { after: None, .. } => "later",
            Refusal::Later { after: Some(_), .. } => "after",
            Refusal::Setup { .. } => "setup",
            Refusal::Missing { .. } => "missing",
            Refusal::TooLarge { .. } => "too large",
            Refusal::Never { .. } => "never",
        }
    }

    #[test]
    fn each_code_is_read_as_otlp_says() {
        let cases = [
            (Code::Cancelled, "later", "after"),
            (Code::Unknown, "never", "never"),
            (Code::InvalidArgument, "never", "never"),
            (Code::DeadlineExceeded, "later", "after"),
            (Code::NotFound, "setup", "setup"),
            (Code::AlreadyExists, "never", "never"),
            (Code::PermissionDenied, "setup", "setup"),
            (Code::ResourceExhausted, "too large", "after"),
            (Code::FailedPrecondition, "never", "never"),
            (Code::Aborted, "later", "after"),
            (Code::OutOfRange, "later", "after"),
            (Code::Unimplemented, "missing", "missing"),
            (Code::Internal, "never", "never"),
            (Code::Unavailable, "later", "after"),
            (Code::DataLoss, "later", "after"),
            (Code::Unauthenticated, "setup", "setup"),
        ];
        for (code, bare, with_retry_info) in cases {
            assert_eq!(name(&Status::new(code, "x")), bare, "{code:?}");
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
            let status = Status::with_error_details(code, "x", details);
            assert_eq!(name(&status), with_retry_info, "{code:?} with RetryInfo");
        }
        let large = Status::out_of_range("decoded message length too large: found 5, limit 4");
        assert_eq!(name(&large), "too large");
    }

    #[test]
    fn a_pause_is_taken_over_but_not_for_ever() {
        for (asked, taken) in [(7, 7), (1_000_000_000, 3600)] {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(asked)));
            let status = Status::with_error_details(Code::Unavailable, "x", details);
            let Refusal::Later { after, .. } = refusal(&status) else { unreachable!("retryable") };
            assert_eq!(after, Some(Duration::from_secs(taken)));
        }
    }
}
