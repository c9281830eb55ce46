//! Requests from NDJSON span files, as the gateway's exporter writes them: also rotated and compressed ones, and what
//! comes in through a pipe.
//!
//! A request is the root span `inference.request`; the other spans are passed over. Delivery is at least once, so a span
//! that is there again, in the same file or another, counts once. What a plugin removed from a span cannot be reported
//! from it: the ledger is the better source where it is at hand.

mod line;
mod lines;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::AuditError;
use super::output;
use super::progress::Quiet;
use lines::Lines;
use tollgate_summary::Request;

/// Hands over each request of these files once, in the order of the files; `-` is standard input.
pub(super) fn read(
    files: &[PathBuf],
    quiet: Quiet,
    mut each: impl FnMut(&Request<'_>) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let mut seen = HashSet::new();
    for file in files {
        let mut lines = Lines::open(file, quiet)?;
        while lines.advance()? {
            let bytes = lines.line();
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match line::parse(bytes) {
                Ok(Some(span)) => {
                    if seen.insert(span.id) {
                        each(&span.request().map_err(|why| wrong(file, lines.number(), why))?)?;
                    }
                }
                Ok(None) => {}
                // Its writer is not done with it.
                Err(_) if lines.is_torn() => {
                    if !quiet.quiet {
                        let name = file.display();
                        output::remark(&format!(
                            "the last line of {name} is not whole yet; it is left out"
                        ));
                    }
                }
                Err(why) => return Err(wrong(file, lines.number(), why)),
            }
        }
    }
    Ok(())
}

fn wrong(file: &Path, line: u64, why: String) -> AuditError {
    AuditError::Line { file: file.display().to_string(), line, why }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Value, json};
    use tollgate_domain::Record;
    use tollgate_domain::UnpricedReason;
    use tollgate_domain::span::Span;

    use super::super::testing::{
        NEW_YEAR, estimated, plugin_failed, priced, record, refused, unpriced,
    };
    use super::*;
    use tollgate_summary::Cost;

    /// A span as the exporter writes it.
    fn written(span: &Span) -> Value {
        let attributes: serde_json::Map<_, _> =
            span.attributes.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        json!({
            "trace_id": span.context.trace_id.to_string(),
            "span_id": span.context.span_id.to_string(),
            "name": span.name,
            "start_time_ns": span.interval.start.0,
            "end_time_ns": span.interval.end.0,
            "attributes": attributes,
            "events": span.events.iter().map(|event| json!({"name": event.name, "time_ns": event.time.0})).collect::<Vec<_>>(),
        })
    }

    fn lines_of(records: &[Record]) -> String {
        let spans = records.iter().flat_map(|record| tollgate_telemetry::spans(record, None));
        spans.map(|span| written(&span).to_string() + "\n").collect()
    }

    fn found(contents: &[Vec<u8>]) -> Result<Vec<String>, AuditError> {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> =
            (0..contents.len()).map(|n| folder.path().join(n.to_string())).collect();
        for (file, content) in files.iter().zip(contents) {
            std::fs::write(file, content).unwrap();
        }
        let mut found = Vec::new();
        read(&files, Quiet { quiet: true }, |request| {
            found.push(format!("{request:?}"));
            Ok(())
        })?;
        Ok(found)
    }

    fn records() -> Vec<Record> {
        vec![
            record("acme", "m", NEW_YEAR, priced(1_234_567)),
            record("", "m", NEW_YEAR + 1, estimated(-1)),
            record("acme", "n", NEW_YEAR + 2, unpriced(UnpricedReason::UnknownModel)),
            record("acme", "n", NEW_YEAR + 3, plugin_failed(tollgate_domain::FaultKind::Trap)),
            refused("acme", "n", NEW_YEAR + 4),
        ]
    }

    #[test]
    fn a_span_tells_of_a_request_what_its_record_tells() {
        let records = records();
        let expected: Vec<String> =
            records.iter().map(|record| format!("{:?}", Request::from(record))).collect();
        assert_eq!(found(&[lines_of(&records).into()]).unwrap(), expected);
    }

    #[test]
    fn compressed_files_are_read_and_copies_count_once() {
        let text = lines_of(&records());
        let gz = |text: &str| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(text.as_bytes()).unwrap();
            gz.finish().unwrap()
        };
        let two_members = [gz(&text[..700]), gz(&text[700..])].concat();
        let zst = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let plain = text.clone().into_bytes();
        for contents in [
            vec![gz(&text)],
            vec![two_members.clone()],
            vec![zst.clone()],
            vec![plain.clone(), plain.clone(), zst, two_members, Vec::new()],
            vec![[plain.clone(), b"\n\n".to_vec(), plain.clone()].concat()],
            vec![[plain, b"{\"trace_id\": \"torn".to_vec()].concat()],
        ] {
            assert_eq!(found(&contents).unwrap().len(), 5);
        }
        let torn = gz(&text);
        let error = found(&[torn[..torn.len() / 2].to_vec()]).unwrap_err();
        assert!(matches!(error, AuditError::File { .. }), "{error}");
    }

    #[test]
    fn what_cannot_be_counted_is_named_by_its_line() {
        let good =
            written(&tollgate_telemetry::spans(&record("a", "m", NEW_YEAR, priced(1)), None)[0]);
        let with = |key: &str, value: Value| {
            let mut span = good.clone();
            span["attributes"][key] = value;
            span.to_string()
        };
        for (line, word) in [
            ("{".to_owned(), "EOF"),
            ("[]".to_owned(), "expected"),
            (r#"{"resourceSpans": []}"#.to_owned(), "OTLP"),
            (with("tollgate.cost.amount", json!("1e3")), "decimal"),
            (with("tollgate.cost.amount", json!(1.5)), "string"),
            (with("tollgate.cost.currency", json!("dollars")), "currency"),
            (with("gen_ai.usage.input_tokens", json!(-1)), "-1"),
            (good.to_string().replace("\"span_id\":\"", "\"span_id\":\"xyz"), "span_id"),
        ] {
            let error = found(&[format!("\n{line}\n").into()]).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn a_cost_that_is_not_there_is_unknown_and_not_zero() {
        let mut span =
            written(&tollgate_telemetry::spans(&record("a", "m", NEW_YEAR, priced(1)), None)[0]);
        for key in ["tollgate.cost.amount", "tollgate.cost.status"] {
            span["attributes"].as_object_mut().unwrap().remove(key);
            let parsed = span.to_string();
            let parsed = line::parse(parsed.as_bytes()).unwrap().unwrap();
            assert!(matches!(parsed.request().unwrap().cost, Cost::Unknown), "without {key}");
        }
    }
}
