//! A case as an author writes it: every field may be left out, and one that is not known is an error.
//!
//! A usage has the JSON form of the domain's `Usage`, laid over a plain request that ended well; `model` is short for both
//! models. Spans have a form of their own, since ids and times seldom matter to a plugin.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tollgate_domain::span::{Attributes, SpanKind, SpanStatus};
use tollgate_domain::time::Interval;
use tollgate_domain::{Resource, Span, SpanContext, SpanId, TraceId, UnixNanos, Usage, Value};

/// 2026-01-01T00:00:00Z: when a request began, if a case does not say.
const START: u64 = 1_767_225_600_000_000_000;

/// Why a case cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// Not JSON, or not of the form of a case.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// A usage holds something that no usage has.
    #[error("usages[{index}]: {what}")]
    Usage {
        /// Which one.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl CaseError {
    /// A short, stable name of what kind of error this is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Form(_) => "form",
            Self::Usage { .. } => "usage",
        }
    }
}

/// What one call, or one after another, is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub(super) tenant: Option<String>,
    pub(super) exporter: String,
    pub(super) resource: Resource,
    pub(super) usages: Vec<Usage>,
    pub(super) spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: Option<String>,
    #[serde(default = "otlp")]
    exporter: String,
    #[serde(default)]
    resource: BTreeMap<String, Value>,
    #[serde(default)]
    usages: Vec<Map<String, Json>>,
    #[serde(default)]
    spans: Vec<WrittenSpan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenSpan {
    name: String,
    /// Its trace, 32 hex digits.
    trace: TraceId,
    kind: SpanKind,
    /// `"ok"`, `"unset"`, or the message of an error as `{"error": "..."}`.
    status: WrittenStatus,
    /// Whether it has a parent.
    child: bool,
    duration_ns: u64,
    attributes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenStatus {
    Unset,
    Ok,
    Error(String),
}

impl Default for WrittenSpan {
    fn default() -> Self {
        Self {
            name: "inference.request".to_owned(),
            trace: TraceId(1),
            kind: SpanKind::Server,
            status: WrittenStatus::Ok,
            child: false,
            duration_ns: 1_000_000_000,
            attributes: BTreeMap::new(),
        }
    }
}

fn otlp() -> String {
    "otlp".to_owned()
}

impl Case {
    /// Reads a case.
    ///
    /// # Errors
    /// With the place and the field that is wrong.
    pub fn parse(json: &str) -> Result<Self, CaseError> {
        let written: Written = serde_json::from_str(json)?;
        let usages =
            written.usages.into_iter().enumerate().map(|(index, given)| {
                usage(given).map_err(|what| CaseError::Usage { index, what })
            });
        let spans = (1..).zip(written.spans).map(|(number, span)| span.into_span(number));
        Ok(Self {
            tenant: written.tenant,
            exporter: written.exporter,
            resource: Resource { attributes: attributes(written.resource) },
            usages: usages.collect::<Result<_, _>>()?,
            spans: spans.collect(),
        })
    }

    /// One request and one span with twenty attributes.
    pub(super) fn made_up() -> Self {
        let mut tokens = Map::new();
        tokens.insert("tokens".to_owned(), json!({ "input": 1234, "output": 567 }));
        let known = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("gen_ai.usage.input_tokens", 1234_i64.into()),
            ("gen_ai.usage.output_tokens", 567_i64.into()),
        ];
        let known = known.into_iter().map(|(key, value)| (key.to_owned(), value));
        let others = (0..16).map(|n| (format!("app.attribute.{n}"), format!("value {n}").into()));
        let attributes = known.chain(others).collect();
        let span = WrittenSpan { attributes, ..WrittenSpan::default() };
        Self {
            tenant: None,
            exporter: otlp(),
            resource: Resource::default(),
            usages: usage(tokens).into_iter().collect(),
            spans: vec![span.into_span(1)],
        }
    }
}

