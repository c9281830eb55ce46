//! Lines by OTLP/JSON's own rules, and the Collector's limit.

use opentelemetry_proto::tonic::trace::v1::TracesData;
use serde_json::Value as Json;

use super::*;
use crate::fixtures::record;

fn resource(name: &str) -> Resource {
    let mut attributes = Attributes::new();
    attributes.set("service.name", name);
    Resource { attributes }
}

fn all_spans() -> Vec<Span> {
    let names = ["completed", "streamed", "refused", "failed", "plugin_failed"];
    names.iter().flat_map(|name| crate::spans(&record(name), None)).collect()
}

fn text(lines: Vec<u8>) -> String {
    String::from_utf8(lines).unwrap()
}

/// The rules of OTLP/JSON where they differ from protobuf's, at each key of a line.
fn check(key: &str, value: &Json) {
    let text = value.as_str();
    let is_hex = |digits: usize| {
        text.is_some_and(|text| {
            text.len() == digits
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    };
    match key {
        "traceId" => assert!(is_hex(32), "{value}"),
        "spanId" => assert!(is_hex(16), "{value}"),
        "parentSpanId" => assert!(is_hex(16) || text == Some(""), "{value}"),
        "kind" | "code" | "flags" => assert!(value.is_u64(), "{key}: {value}"),
        "startTimeUnixNano" | "endTimeUnixNano" | "timeUnixNano" | "intValue" => {
            assert!(text.is_some_and(|text| text.parse::<i64>().is_ok()), "{key}: {value}");
        }
        "doubleValue" => assert!(value.is_f64() || value == "NaN", "{value}"),
        "boolValue" => assert!(value.is_boolean(), "{value}"),
        _ => {}
    }
    let first = key.chars().next();
    assert!(first.is_some_and(|c| c.is_ascii_lowercase()) && !key.contains('_'), "{key}");
    match value {
        Json::Object(fields) => fields.iter().for_each(|(key, value)| check(key, value)),
        Json::Array(items) => {
            let fields = items.iter().filter_map(Json::as_object).flatten();
            fields.for_each(|(key, value)| check(key, value));
        }
        Json::Null => panic!("{key} is null"),
        _ => {}
    }
}

#[test]
fn lines_are_in_the_form_of_otlp() {
    let mut spans = all_spans();
    spans[0].attributes.set("list", Value::List(vec![1_i64.into(), "a".into()]));
    spans[0].attributes.set("whole", 2.0);
    spans[0].attributes.set("yes", true);
    let resource = resource("a \"spans\":[ b");
    let (lines, accepted) = OtlpJson::new(&resource).of(&spans);
    assert_eq!(accepted, Accepted::default());
    let lines = text(lines);
    assert_eq!(lines.matches('\n').count(), 1, "one line holds them all");
    assert!(lines.ends_with("}\n"));
    let line: Json = serde_json::from_str(&lines).unwrap();
    assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), ["resourceSpans"]);
    check("resourceSpans", &line["resourceSpans"]);
    let scope = &line["resourceSpans"][0]["scopeSpans"][0];
    assert_eq!(scope["scope"]["name"], "tollgate");
    assert_eq!(scope["spans"].as_array().unwrap().len(), spans.len());
    // And as the crate reads it back.
    let data: TracesData = serde_json::from_str(&lines).unwrap();
    let wanted = message::request(&message::own(&resource), &spans);
    assert_eq!(data.resource_spans, wanted.resource_spans);
    // Which reads no number that JSON lacks: it has its name, and is not left out.
    spans.truncate(1);
    spans[0].attributes.set("no number", f64::NAN);
    let (lines, _) = OtlpJson::new(&resource).of(&spans);
    assert!(text(lines).contains(r#"{"key":"no number","value":{"doubleValue":"NaN"}}"#));
}

#[test]
fn no_spans_are_no_line() {
    assert_eq!(OtlpJson::new(&resource("x")).of(&[]), (Vec::new(), Accepted::default()));
}

/// All spans of all lines, which are all short enough.
fn read(lines: Vec<u8>) -> Vec<Json> {
    let mut spans = Vec::new();
    for line in text(lines).split_inclusive('\n') {
        assert!(line.len() < 1 << 20 && line.ends_with('\n'), "{}", line.len());
        let line: Json = serde_json::from_str(line).unwrap();
        let found = line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
        assert!(!found.is_empty());
        spans.extend(found);
    }
    spans
}

#[test]
fn lines_are_short_enough_for_the_collector() {
    let mut spans = Vec::new();
    for number in 0..100 {
        let mut one = all_spans().swap_remove(0);
        one.context.span_id.0 = number + 1;
        one.attributes.set("padding", "\"".repeat(usize::try_from(number * 1000).unwrap()));
        spans.push(one);
    }
    let (lines, accepted) = OtlpJson::new(&resource("x")).of(&spans);
    assert_eq!(accepted, Accepted::default());
    let found = read(lines);
    let ids: Vec<&str> = found.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    let wanted: Vec<String> = spans.iter().map(|span| span.context.span_id.to_string()).collect();
    assert_eq!(ids, wanted, "each once, in order");
}

#[test]
fn a_span_that_fits_into_no_line_is_cut_or_counted() {
    let mut long = all_spans().swap_remove(0);
    long.attributes.set("long", "\u{e9}".repeat(700_000));
    long.attributes.set("list", Value::List(vec!["x".repeat(500_000).into(), 5_i64.into()]));
    let mut many = all_spans().swap_remove(1);
    for number in 0..2000_i64 {
        many.attributes.set(format!("{}{number}", "key.".repeat(150)), number);
    }
    let short = all_spans().swap_remove(2);
    let (lines, accepted) = OtlpJson::new(&resource("x")).of(&[long, many, short.clone()]);
    assert_eq!(accepted.rejected_spans, 1);
    assert!(accepted.message.is_some_and(|message| message.contains("larger")));
    let found = read(lines);
    assert_eq!(found.len(), 2);
    let attributes = found[0]["attributes"].as_array().unwrap();
    let value = |key: &str| &attributes.iter().find(|pair| pair["key"] == key).unwrap()["value"];
    let cut = value("long")["stringValue"].as_str().unwrap();
    assert!(cut.ends_with("\u{e9}\u{2026}") && cut.len() <= CUTS[0] + 3, "{}", cut.len());
    assert_eq!(value("list")["arrayValue"]["values"][1]["intValue"], "5");
    assert_eq!(value("llm.model")["stringValue"], "mistral-7b", "the rest is as it was");
    assert_eq!(found[1]["spanId"], short.context.span_id.to_string());
}
