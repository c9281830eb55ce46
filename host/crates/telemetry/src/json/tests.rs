//! What one way makes the other way reads, and what cannot be read is said and never left out. The whole table is
//! held against protobuf's own JSON in `tests/test_otlp_passed.py`.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;

use super::*;

/// A metric of some kind, in a request.
fn with(metric: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"ok","gauge":{{"dataPoints":[{{"asInt":"1"}}]}}}},{{"name":"h",{metric}}}]}}]}}]}}"#
    )
}

/// What prost reads of it.
fn metrics(json: &str) -> ExportMetricsServiceRequest {
    let bytes = read(json.as_bytes(), &METRICS).unwrap();
    let request = ExportMetricsServiceRequest::decode(&*bytes).unwrap();
    // And back, to the letter.
    let again = read(&write(&bytes, &METRICS).unwrap(), &METRICS).unwrap();
    let wanted = format!("{request:?}");
    assert_eq!(format!("{:?}", ExportMetricsServiceRequest::decode(&*again).unwrap()), wanted);
    // Prost's own bytes come to the same.
    let again = read(&write(&request.encode_to_vec(), &METRICS).unwrap(), &METRICS).unwrap();
    assert_eq!(format!("{:?}", ExportMetricsServiceRequest::decode(&*again).unwrap()), wanted);
    request
}

fn data(metric: &str) -> metric::Data {
    let mut request = metrics(&with(metric));
    let mut metrics = request.resource_metrics.swap_remove(0).scope_metrics.swap_remove(0).metrics;
    assert_eq!(metrics.len(), 2);
    metrics.swap_remove(1).data.unwrap()
}

