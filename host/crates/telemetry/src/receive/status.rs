//! Answers to senders: what was taken, and why something was not.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use super::Encoding;

/// The codes of gRPC that a refusal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's")]
pub enum GrpcCode {
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The answer to a request that was taken, but for `rejected` spans of it; `message` says why.
#[must_use]
pub fn accepted(encoding: Encoding, rejected: u64, message: Option<&str>) -> Vec<u8> {
    let message = message.unwrap_or_default();
    let partial = (rejected > 0 || !message.is_empty()).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: message.to_owned(),
    });
    match (encoding, partial) {
        (Encoding::Protobuf, partial_success) => {
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        }
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(partial)) => serde_json::json!({"partialSuccess": {
            "rejectedSpans": partial.rejected_spans.to_string(),
            "errorMessage": partial.error_message,
        }})
        .to_string()
        .into_bytes(),
    }
}

/// The `google.rpc.Status` of a refusal, with a `RetryInfo` where it is worth another try.
#[must_use]
pub fn refused(
    encoding: Encoding,
    code: GrpcCode,
    message: &str,
    retry: Option<Duration>,
) -> Vec<u8> {
    const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
    if encoding == Encoding::Json {
        let delay = |retry: Duration| format!("{}s", retry.as_secs_f64());
        let details =
            retry.map(|retry| serde_json::json!({"@type": RETRY_INFO, "retryDelay": delay(retry)}));
        let details: Vec<_> = details.into_iter().collect();
        let status =
            serde_json::json!({"code": code as i32, "message": message, "details": details});
        return status.to_string().into_bytes();
    }
    let code = code as i32;
    let Some(retry) = retry else {
        let status = pb::Status { code, message: message.to_owned(), details: Vec::new() };
        return status.encode_to_vec();
    };
    let details = ErrorDetails::with_retry_info(Some(retry));
    Status::with_error_details(Code::from_i32(code), message, details).details().to_vec()
}
