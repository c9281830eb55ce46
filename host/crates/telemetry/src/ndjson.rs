//! Spans in a file, one JSON object a line: every field of the tutorial's exporter, so that its
//! analysis runs unchanged, and parent, kind, events, resource.
//!
//! A batch is one write. A line is whole or not there: what a crash tore off at the end is cut
//! off at the next start, what a failed write left behind is cut off before the next write. The
//! file is locked, since two writers would cut each other's lines.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Serialize;
use tollgate_domain::span::{Attributes, Resource, Span, SpanKind, SpanStatus, Value};

use crate::error::TelemetryError;
use crate::names;

/// How much is read at a time when looking for the last whole line.
const BLOCK: u64 = 64 * 1024;

/// One line a span, each with its newline.
pub(crate) fn lines(spans: &[Span], resource: &Resource) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(spans.len() * 1024);
    for span in spans {
        let before = bytes.len();
        match serde_json::to_writer(&mut bytes, &Line::new(span, resource)) {
            Ok(()) => bytes.push(b'\n'),
            // Cannot happen: all keys are text and a vector takes every write.
            Err(_) => bytes.truncate(before),
        }
    }
    bytes
}

#[derive(Serialize)]
struct Line<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: &'a str,
    kind: SpanKind,
    start_time_ns: u64,
    end_time_ns: u64,
    duration_ms: f64,
    attributes: Map<'a>,
    events: Vec<Event<'a>>,
    status: &'static str,
    status_message: Option<&'a str>,
    service: &'a str,
    resource: Map<'a>,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    time_ns: u64,
    attributes: Map<'a>,
}

/// Attributes as a JSON object; domain's own form is for storage.
struct Map<'a>(&'a Attributes);

impl Serialize for Map<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

impl<'a> Line<'a> {
    fn new(span: &'a Span, resource: &'a Resource) -> Self {
        let (status, status_message) = match &span.status {
            SpanStatus::Unset => ("UNSET", None),
            SpanStatus::Ok => ("OK", None),
            SpanStatus::Error(message) => ("ERROR", Some(message.as_str())),
        };
        let event = |event: &'a tollgate_domain::span::SpanEvent| Event {
            name: &event.name,
            time_ns: event.time.0,
            attributes: Map(&event.attributes),
        };
        Self {
            trace_id: span.context.trace_id.to_string(),
            span_id: span.context.span_id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            name: &span.name,
            kind: span.kind,
            start_time_ns: span.interval.start.0,
            end_time_ns: span.interval.end.0,
            duration_ms: crate::attributes::rounded_ms(span.interval),
            attributes: Map(&span.attributes),
            events: span.events.iter().map(event).collect(),
            status,
            status_message,
            service: match resource.attributes.get(names::resource::SERVICE_NAME) {
                Some(Value::Text(service)) => service,
                _ => "",
            },
            resource: Map(&resource.attributes),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(crate) struct SpanFile {
    file: File,
    /// Where whole lines end, if a failed write left more than that.
    torn_at: Option<u64>,
}

impl SpanFile {
    /// Opens or creates the file and its folders, and cuts off a torn last line.
    pub(crate) fn open(path: &Path) -> Result<Self, TelemetryError> {
        let failed = |source| TelemetryError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TelemetryError::FileInUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "this file system has no locks; let no other process write to the span file");
            }
        }
        let torn = cut_torn_line(&mut file).map_err(failed)?;
        if torn > 0 {
            tracing::warn!(path = %path.display(), bytes = torn, "cut off a torn last line");
        }
        Ok(Self { file, torn_at: None })
    }

    /// Appends whole lines: all of them or, after an error, none.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Some(length) = self.torn_at {
            self.file.set_len(length)?;
            self.torn_at = None;
        }
        let length = self.file.metadata()?.len();
        self.file.write_all(lines).inspect_err(|_| {
            self.torn_at = self.file.set_len(length).is_err().then_some(length);
        })
    }
}

/// Cuts off what follows the last newline; how many bytes that were.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::take(&mut *file, end - start).read_to_end(&mut block)?;
        match block.iter().rev().position(|byte| *byte == b'\n') {
            Some(after) => {
                end -= u64::try_from(after).unwrap_or(0);
                break;
            }
            None => end = start,
        }
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(length - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a/b/spans.ndjson");
        let long = "x".repeat(200_000);
        let cases = [
            (String::new(), ""),
            ("{}\n".into(), "{}\n"),
            ("{}\n{\"torn".into(), "{}\n"),
            (format!("{{}}\n{long}"), "{}\n"),
            ("torn".into(), ""),
            (long.clone(), ""),
        ];
        for (before, after) in cases {
            drop(SpanFile::open(&path)?);
            fs::write(&path, &before)?;
            let mut file = SpanFile::open(&path)?;
            assert_eq!(fs::read_to_string(&path)?, after);
            file.append(b"{\"new\":1}\n")?;
            assert_eq!(fs::read_to_string(&path)?, format!("{after}{{\"new\":1}}\n"));
        }
        Ok(())
    }

    #[test]
    fn two_writers_are_refused() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("spans.ndjson");
        let first = SpanFile::open(&path)?;
        assert!(matches!(SpanFile::open(&path), Err(TelemetryError::FileInUse { .. })));
        drop(first);
        assert!(SpanFile::open(&path).is_ok());
        Ok(())
    }

    #[test]
    fn a_failed_write_leaves_no_torn_line() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("spans.ndjson");
        fs::write(&path, "{}\n")?;
        let mut file = SpanFile::open(&path)?;
        file.append(b"{}\n")?;
        // As if a write had failed half-way and could not be taken back at once.
        file.file.write_all(b"{\"half")?;
        file.torn_at = Some(6);
        file.append(b"{\"whole\":1}\n")?;
        assert_eq!(fs::read_to_string(&path)?, "{}\n{}\n{\"whole\":1}\n");
        Ok(())
    }
}
