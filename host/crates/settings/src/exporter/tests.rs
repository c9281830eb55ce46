//! What tables may say, and what is said of those that are wrong.

use std::path::Path;

use super::table::keys;
use super::*;
use crate::given::Given;
use crate::resolved::Settings;

const SECRET: &str = "Bearer s3cret-xyz";

fn settings(text: &str) -> Result<Settings, String> {
    settings_with(text, Given::default())
}

fn settings_with(text: &str, given: Given) -> Result<Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.toml");
    std::fs::write(folder.path().join("token"), format!("{SECRET}\n")).unwrap();
    std::fs::write(&path, text.replace("FOLDER", folder.path().to_str().unwrap())).unwrap();
    let given = Given { config: Some(path), ..given };
    let environment = [("COLLECTOR_TOKEN".to_owned(), SECRET.to_owned())];
    crate::resolve(given, environment, Path::new("x")).map_err(|error| error.to_string())
}

fn names(settings: &Settings) -> Vec<&str> {
    settings.exporters.iter().map(|exporter| exporter.name.as_str()).collect()
}

#[test]
fn the_list_of_keys_is_whole() {
    for key in keys() {
        let error = toml::from_str::<GivenExporter>(&format!("{key} = [[1]]"));
        assert!(!error.unwrap_err().to_string().contains("unknown field"), "{key}");
    }
    let error = toml::from_str::<GivenExporter>("x = 1").unwrap_err().to_string();
    let expected = error.split("expected one of").nth(1).unwrap();
    assert_eq!(expected.matches('`').count(), 2 * keys().len(), "{expected}");
}

#[test]
fn without_tables_all_is_as_it_was() {
    assert_eq!(names(&settings("").unwrap()), ["console", "ndjson"]);
    let settings = settings("console = \"off\"\ndata-dir = \"/d\"").unwrap();
    assert_eq!(names(&settings), ["ndjson"]);
    let Destination::Ndjson(file) = &settings.exporters[0].destination else { unreachable!() };
    assert_eq!(file.path, Path::new("/d/spans.ndjson"));
}

