//! What differs between traces, metrics and logs on the wire: the gRPC method, and what the answer of
//! a receiver that took only a part of a request looks like.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::Value as Json;

use crate::json;
use crate::otlp::client;

/// A request of one of OTLP's services.
pub(crate) trait Signal: Message + Default + 'static {
    /// What answers it.
    type Response: Message + Default + 'static;

    /// Its gRPC method.
    const METHOD: &'static str;

    /// What its answers call the number of items that were not taken.
    const REJECTED: &'static str;

    /// What it holds, for JSON.
    const JSON: &'static json::Message;

    /// What of the request was not taken, if the answer says anything.
    fn partial(response: Self::Response) -> Option<PartialSuccess>;

    /// The request in protobuf.
    fn bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// A receiver took a request, but not all of it, or has something to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartialSuccess {
    /// How many spans or data points it refused for good.
    pub(crate) rejected: u64,
    /// Why, or a warning.
    pub(crate) message: String,
}

impl PartialSuccess {
    fn new(rejected: i64, message: &str) -> Self {
        let message = client::shown(message);
        Self { rejected: u64::try_from(rejected).unwrap_or(0), message }
    }

    /// Reads the answer in JSON; nothing if it says nothing. 64-bit numbers are text in
    /// OTLP/JSON, but not every receiver knows.
    pub(crate) fn from_json<S: Signal>(body: &[u8]) -> Option<Self> {
        let answer: Json = serde_json::from_slice(body).ok()?;
        let partial = answer.get("partialSuccess")?;
        let rejected = partial.get(S::REJECTED);
        let rejected = rejected.and_then(|rejected| match rejected {
            Json::String(text) => text.parse().ok(),
            other => other.as_i64(),
        });
        let message = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default();
        Some(Self::new(rejected.unwrap_or(0), message))
    }
}

impl Signal for ExportTraceServiceRequest {
    type Response = ExportTraceServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    const REJECTED: &'static str = "rejectedSpans";
    const JSON: &'static json::Message = &json::TRACES;

    fn partial(response: Self::Response) -> Option<PartialSuccess> {
        let partial = response.partial_success?;
        Some(PartialSuccess::new(partial.rejected_spans, &partial.error_message))
    }
}

impl Signal for ExportLogsServiceRequest {
    type Response = ExportLogsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    const REJECTED: &'static str = "rejectedLogRecords";
    const JSON: &'static json::Message = &json::LOGS;

    fn partial(response: Self::Response) -> Option<PartialSuccess> {
        let partial = response.partial_success?;
        Some(PartialSuccess::new(partial.rejected_log_records, &partial.error_message))
    }
}

impl Signal for ExportMetricsServiceRequest {
    type Response = ExportMetricsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const REJECTED: &'static str = "rejectedDataPoints";
    const JSON: &'static json::Message = &json::METRICS;

    fn partial(response: Self::Response) -> Option<PartialSuccess> {
        let partial = response.partial_success?;
        Some(PartialSuccess::new(partial.rejected_data_points, &partial.error_message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_json_are_read_as_receivers_write_them() {
        let partial = |rejected, message: &str| Some(PartialSuccess::new(rejected, message));
        let cases = [
            ("", None),
            ("{}", None),
            ("[1]", None),
            ("<html>", None),
            (r#"{"partialSuccess":{}}"#, partial(0, "")),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#, partial(3, "no")),
            (r#"{"partialSuccess":{"rejectedSpans":3}}"#, partial(3, "")),
            (r#"{"partialSuccess":{"rejectedSpans":"-3","x":1}}"#, partial(0, "")),
            (r#"{"partialSuccess":{"rejectedSpans":[]}}"#, partial(0, "")),
            (r#"{"partialSuccess":{"errorMessage":"a\u001b[2Jb\n"}}"#, partial(0, "a [2Jb")),
        ];
        for (body, wanted) in cases {
            let read = PartialSuccess::from_json::<ExportTraceServiceRequest>(body.as_bytes());
            assert_eq!(read, wanted, "{body}");
        }
        let points = br#"{"partialSuccess":{"rejectedDataPoints":"7"}}"#;
        let read = PartialSuccess::from_json::<ExportMetricsServiceRequest>(points);
        assert_eq!(read, partial(7, ""));
    }
}