/// Lays what was given over a plain request.
fn usage(mut given: Map<String, Json>) -> Result<Usage, String> {
    if let Some(model) = given.remove("model") {
        for key in ["request_model", "response_model"] {
            given.entry(key).or_insert_with(|| model.clone());
        }
    }
    let compute = json!({
        "device": "cpu", "device_time_nanos": 0, "share_ppm": 1_000_000, "energy_millijoules": null,
    });
    let tokens = json!({
        "input": 0, "input_cache_read": 0, "input_cache_write": 0, "input_audio": 0, "input_image": 0,
        "output": 0, "output_reasoning": 0, "output_audio": 0, "output_image": 0,
    });
    let mut whole = json!({
        "provider": "tollgate", "request_model": "gpt-4o-mini", "response_model": "gpt-4o-mini",
        "operation": "chat", "service_tier": null, "phase": "final", "source": "reported",
        "start": START, "tokens": tokens, "compute": null,
        "units": [],
    });
    for (key, value) in given {
        let Some(place) = whole.get_mut(&key) else { return Err(unknown(&key)) };
        match (key.as_str(), value) {
            ("compute", Json::Object(parts)) => {
                *place = compute.clone();
                overlay(place, parts)?;
            }
            ("tokens", Json::Object(parts)) => overlay(place, parts)?,
            (_, value) => *place = value,
        }
    }
    serde_json::from_value(whole).map_err(|error| error.to_string())
}

fn overlay(whole: &mut Json, parts: Map<String, Json>) -> Result<(), String> {
    for (key, value) in parts {
        match whole.get_mut(&key) {
            Some(place) => *place = value,
            None => return Err(unknown(&key)),
        }
    }
    Ok(())
}

fn unknown(key: &str) -> String {
    format!("`{key}` is no field of a usage")
}

impl WrittenSpan {
    /// The number becomes its id, so that it can be told from the others afterwards.
    fn into_span(self, number: u64) -> Span {
        let end = UnixNanos(START.saturating_add(self.duration_ns));
        Span {
            context: SpanContext {
                trace_id: self.trace,
                span_id: SpanId(number),
                sampled: true,
                trace_state: None,
            },
            parent: self.child.then_some(SpanId(u64::MAX)),
            parent_is_remote: false,
            name: Cow::Owned(self.name),
            kind: self.kind,
            interval: Interval::new(UnixNanos(START), end),
            status: match self.status {
                WrittenStatus::Unset => SpanStatus::Unset,
                WrittenStatus::Ok => SpanStatus::Ok,
                WrittenStatus::Error(message) => SpanStatus::Error(message),
            },
            attributes: attributes(self.attributes),
            events: Vec::new(),
            received: None,
        }
    }
}

fn attributes(given: BTreeMap<String, Value>) -> Attributes {
    let mut attributes = Attributes::new();
    for (key, value) in given {
        attributes.set(key, value);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_plain() {
        let case = Case::parse(
            r#"{ "usages": [ { "model": "m", "tokens": { "input": 18446744073709551615 } },
                             { "compute": { "device": "h200" }, "phase": "interrupted" } ],
                 "spans": [ { "attributes": { "a": 1, "b": ["x", "y"] } }, { "status": { "error": "e" }, "trace": "00ff" } ] }"#,
        )
        .unwrap();
        assert_eq!(case.usages[0].response_model, "m");
        assert_eq!(case.usages[0].tokens.input, u64::MAX);
        assert_eq!(case.usages[1].compute.as_ref().unwrap().share_ppm, 1_000_000);
        assert_eq!(case.spans[0].attributes.get("a"), Some(&Value::Int(1)));
        assert_eq!(case.spans[1].status, SpanStatus::Error("e".into()));
        let traces = [0, 1].map(|place: usize| case.spans[place].context.trace_id);
        assert_eq!(traces, [TraceId(1), TraceId(255)]);
        assert_eq!(Case::parse("{}").unwrap().usages, []);
    }

    #[test]
    fn what_no_case_has_is_named() {
        for (json, named) in [
            (r#"{ "usage": [] }"#, "unknown field `usage`"),
            (r#"{ "usages": [ {}, { "modle": "x" } ] }"#, "usages[1]: `modle` is no field"),
            (r#"{ "usages": [ { "tokens": { "in": 1 } } ] }"#, "`in` is no field"),
            (r#"{ "usages": [ { "tokens": { "input": -1 } } ] }"#, "u64"),
            (r#"{ "usages": [ { "phase": "done" } ] }"#, "unknown variant `done`"),
            (r#"{ "spans": [ { "attribute": {} } ] }"#, "unknown field `attribute`"),
            (r#"{ "spans": [ { "trace": "xyz" } ] }"#, "invalid digit"),
            ("", "EOF"),
        ] {
            let error = Case::parse(json).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
