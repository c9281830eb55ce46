//! What is sent comes out whole, in either encoding, and nothing that is sent can do harm.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message;
use tollgate_domain::span::{SpanKind, SpanStatus, Value};

use super::*;
use crate::otlp::message;

const WHOLE: &str = r#"{"resourceSpans":[{
  "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],"droppedAttributesCount":1},
  "schemaUrl":"r",
  "scopeSpans":[{"scope":{"name":"lib","version":"2","attributes":[{"key":"a","value":{"boolValue":true}}]},"schemaUrl":"s",
    "spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173",
      "traceState":"k=v","flags":769,"name":"I'm a server span","kind":2,"unknown":{"x":[1]},
      "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
      "attributes":[
        {"key":"int","value":{"intValue":"-3"}},{"key":"int2","value":{"intValue":4}},
        {"key":"double","value":{"doubleValue":1}},{"key":"nan","value":{"doubleValue":"NaN"}},
        {"key":"bytes","value":{"bytesValue":"AP8="}},{"key":"none","value":{}},{"key":"null","value":null},
        {"key":"list","value":{"arrayValue":{"values":[{"stringValue":"x"},{"intValue":"1"}]}}},
        {"key":"map","value":{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v"}}]}}}],
      "droppedAttributesCount":2,"droppedEventsCount":3,"droppedLinksCount":4,
      "events":[{"timeUnixNano":"1544712660500000000","name":"e","attributes":[],"droppedAttributesCount":5}],
      "links":[{"traceId":"5b8efff798038103d269b633813fc60d","spanId":"eee19b7ec3c1b175","flags":1,"attributes":null}],
      "status":{"code":2,"message":"no"}}]}]}]}"#;

fn only(incoming: &Incoming) -> &tollgate_domain::Span {
    assert_eq!((incoming.groups.len(), incoming.rejected), (1, 0));
    &incoming.groups[0].spans[0]
}

#[test]
fn nothing_of_a_span_is_lost() {
    let incoming = decode(WHOLE.as_bytes(), Encoding::Json).unwrap();
    let span = only(&incoming);
    assert_eq!(span.kind, SpanKind::Server);
    assert_eq!(span.status, SpanStatus::Error("no".to_owned()));
    assert!(span.context.sampled && span.parent_is_remote);
    let attribute = |key| span.attributes.get(key).unwrap();
    assert_eq!(*attribute("int"), Value::Int(-3));
    assert_eq!(*attribute("int2"), Value::Int(4));
    assert_eq!(*attribute("double"), Value::Double(1.0));
    assert_eq!(*attribute("bytes"), Value::Bytes(vec![0, 255]));
    assert_eq!((attribute("none"), attribute("null")), (&Value::Empty, &Value::Empty));
    assert!(matches!(attribute("nan"), Value::Double(x) if x.is_nan()));
    // Out as it came in, and in again by the other encoding.
    let sent = message::request(&Default::default(), std::slice::from_ref(span));
    let again = decode(&sent.encode_to_vec(), Encoding::Protobuf).unwrap();
    assert_eq!(format!("{:?}", again.groups), format!("{:?}", incoming.groups));
    // With whatever the official messages hold, which the two of ours above need not.
    let request = json::read(WHOLE.as_bytes(), &json::TRACES).unwrap();
    assert_eq!(official(&written(&incoming)), official(&request));
    // And from the record.
    let read = otlp::read(&otlp::write_groups(&incoming.groups), &otlp::Most::ANY).unwrap();
    assert_eq!(format!("{read:?}"), format!("{incoming:?}"));
}

/// What prost reads of a request, as far as it can be compared: no number is equal to what is none.
fn official(bytes: &[u8]) -> String {
    format!("{:#?}", ExportTraceServiceRequest::decode(bytes).unwrap())
}

fn written(incoming: &Incoming) -> Vec<u8> {
    otlp::write_groups(&incoming.groups)
}

