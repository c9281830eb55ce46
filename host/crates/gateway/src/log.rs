//! What joins the lines of the log to requests: a span around everything that is done for one, so
//! that each line within has its trace and its id, under the names that OpenTelemetry asks for in
//! logs.

use tollgate_domain::{RequestId, TraceId};
use tracing::Span;

/// A request's span, with the level of errors: no filter that lets a line pass takes away whose it
/// is. Where nothing is logged it costs nothing.
pub(crate) fn span(trace_id: TraceId, request_id: &RequestId) -> Span {
    tracing::error_span!("request", %trace_id, %request_id)
}
