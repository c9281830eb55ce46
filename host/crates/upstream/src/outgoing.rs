//! A request on its way to an upstream, and the few changes that are made to its body.
//!
//! The body stays as the client wrote it but for two things: the backend's own name for the model, and, where the client
//! streams and did not ask for usage, the question for it. What the answer then has too much is taken away again.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;

use crate::error::UpstreamError;
use crate::json::{self, Members};
use crate::multipart;

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Path below the base URL, with its query: `/chat/completions`.
    pub path: Cow<'static, str>,
    /// Usually `POST`.
    pub method: Method,
    /// As the client wrote it.
    pub body: Bytes,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// The model as the client named it.
    pub model: String,
    /// The client's, with this trace's `traceparent` and `tracestate`. Credentials and what belongs to one connection do
    /// not go on, whatever is here.
    pub headers: HeaderMap,
    /// How the answer is read.
    pub operation: Operation,
    /// Whether [`Account::output_text`](crate::Account::output_text) is kept also when the upstream reports usage.
    pub keep_output: bool,
}

/// A body as the backend gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    pub body: Bytes,
    /// Whether the client did not ask for the usage that will come.
    pub strip_usage: bool,
}

impl Outgoing {
    fn content_type(&self) -> Option<&str> {
        self.headers.get(http::header::CONTENT_TYPE)?.to_str().ok()
    }

    /// Whether the body says that it is JSON.
    fn is_json(&self) -> bool {
        self.content_type().is_none_or(|value| value.to_ascii_lowercase().contains("json"))
    }

    /// A form with the backend's name for the model, if it is one that names the model.
    fn form(&self, upstream_model: &str) -> Option<Bytes> {
        let place = multipart::field(self.content_type()?, &self.body, "model")?;
        // A name that would end its part early cannot stand there.
        let name = upstream_model.chars().all(|c| !c.is_control()).then_some(upstream_model)?;
        Some(json::splice(&self.body, &[(place, Cow::Borrowed(name))]).into())
    }

    /// Changes the body for a backend that calls the model `upstream_model`.
    pub(crate) fn edit(&self, upstream_model: &str, inject: bool) -> Result<Edited, UpstreamError> {
        let inject = inject && self.stream && asks_for_usage(self.operation);
        let untouched = Edited { body: self.body.clone(), strip_usage: false };
        if self.body.is_empty() || (self.model == upstream_model && !inject) {
            return Ok(untouched);
        }
        if !self.is_json() {
            let body = self.form(upstream_model).unwrap_or(untouched.body);
            return Ok(Edited { body, strip_usage: false });
        }
        let Some((text, members)) = self.members() else {
            return match self.operation {
                Operation::Other => Ok(untouched),
                _ => Err(not_json()),
            };
        };
        let mut changes = Vec::with_capacity(2);
        for name in members.all("model") {
            if json::string(name).as_deref() != Some(upstream_model)
                && let Some(range) = json::place(text.as_bytes(), name)
            {
                changes.push((range, Cow::Owned(json::quoted(upstream_model))));
            }
        }
        let asked = if inject { ask_for_usage(text, &members, &mut changes) } else { true };
        changes.sort_by_key(|(range, _)| range.start);
        let body = json::splice(text.as_bytes(), &changes).into();
        Ok(Edited { body, strip_usage: !asked })
    }

    /// Whether the client asked for usage in the stream.
    pub(crate) fn asks_for_usage(&self) -> bool {
        let options = self.members().and_then(|(_, members)| members.get("stream_options"));
        options.is_some_and(|options| {
            let options: Option<Members<'_>> = serde_json::from_str(options.get()).ok();
            options.and_then(|o| o.get("include_usage")).is_some_and(|asked| asked.get() == "true")
        })
    }

    fn members(&self) -> Option<(&str, Members<'_>)> {
        let text = str::from_utf8(&self.body).ok()?;
        Some((text, serde_json::from_str(text).ok()?))
    }
}

/// Whether usage in a stream must be asked for.
fn asks_for_usage(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::TextCompletion)
}

pub(crate) fn not_json() -> UpstreamError {
    UpstreamError::Request {
        parameter: None,
        message: "The body must be a JSON object.".to_owned(),
    }
}