#[test]
fn what_is_not_understood_leaves_as_it_came() {
    // In the JSON of a record no value is an empty one.
    let whole = WHOLE.replace(r#"{"key":"null","value":null},"#, "");
    assert_ne!(whole, WHOLE);
    let with = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        whole.replace(from, to)
    };
    let status = r#""status":{"code":2,"message":"no"}"#;
    let times = r#""endTimeUnixNano":1544712661000000000"#;
    for body in [
        whole.clone(),
        with(status, r#""status":{"code":0,"message":"said though unset"}"#),
        with(status, r#""status":{"code":1,"message":"said though good"}"#),
        with(status, r#""status":{"code":7}"#),
        with(status, r#""status":{}"#),
        with(status, r#""status":null"#),
        with(times, r#""endTimeUnixNano":5"#),
        with(times, r#""endTimeUnixNano":0"#),
        with(r#""kind":2"#, r#""kind":9"#),
        with(r#""kind":2"#, r#""kind":-1"#),
        with(r#""spanId":"eee19b7ec3c1b175""#, r#""spanId":"""#),
        with(r#""spanId":"eee19b7ec3c1b175""#, r#""spanId":"ab","traceState":"x=y""#),
        with(
            r#""droppedAttributesCount":1}"#,
            r#""entityRefs":[{"type":"service","idKeys":["service.name"]}]}"#,
        ),
    ] {
        let request = json::read(body.as_bytes(), &json::TRACES).unwrap();
        let incoming = decode(body.as_bytes(), Encoding::Json).unwrap();
        let span = only(&incoming);
        assert!(span.interval.end >= span.interval.start);
        assert_eq!(official(&written(&incoming)), official(&request), "{body}");
        // Also from the record of a call, and with an attribute more.
        let origin = serde_json::to_string(&*incoming.groups[0].origin).unwrap();
        let mut stored: tollgate_domain::Span =
            serde_json::from_str(&serde_json::to_string(span).unwrap()).unwrap();
        let received = stored.received.as_mut().unwrap();
        received.origin = Arc::new(serde_json::from_str(&origin).unwrap());
        let (_, leaving) = otlp::write(&Default::default(), &[stored.clone()], usize::MAX);
        assert_eq!(official(&leaving), official(&request), "{body}");
        stored.attributes.set("more", 1_i64);
        let (_, leaving) = otlp::write(&Default::default(), &[stored], usize::MAX);
        assert_ne!(official(&leaving), official(&request));
    }
}

#[test]
fn fields_that_no_version_has_leave_as_they_came() {
    // In the span, its status, the resource and the scope.
    let unknown = |text: &str| {
        let mut field = vec![0xfa, 0x3f];
        field.push(u8::try_from(text.len()).unwrap());
        field.extend_from_slice(text.as_bytes());
        field
    };
    let ids = [within(1, &[7; 16]), within(2, &[9; 8])].concat();
    let status = within(15, &[&[0x18, 2][..], &unknown("of the status")].concat());
    let span = [unknown("of the span"), ids, status].concat();
    let scope = within(1, &[within(1, b"lib"), unknown("of the scope")].concat());
    let resource = within(1, &unknown("of the resource"));
    let process = [resource, within(2, &[scope, within(2, &span)].concat())].concat();
    let request = within(1, &process);
    let incoming = decode(&request, Encoding::Protobuf).unwrap();
    assert_eq!(only(&incoming).status, SpanStatus::Error(String::new()));
    let leaving = written(&incoming);
    assert_eq!(official(&leaving), official(&request));
    for text in ["of the span", "of the status", "of the scope", "of the resource"] {
        let found = leaving.windows(text.len()).filter(|bytes| *bytes == text.as_bytes()).count();
        assert_eq!(found, 1, "{text}");
    }
    // What a receiver would refuse is refused here.
    let wrong = within(1, &within(1, &within(3, &within(3, &[0xff]))));
    assert!(matches!(decode(&wrong, Encoding::Protobuf), Err(Malformed::Unreadable(_))));
}

#[test]
fn what_otlp_forbids_is_refused() {
    let with = |from: &str, to: &str| WHOLE.replace(from, to);
    for (body, problem) in [
        (with("5B8EFFF798038103D269B633813FC60C", "00"), "traceId is not 16 bytes"),
        (with("5B8EFFF798038103D269B633813FC60C", &"0".repeat(32)), "traceId is zero"),
        (with("eee19b7ec3c1b174", ""), "spanId is not 8 bytes"),
        (with("eee19b7ec3c1b173", "ab"), "parentSpanId is not 8 bytes"),
    ] {
        let incoming = decode(body.as_bytes(), Encoding::Json).unwrap();
        assert_eq!((incoming.rejected, incoming.problem.as_deref()), (1, Some(problem)));
        assert!(incoming.groups.is_empty());
    }
    for body in [
        with("\"kind\":2", "\"kind\":\"SPAN_KIND_SERVER\""),
        with("5B8EFFF798038103D269B633813FC60C", "W47/95gDgQPSabYzgT/GDA=="),
        with("\"-3\"", "\"x\""),
        with("\"NaN\"", "[1]"),
        with("\"NaN\"", "\"x\""),
        with("\"flags\":769", "\"flags\":-1"),
        with("\"AP8=\"", "\"A*8=\""),
        "[]".to_owned(),
        r#"{"resourceSpans":[[]]}"#.to_owned(),
        r#"{"resourceSpans":[null]}"#.to_owned(),
        "{".to_owned(),
        String::new(),
    ] {
        let refused = decode(body.as_bytes(), Encoding::Json);
        assert!(matches!(refused, Err(Malformed::Unreadable(_))), "{body}");
    }
    assert_eq!(decode(b"{}", Encoding::Json).unwrap(), Incoming::default());
    assert_eq!(decode(b"", Encoding::Protobuf).unwrap(), Incoming::default());
}

/// `inner` in a field of that number.
fn within(field: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(inner);
    bytes
}

#[test]
fn bombs_are_found_before_they_are_decoded() {
    let spans = [0x12, 0].repeat(1_000_000);
    let million = within(1, &within(2, &spans));
    let refused = decode(&million, Encoding::Protobuf).unwrap_err();
    assert_eq!(refused, Malformed::TooMany { what: "spans", most: MAX_SPANS });
    let values = within(5, &[0x0a, 0].repeat(600_000));
    let values = within(1, &within(2, &within(2, &within(9, &within(2, &values)))));
    assert!(matches!(decode(&values, Encoding::Protobuf), Err(Malformed::TooMany { .. })));
    let mut deep = Vec::new();
    for _ in 0..1000 {
        deep = within(5, &within(1, &deep));
    }
    let deep = within(1, &within(2, &within(2, &within(9, &within(2, &deep)))));
    assert!(matches!(decode(&deep, Encoding::Protobuf), Err(Malformed::Unreadable(_))));
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
        vec!["{}"; 20_000].join(",")
    );
    assert!(matches!(decode(json.as_bytes(), Encoding::Json), Err(Malformed::TooMany { .. })));
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(nested.as_bytes(), Encoding::Json).is_err());
    let many = vec!["{}"; MAX_VALUES + 1].join(",");
    assert!(matches!(decode(many.as_bytes(), Encoding::Json), Err(Malformed::TooMany { .. })));
}

#[test]
fn nothing_is_made_of_what_nobody_reads() {
    // References to entities, which a resource may have; keys of one of them.
    let entities = [0x1a, 0].repeat(600_000);
    let keys = within(3, &[0x22, 0].repeat(600_000));
    for resource in [entities, keys] {
        let taken = decode(&within(1, &within(1, &resource)), Encoding::Protobuf);
        assert_eq!(taken, Ok(Incoming::default()));
    }
}

/// A resource of so many bytes above so many scopes, each with so many spans.
fn repeated(bytes: usize, scopes: usize, spans: usize) -> Vec<u8> {
    let text = within(2, &within(1, "x".repeat(bytes).as_bytes()));
    let attribute = within(1, &[within(1, b"key"), text].concat());
    let ids = [within(1, &[7; 16]), within(2, &[9; 8])].concat();
    let scope = within(2, &within(2, &ids).repeat(spans));
    within(1, &[within(1, &attribute), scope.repeat(scopes)].concat())
}

#[test]
fn what_is_said_once_is_not_taken_as_often_as_it_is_shared() {
    let most = 64 << 20;
    for (bytes, scopes, spans) in [
        // A large resource above many spans of one scope, or many scopes with one.
        (8 << 20, 1, 9),
        (1 << 20, 70, 1),
        (7000, 1, 10_000),
        (7000, 10_000, 1),
    ] {
        let refused = decode(&repeated(bytes, scopes, spans), Encoding::Protobuf).unwrap_err();
        assert!(matches!(refused, Malformed::TooMany { most: limit, .. } if limit == most));
    }
    for (bytes, scopes, spans) in [(8 << 20, 1, 7), (6000, 1, 10_000), (2000, 5000, 2)] {
        let taken = decode(&repeated(bytes, scopes, spans), Encoding::Protobuf).unwrap();
        let taken: usize = taken.groups.iter().map(|group| group.spans.len()).sum();
        assert_eq!(taken, scopes * spans);
    }
    // Scopes without spans cost nothing, however large the resource above them is: copied once for each
    // of them it would not end today.
    let empty = repeated(8 << 20, 100_000, 0);
    assert_eq!(decode(&empty, Encoding::Protobuf).unwrap(), Incoming::default());
}

#[test]
fn values_lie_as_deep_in_json_as_in_protobuf_and_no_deeper() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#, "]}}");
        let value = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
        WHOLE.replace(r#"{"stringValue":"v"}"#, &value)
    };
    let (mut taken, mut refused) = (0, 0);
    for depth in 1..60 {
        match decode(nested(depth).as_bytes(), Encoding::Json) {
            Ok(incoming) => {
                taken += 1;
                let sent =
                    message::request(&Default::default(), std::slice::from_ref(only(&incoming)));
                let again = decode(&sent.encode_to_vec(), Encoding::Protobuf).unwrap();
                // As in the record of a call.
                let stored = serde_json::to_string(only(&again)).unwrap();
                let read = serde_json::from_str::<tollgate_domain::Span>(&stored);
                assert!(read.is_ok(), "what is on record is read");
            }
            Err(problem) => {
                refused += 1;
                assert!(matches!(problem, Malformed::Unreadable(_)), "{problem}");
            }
        }
    }
    assert!(taken > 15 && refused > 15, "{taken} and {refused}");
}

#[test]
fn a_complaint_does_not_repeat_what_was_sent() {
    let long = WHOLE.replace("\"kind\":2", &format!("\"kind\":\"{}\"", "ä".repeat(1 << 20)));
    let Err(Malformed::Unreadable(said)) = decode(long.as_bytes(), Encoding::Json) else {
        panic!()
    };
    assert!(said.len() < 1000 && said.ends_with(" ..."), "{said}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, Encoding::Protobuf);
        let _ = decode(&bytes, Encoding::Json);
    }

    /// Bytes of a request are changed, left out and said twice: what is taken of it is what prost
    /// reads of it, and it leaves as something that prost reads.
    #[test]
    fn a_request_with_wrong_bytes_is_read_as_prost_reads_it(
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..9_usize), 1..4),
    ) {
        let mut bytes = {
            let incoming = decode(WHOLE.as_bytes(), Encoding::Json).unwrap();
            message::request(&Default::default(), std::slice::from_ref(only(&incoming)))
        }
        .encode_to_vec();
        let mut json = WHOLE.as_bytes().to_vec();
        for (at, byte, length) in wrong {
            for bytes in [&mut bytes, &mut json] {
                let place = at.index(bytes.len());
                let end = (place + length).min(bytes.len());
                match byte {
                    0..64 => drop(bytes.drain(place..end)),
                    64..128 => {
                        let again = bytes[place..end].to_vec();
                        drop(bytes.splice(place..place, again));
                    }
                    _ => bytes[place] = byte << 1 | byte >> 6 & 1,
                }
            }
        }
        fuzz::protobuf(&bytes);
        fuzz::json(&json);
    }
}

#[test]
fn refusals_say_when_to_try_again() {
    use tonic_types::pb;
    let wait = Some(std::time::Duration::from_millis(1500));
    let bytes = refused(Encoding::Protobuf, GrpcCode::ResourceExhausted, "later", wait);
    let status = pb::Status::decode(bytes.as_slice()).unwrap();
    assert_eq!((status.code, status.message.as_str(), status.details.len()), (8, "later", 1));
    assert!(status.details[0].type_url.ends_with("google.rpc.RetryInfo"));
    let json = refused(Encoding::Json, GrpcCode::InvalidArgument, "no", None);
    assert_eq!(String::from_utf8(json).unwrap(), r#"{"code":3,"message":"no","details":[]}"#);
    let json = accepted(Encoding::Json, 2, Some("bad"));
    let wanted = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"bad"}}"#;
    assert_eq!(String::from_utf8(json).unwrap(), wanted);
    assert!(accepted(Encoding::Protobuf, 0, None).is_empty());
}
