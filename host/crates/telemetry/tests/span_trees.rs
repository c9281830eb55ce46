//! The spans of every kind of record as the NDJSON exporter writes them, against
//! `tests/expected/*.json`. `UPDATE_EXPECTED=1 cargo test` rewrites those; read the difference.

mod fixtures;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fixtures::record;
use serde_json::Value;
use tollgate_domain::Resource;
use tollgate_domain::record::Record;
use tollgate_domain::span::Attributes;
use tollgate_telemetry::{ExporterSettings, FileSettings, SinkSettings, build_exporters, spans};

const ALL: [&str; 10] = [
    "completed",
    "streamed",
    "refused",
    "failed",
    "client_gone",
    "unpriced",
    "in_euros",
    "plugin_failed",
    "forwarded",
    "rate_limited",
];

type Outcome = Result<(), Box<dyn Error>>;

/// The lines that the NDJSON exporter writes of `records`.
async fn written(records: &[Record]) -> Result<Vec<Value>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("data/spans.ndjson");
    let sink = SinkSettings::Ndjson(FileSettings::new(&path));
    let settings = vec![ExporterSettings::new("ndjson", sink)];
    let mut attributes = Attributes::new();
    attributes.set("service.name", "tollgate");
    for mut exporter in build_exporters(settings, &Resource { attributes })? {
        for record in records {
            let sent = exporter.send(&spans(record, "127.0.0.1:8080".parse().ok())).await;
            assert!(sent.is_ok(), "{sent:?}");
        }
        exporter.close(Duration::from_secs(10)).await?;
    }
    let text = fs::read_to_string(&path)?;
    assert!(text.ends_with('\n'), "whole lines only");
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn every_kind_of_record_has_its_tree() -> Outcome {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expected");
    for name in ALL {
        let record = record(name);
        let found = format!("{:#}\n", Value::Array(written(&[record]).await?));
        let path = folder.join(format!("{name}.json"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&path, &found)?;
        }
        let expected = fs::read_to_string(&path)?;
        // As values: the order of keys depends on how serde_json was built.
        let same =
            serde_json::from_str::<Value>(&found)? == serde_json::from_str::<Value>(&expected)?;
        assert!(same, "{name}: {found}\nif this is meant, run with UPDATE_EXPECTED=1");
    }
    Ok(())
}

#[test]
fn the_same_record_gives_the_same_spans() {
    for name in ALL {
        let record = record(name);
        let first = spans(&record, None);
        assert_eq!(first, spans(&record, None), "{name}");
        let root = first.first();
        for child in first.iter().skip(1) {
            assert_eq!(child.parent, root.map(|root| root.context.span_id), "{name}");
            assert_eq!(child.context.trace_id, record.trace.trace_id, "{name}");
        }
    }
}

/// Step 6 of the tutorial, in Rust: every field it reads is there and means the same.
#[tokio::test]
async fn the_tutorials_analysis_works() -> Outcome {
    let mut other = record("completed");
    other.user = Some("tenant-b".to_owned());
    let records = [record("completed"), record("unpriced"), record("streamed"), other];
    let lines = written(&records).await?;
    let mut by_user: Vec<(String, f64)> = Vec::new();
    for line in &lines {
        for field in ["trace_id", "span_id", "name", "status", "service"] {
            assert!(line.get(field).is_some_and(Value::is_string), "{field}");
        }
        for field in ["start_time_ns", "end_time_ns", "duration_ms"] {
            assert!(line.get(field).is_some_and(Value::is_number), "{field}");
        }
        let attribute = |name: &str| line.get("attributes").and_then(|all| all.get(name));
        let user = attribute("llm.user").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let cost = attribute("llm.estimated_cost_usd").and_then(Value::as_f64).unwrap_or(0.0);
        match by_user.iter_mut().find(|(known, _)| *known == user) {
            Some((_, sum)) => *sum += cost,
            None => by_user.push((user, cost)),
        }
    }
    by_user.sort_by(|a, b| a.0.cmp(&b.0));
    let found: Vec<String> =
        by_user.iter().map(|(user, sum)| format!("{user}: {sum:.8}")).collect();
    assert_eq!(found, ["tenant-acme: 0.00001840", "tenant-b: 0.00000920", "unknown: 0.00000000"]);
    Ok(())
}