#[test]
fn numbers_that_json_lacks_are_numbers() {
    let found = data(
        r#""histogram":{"dataPoints":[{"timeUnixNano":5,"count":"3","sum":"NaN","min":0,"bucketCounts":["1",2],"explicitBounds":["Infinity"]}]}"#,
    );
    let metric::Data::Histogram(histogram) = found else { panic!("{found:?}") };
    let point = &histogram.data_points[0];
    assert!(point.sum.unwrap().is_nan());
    assert_eq!((point.min, point.max), (Some(0.0), None), "zero is told");
    assert_eq!((point.count, &*point.bucket_counts), (3, &[1, 2][..]));
    assert_eq!(point.explicit_bounds, [f64::INFINITY]);
    for (value, wanted) in [
        (r#""asDouble":"NaN""#, f64::NAN),
        (r#""asDouble":"-Infinity""#, f64::NEG_INFINITY),
        (r#""asDouble":"1.5""#, 1.5),
        (r#""asDouble":2"#, 2.0),
        (r#""asDouble":0"#, 0.0),
        (r#""asInt":"-7""#, -7.0),
        (r#""asInt":7.0"#, 7.0),
        (r#""attributes":null,"asInt":0,"asDouble":null"#, 0.0),
    ] {
        let found = data(&format!(r#""gauge":{{"dataPoints":[{{{value}}}]}}"#));
        let metric::Data::Gauge(gauge) = found else { panic!("{found:?}") };
        let found = match gauge.data_points[0].value.unwrap() {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        assert!(found.total_cmp(&wanted).is_eq(), "{value}: {found}");
    }
}

#[test]
fn all_sorts_of_numbers_go_both_ways() {
    let found = data(
        r#""exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[{"count":3,"sum":4.5,"scale":-2,"zeroCount":"1",
            "zeroThreshold":0.5,"flags":1,"positive":{"offset":-3,"bucketCounts":["1","18446744073709551615"]},"negative":{}}]}"#,
    );
    let metric::Data::ExponentialHistogram(histogram) = found else { panic!("{found:?}") };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!((histogram.aggregation_temporality, point.scale, point.flags), (2, -2, 1));
    assert_eq!((positive.offset, &*positive.bucket_counts), (-3, &[1, u64::MAX][..]));
    assert_eq!(point.negative, Some(Default::default()), "what is empty is there");
    let json = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9,"body":{"bytesValue":"_-8"},"flags":4294967295,
        "traceId":"5B8EFFF798038103D269B633813FC60C","attributes":[{"key":"a","value":{"doubleValue":"NaN"}},
        {"key":"n","value":null},{"key":"e","value":{}},{"key":"t","value":{"stringValue":""}},{"key":"i","value":{"intValue":-9223372036854775808}}]}]}]}]}"#;
    let bytes = read(json.as_bytes(), &LOGS).unwrap();
    let request = ExportLogsServiceRequest::decode(&*bytes).unwrap();
    let written = String::from_utf8(write(&request.encode_to_vec(), &LOGS).unwrap()).unwrap();
    assert_eq!(
        written,
        concat!(
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9,"body":{"bytesValue":"/+8="},"attributes":["#,
            r#"{"key":"a","value":{"doubleValue":"NaN"}},{"key":"n"},{"key":"e","value":{}},{"key":"t","value":{"stringValue":""}},"#,
            r#"{"key":"i","value":{"intValue":"-9223372036854775808"}}],"flags":4294967295,"#,
            r#""traceId":"5b8efff798038103d269b633813fc60c"}]}]}]}"#
        )
    );
}

#[test]
fn what_cannot_be_read_is_said_and_where() {
    let metric = "resourceMetrics[0].scopeMetrics[0].metrics[1]";
    for (metrics, place) in [
        (
            r#""sum":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA"}"#,
            ".sum.aggregationTemporality",
        ),
        (r#""gauge":{"dataPoints":[{},{"asInt":"x"}]}"#, ".gauge.dataPoints[1].asInt"),
        (r#""gauge":{"dataPoints":[{"asInt":{"no":1}}]}"#, ".gauge.dataPoints[0].asInt"),
        (r#""gauge":{"dataPoints":[{"asInt":1.5}]}"#, ".gauge.dataPoints[0].asInt"),
        (
            r#""gauge":{"dataPoints":[{"asInt":"9223372036854775808"}]}"#,
            ".gauge.dataPoints[0].asInt",
        ),
        (r#""gauge":{"dataPoints":[{"asInt":1,"asDouble":1}]}"#, ".gauge.dataPoints[0].asDouble"),
        (r#""gauge":{"dataPoints":[{"flags":-1}]}"#, ".gauge.dataPoints[0].flags"),
        (r#""gauge":{"dataPoints":[{"asDouble":"1e999"}]}"#, ".gauge.dataPoints[0].asDouble"),
        (r#""gauge":{"dataPoints":[{"asDouble":true}]}"#, ".gauge.dataPoints[0].asDouble"),
        (r#""gauge":{"dataPoints":{}}"#, ".gauge.dataPoints"),
        (r#""gauge":{"dataPoints":[null]}"#, ".gauge.dataPoints[0]"),
        (r#""gauge":[]"#, ".gauge"),
        (r#""gauge":{},"sum":{}"#, ".sum"),
        (r#""unit":5"#, ".unit"),
        (r#""unit":"1","unit":"2""#, ".unit"),
        (
            r#""histogram":{"dataPoints":[{"bucketCounts":[1,null]}]}"#,
            ".histogram.dataPoints[0].bucketCounts[1]",
        ),
        (
            r#""gauge":{"dataPoints":[{"exemplars":[{"spanId":"5b8"}]}]}"#,
            ".gauge.dataPoints[0].exemplars[0].spanId",
        ),
        (
            r#""metadata":[{"key":"k","value":{"bytesValue":"A*8="}}]"#,
            ".metadata[0].value.bytesValue",
        ),
    ] {
        let problem = read(with(metrics).as_bytes(), &METRICS).unwrap_err();
        assert!(problem.starts_with(&format!("{metric}{place}: ")), "{metrics}: {problem}");
    }
    for json in ["", "{", "[]", "null", "5", "{} x", r#"{"resourceMetrics":[[]]}"#] {
        assert!(read(json.as_bytes(), &METRICS).is_err(), "{json}");
    }
    let (open, close) = (r#"{"arrayValue":{"values":["#, "]}}");
    let deep = format!("{}{{}}{}", open.repeat(1000), close.repeat(1000));
    let deep = with(&format!(r#""metadata":[{{"key":"k","value":{deep}}}]"#));
    assert!(read(deep.as_bytes(), &METRICS).is_err());
}

#[test]
fn what_no_version_knows_is_passed_over() {
    let bytes =
        read(br#"{"x":[{"y":null}],"resourceMetrics":null,"resource_metrics":5}"#, &METRICS);
    assert_eq!(bytes, Ok(Vec::new()));
    // A field of another number, a kind that is not the last of two, and a list in two parts.
    let gauge = [0x2a, 0x00].as_slice();
    let sum = [0x3a, 0x02, 0x18, 0x01].as_slice();
    let metric = [gauge, sum, &[0xfa, 0x06, 0x01, 0x07]].concat();
    let within = |inner: &[u8]| {
        let mut message = vec![0x12];
        prost::encoding::encode_varint(inner.len() as u64, &mut message);
        message.extend_from_slice(inner);
        message
    };
    let mut request = within(&within(&within(&metric)));
    request[0] = 0x0a;
    let json = String::from_utf8(write(&request, &METRICS).unwrap()).unwrap();
    assert_eq!(
        json,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"isMonotonic":true}}]}]}]}"#
    );
    for wrong in [&[0x0a, 0x05, 0x00][..], &[0x08, 0x01], &[0x0a, 0x03, 0x1a, 0x01, 0xff]] {
        assert!(write(wrong, &METRICS).is_err(), "{wrong:?}");
    }
}