#[test]
fn tables_take_the_place_of_the_defaults() {
    let settings = settings(
        r#"
        data-dir = "/d"

        [[exporter]]
        kind = "console"
        format = "json"

        [[exporter]]
        kind = "ndjson"
        name = "archive"
        path = "/var/log/spans.ndjson"
        rotate-mib = 64
        rotate-hours = 24
        keep = 7
        compress = "zstd"
        start = "beginning"

        [[exporter]]
        kind = "otlp-json"

        [[exporter]]
        kind = "otlp"
        name = "vendor"
        endpoint = "https://in.example.org"
        compression = "gzip"
        timeout-seconds = 3
        certificate = "ca.pem"
        client-certificate = "me.pem"
        client-key = "me.key"
        headers = { authorization = { env = "COLLECTOR_TOKEN" }, x-file = { file = "FOLDER/token" }, x-dataset = "tolls" }
        "#,
    )
    .unwrap();
    assert_eq!(names(&settings), ["console", "archive", "otlp-json", "vendor"]);
    let shown = format!("{settings:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("tolls"), "{shown}");
    let [console, archive, jsonl, vendor] = &settings.exporters[..] else { unreachable!() };
    assert_eq!(console.destination, Destination::Console(Console::Json));
    let wanted = SpanFile {
        path: "/var/log/spans.ndjson".into(),
        rotate_bytes: Some(64 << 20),
        rotate_after: Some(Duration::from_secs(86400)),
        keep: Some(7),
        compress: Some(Compression::Zstd),
    };
    assert_eq!(archive.destination, Destination::Ndjson(wanted));
    assert_eq!((archive.start, vendor.start), (StartAt::Beginning, StartAt::Now));
    let Destination::OtlpJson(file) = &jsonl.destination else { unreachable!() };
    assert_eq!((&*file.path, file.keep), (Path::new("/d/spans.jsonl"), None));
    let Destination::Otlp(receiver) = &vendor.destination else { unreachable!() };
    assert_eq!(receiver.endpoint, "https://in.example.org/v1/traces");
    assert_eq!(receiver.protocol, Protocol::HttpProtobuf);
    assert_eq!(receiver.compression, Some(Compression::Gzip));
    assert_eq!(receiver.timeout, Duration::from_secs(3));
    assert_eq!(receiver.client_certificate, Some(("me.pem".into(), "me.key".into())));
    let headers: Vec<(&str, &str)> =
        receiver.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    let wanted = [("authorization", SECRET), ("x-dataset", "tolls"), ("x-file", SECRET)];
    assert_eq!(headers, wanted);
}

#[test]
fn an_endpoint_says_how_to_speak_where_nothing_else_does() {
    use Protocol::{Grpc, HttpJson, HttpProtobuf};
    let cases = [
        (None, None, Some(("http://localhost:4318/v1/traces", HttpProtobuf))),
        (None, Some(Grpc), Some(("http://localhost:4317/", Grpc))),
        (Some("http://c:4317"), None, Some(("http://c:4317/", Grpc))),
        (Some("http://c:4317"), Some(HttpJson), Some(("http://c:4317/v1/traces", HttpJson))),
        (Some("https://c/in/"), None, Some(("https://c/in/", HttpProtobuf))),
        (Some("https://c/in"), Some(Grpc), Some(("https://c/in", Grpc))),
        (Some("localhost:4317"), None, None),
        (Some("unix:///tmp/x"), None, None),
        (Some(""), None, None),
    ];
    for (given, asked, wanted) in cases {
        let found = endpoint(given, asked);
        let found = found.as_ref().map(|(url, protocol)| (url.as_str(), *protocol));
        assert_eq!(found, wanted, "{given:?} {asked:?}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let otlp = "kind = \"otlp\"\n";
    let cases = [
        (
            "endpont = \"x\"",
            "unknown key of [[exporter]] number 1: endpont; did you mean endpoint?",
        ),
        ("name = \"a\"", "number 1 (a): kind is missing; it is console"),
        ("kind = \"jaeger\"", "number 1 (jaeger): kind is \"jaeger\"; it must be"),
        ("kind = \"ndjson\"\nname = \"A b\"", "name is \"A b\""),
        (
            "kind = \"ndjson\"\nendpoint = \"http://c\"",
            "endpoint means nothing for kind = \"ndjson\"",
        ),
        ("kind = \"otlp\"\npath = \"x\"", "path means nothing for kind = \"otlp\""),
        ("kind = \"console\"\nkeep = 3", "keep means nothing for kind = \"console\""),
        ("kind = \"ndjson\"\nkeep = 3", "set rotate-mib or rotate-hours"),
        ("kind = \"ndjson\"\nrotate-mib = 0", "rotate-mib is 0"),
        ("kind = \"ndjson\"\nrotate-mib = 1\ncompress = \"xz\"", "compress is \"xz\""),
        ("kind = \"console\"\nformat = \"off\"", "leave the exporter out"),
        ("kind = \"otlp\"\nendpoint = \"c:4317\"", "endpoint is \"c:4317\"; it must be a URL"),
        ("kind = \"otlp\"\nclient-key = \"k\"", "belong together"),
        ("kind = \"otlp\"\ntimeout-seconds = 0", "timeout-seconds is 0"),
        ("kind = \"otlp\"\nprotocol = \"grpc\"\ncompression = \"zstd\"", "over gRPC"),
        ("kind = \"otlp\"\nprotocol = \"smoke\"", "http/protobuf"),
        ("kind = \"ndjson\"\nstart = \"yesterday\"", "beginning"),
        ("kind = \"otlp\"\nheaders = { \"a b\" = \"x\" }", "no name of a header"),
        (
            "kind = \"otlp\"\nheaders = { a = { env = \"NONE\" } }",
            "variable NONE, which is not set",
        ),
        ("kind = \"otlp\"\nheaders = { a = { file = \"/none\" } }", "cannot read the file /none"),
        ("kind = \"otlp\"\nheaders = { a = 5 }", "{ env = \"VARIABLE\" }"),
        ("kind = \"otlp\"\nheaders = { a = \"\" }", "header a is empty"),
    ];
    for (table, wanted) in cases {
        let error = settings(&format!("[[exporter]]\n{table}\n")).unwrap_err();
        assert!(error.contains(wanted), "{table}\n{error}");
    }
    let error = settings(&format!("[[exporter]]\n{otlp}headers = {{ a = \"s3cret\\n\" }}")).err();
    assert_eq!(error, None, "white space around a value is no part of it");
    let error = settings(&format!("[[exporter]]\n{otlp}headers = {{ a = \"s3c\\u0007ret\" }}"));
    let error = error.unwrap_err();
    assert!(error.contains("characters") && !error.contains("s3c"), "{error}");
    let error = settings("[exporter]\nkind = \"otlp\"").unwrap_err();
    assert!(error.contains("exporter"), "{error}");
}

#[test]
fn names_and_files_are_not_shared() {
    let error =
        settings("[[exporter]]\nkind = \"otlp\"\n[[exporter]]\nkind = \"otlp\"").unwrap_err();
    assert!(error.contains("two exporters are named otlp"), "{error}");
    let tables = "[[exporter]]\nkind = \"ndjson\"\nname = \"a\"\n[[exporter]]\nkind = \"ndjson\"";
    let error = settings(tables).unwrap_err();
    assert!(error.contains("two exporters write to tollgate-data/spans.ndjson"), "{error}");
}

#[test]
fn the_console_is_asked_for_once() {
    let console = |console| Given { console: Some(console), ..Given::default() };
    let file = "[[exporter]]\nkind = \"ndjson\"";
    assert_eq!(names(&settings(file).unwrap()), ["ndjson"]);
    let with = settings_with(file, console(Console::Json)).unwrap();
    assert_eq!(names(&with), ["ndjson", "console"]);
    assert_eq!(names(&settings_with(file, console(Console::Off)).unwrap()), ["ndjson"]);
    let both = settings_with("[[exporter]]\nkind = \"console\"", console(Console::Tree));
    assert!(both.unwrap_err().contains("keep one of them"));
}