/// Adds the change that asks for usage. Whether the client has asked already, or nobody can.
fn ask_for_usage(
    text: &str,
    members: &Members<'_>,
    changes: &mut Vec<(std::ops::Range<usize>, Cow<'static, str>)>,
) -> bool {
    const OPTIONS: &str = "\"stream_options\":{\"include_usage\":true}";
    let place = |value: &RawValue| json::place(text.as_bytes(), value);
    let after_brace = |from: usize| {
        let brace = memchr::memchr(b'{', text.as_bytes().get(from..)?)?;
        Some(from + brace + 1)
    };
    let change = match members.get("stream_options") {
        None => after_brace(0).map(|at| {
            let comma = if members.0.is_empty() { "" } else { "," };
            (at..at, Cow::Owned(format!("{OPTIONS}{comma}")))
        }),
        Some(options) if json::is_null(options) => {
            place(options).map(|range| (range, Cow::Borrowed("{\"include_usage\":true}")))
        }
        Some(options) => {
            let Ok(inner) = serde_json::from_str::<Members<'_>>(options.get()) else {
                // Not an object: the upstream will say so.
                return true;
            };
            match inner.get("include_usage") {
                Some(asked) if asked.get() == "true" => return true,
                Some(other) => place(other).map(|range| (range, Cow::Borrowed("true"))),
                None => place(options).and_then(|range| after_brace(range.start)).map(|at| {
                    let comma = if inner.0.is_empty() { "" } else { "," };
                    (at..at, Cow::Owned(format!("\"include_usage\":true{comma}")))
                }),
            }
        }
    };
    match change {
        Some(change) => {
            changes.push(change);
            false
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(body: &str, stream: bool) -> Outgoing {
        Outgoing {
            path: "/chat/completions".into(),
            method: Method::POST,
            body: Bytes::copy_from_slice(body.as_bytes()),
            stream,
            model: "m".to_owned(),
            headers: HeaderMap::new(),
            operation: Operation::Chat,
            keep_output: false,
        }
    }

    #[test]
    fn a_body_keeps_all_but_two_things() {
        let cases = [
            (
                r#"{"model":"m","temperature":1.0}"#,
                false,
                r#"{"model":"M\"x","temperature":1.0}"#,
                false,
            ),
            (
                r#" {"n":1e2, "model" : "m" ,"stream":true}"#,
                true,
                r#" {"stream_options":{"include_usage":true},"n":1e2, "model" : "M\"x" ,"stream":true}"#,
                true,
            ),
            (
                r#"{"model":"m","stream_options":null}"#,
                true,
                r#"{"model":"M\"x","stream_options":{"include_usage":true}}"#,
                true,
            ),
            (
                r#"{"stream_options":{},"model":"m"}"#,
                true,
                r#"{"stream_options":{"include_usage":true},"model":"M\"x"}"#,
                true,
            ),
            (
                r#"{"stream_options":{"include_usage":false,"a":1},"model":"m"}"#,
                true,
                r#"{"stream_options":{"include_usage":true,"a":1},"model":"M\"x"}"#,
                true,
            ),
            (
                r#"{"stream_options":{"a":1},"model":"m"}"#,
                true,
                r#"{"stream_options":{"include_usage":true,"a":1},"model":"M\"x"}"#,
                true,
            ),
            (
                r#"{"stream_options":{"include_usage":true},"model":"m"}"#,
                true,
                r#"{"stream_options":{"include_usage":true},"model":"M\"x"}"#,
                false,
            ),
            (
                r#"{"stream_options":7,"mod\u0065l":"m"}"#,
                true,
                r#"{"stream_options":7,"mod\u0065l":"M\"x"}"#,
                false,
            ),
        ];
        for (body, stream, expected, strip_usage) in cases {
            let edited = outgoing(body, stream).edit("M\"x", true).unwrap();
            assert_eq!(edited, Edited { body: expected.into(), strip_usage }, "{body}");
        }
    }

    #[test]
    fn nothing_is_touched_without_need() {
        let odd = r#"{"model":"m","model":"n"}"#;
        assert_eq!(outgoing(odd, false).edit("m", true).unwrap().body, odd);
        assert_eq!(outgoing(odd, true).edit("m", false).unwrap().body, odd);
        assert!(outgoing("[1]", true).edit("m", true).is_err());
        let mut form = outgoing("--boundary", false);
        form.headers.insert("content-type", "multipart/form-data".parse().unwrap());
        assert_eq!(form.edit("x", true).unwrap().body, "--boundary");
        let named = |name: &str| {
            format!(
                "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{name}\r\n--b--\r\n"
            )
        };
        let mut form = outgoing(&named("m"), false);
        form.headers.insert("content-type", "multipart/form-data; boundary=b".parse().unwrap());
        assert_eq!(form.edit("x/y", true).unwrap().body, named("x/y"));
    }
}
