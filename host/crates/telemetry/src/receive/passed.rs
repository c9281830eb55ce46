//! Metrics and logs from the receiver's side: whether they are what they say, and protobuf of JSON.

use tollgate_domain::passed::Signal;

use super::{Encoding, Malformed, limits};
use crate::json;

/// A request of metrics or logs, not compressed any more, in protobuf: as it came, if that is what it
/// came as.
///
/// # Errors
/// If it is malformed or has too much in it.
pub fn passed(bytes: &[u8], encoding: Encoding, signal: Signal) -> Result<Vec<u8>, Malformed> {
    match encoding {
        Encoding::Protobuf => Ok(bytes.to_vec()),
        Encoding::Json => {
            limits::check_json(bytes)?;
            let message = match signal {
                Signal::Metrics => &json::METRICS,
                Signal::Logs => &json::LOGS,
            };
            json::read(bytes, message).map_err(Malformed::unreadable)
        }
    }
    .and_then(|request| limits::check_passed(&request, signal).map(|()| request))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use prost::Message;

    use super::*;

    #[test]
    fn json_becomes_protobuf_and_protobuf_stays_as_it_is() {
        let json = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[
            {"timeUnixNano":"5","severityNumber":9,"body":{"stringValue":"hi"},
             "traceId":"5b8efff798038103d269b633813fc60c"}]}]}]}"#;
        let request = passed(json, Encoding::Json, Signal::Logs).unwrap();
        let read = ExportLogsServiceRequest::decode(&*request).unwrap();
        let record = &read.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.time_unix_nano, record.trace_id.len()), (5, 16));
        // A field that this version does not know.
        let newer = [&request[..], &[0xfa, 0x06, 1, 7]].concat();
        assert_eq!(passed(&newer, Encoding::Protobuf, Signal::Logs).unwrap(), newer);
        for (bytes, encoding) in [
            (&b"{"[..], Encoding::Json),
            (b"[1]", Encoding::Json),
            (b"\xff", Encoding::Protobuf),
            (b"\x0a\x05a", Encoding::Protobuf),
        ] {
            let refused = passed(bytes, encoding, Signal::Metrics);
            assert!(matches!(refused, Err(Malformed::Unreadable(_))), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_large_in_memory_is_counted() {
        fn within(field: u8, inner: &[u8]) -> Vec<u8> {
            let mut message = vec![field << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut message);
            message.extend_from_slice(inner);
            message
        }
        // References to entities, and keys of one.
        let entities = within(1, &within(1, &b"\x1a\x00".repeat(600_000)));
        let keys = within(1, &within(1, &within(3, &b"\x1a\x00".repeat(600_000))));
        // A gauge of points of two bytes, and a record of attributes of two bytes.
        let points = within(1, &within(2, &within(2, &within(5, &b"\x0a\x00".repeat(600_000)))));
        let attributes = within(1, &within(2, &within(2, &b"\x32\x00".repeat(600_000))));
        for (request, signal) in [
            (points, Signal::Metrics),
            (attributes, Signal::Logs),
            (entities, Signal::Metrics),
            (keys, Signal::Logs),
        ] {
            let refused = passed(&request, Encoding::Protobuf, signal);
            assert!(matches!(refused, Err(Malformed::TooMany { .. })), "{refused:?}");
        }
    }
}
