//! Answers of other servers: their bytes, and what they used and cost.
//!
//! A whole answer that is a JSON object gets our fields at its end, after its own. A stream gets
//! them in its usage chunk, if its client asked for one, else in a comment before its end, which
//! clients skip: `: tollgate {..}`. Whatever ends an answer was held back until it was on record.

use std::io;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use tollgate_domain::record::Operation;
use tollgate_gateway::{Answer, AnswerEvent, Ending, ForwardedForm, ForwardedHead};

use crate::account::Account;
use crate::response::{Head, to_json};
use crate::{error, headers};

/// Passes the answer on. Dropping the response drops the answer.
pub(crate) async fn response(
    operation: Operation,
    mut answer: Answer,
    forwarded: ForwardedHead,
) -> Response {
    let head = Head::new(operation, &answer);
    if forwarded.form != ForwardedForm::Whole {
        let ids = head.clone();
        let mut response =
            respond(&forwarded, Body::from_stream(pieces(answer, head, forwarded.form)));
        headers::set_ids(response.headers_mut(), &ids.id, ids.trace_id);
        return response;
    }
    let ending = loop {
        match answer.next().await {
            Some(AnswerEvent::Ended(ending)) => break ending,
            Some(AnswerEvent::Piece(_) | AnswerEvent::Bytes(_)) => {}
            None => return error::response(&head.cut_off(), None),
        }
    };
    let account = account(&head, &ending);
    let mut response = match &ending.result {
        Ok(_) => respond(&forwarded, Body::from(with_account(ending.rest.clone(), &account))),
        Err(failure) if ending.rest.is_empty() => {
            error::response(&head.on_record(failure.clone()), Some(&account))
        }
        // The backend's own words say best what is wrong.
        Err(_) => respond(&forwarded, Body::from(ending.rest.clone())),
    };
    headers::set_ids(response.headers_mut(), &head.id, head.trace_id);
    headers::set_cost(response.headers_mut(), &ending.cost);
    response
}

fn account<'a>(head: &Head, ending: &'a Ending) -> Account<'a> {
    Account::new(&ending.tokens, &ending.cost, head.trace_id)
}

fn respond(forwarded: &ForwardedHead, body: Body) -> Response {
    let status = StatusCode::from_u16(forwarded.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, body).into_response();
    let to = response.headers_mut();
    for (name, value) in &forwarded.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            headers::set(to, name, value);
        }
    }
    to.remove(header::CONTENT_TYPE);
    if let Some(content_type) = &forwarded.content_type {
        headers::set(to, header::CONTENT_TYPE, content_type);
    }
    if forwarded.form == ForwardedForm::Events {
        to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        // Nginx would hold the events back.
        to.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    response
}

/// The pieces of an answer that does not come whole. One whose bytes nobody understands has no words for a failure: there the
/// connection breaks, so that nobody takes what came for all of it.
fn pieces(
    answer: Answer,
    head: Head,
    form: ForwardedForm,
) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold((Some(answer), head), move |(mut answer, head)| async move {
        let piece = match answer.as_mut()?.next().await {
            Some(AnswerEvent::Bytes(bytes)) => Ok(bytes),
            // Only answers of the model here have any.
            Some(AnswerEvent::Piece(piece)) => Ok(piece.text.into()),
            Some(AnswerEvent::Ended(ending)) => {
                answer = None;
                match (form, &ending.result) {
                    (ForwardedForm::Events, _) => Ok(end(&head, &ending)),
                    // Of what is not known nothing but itself goes out.
                    (_, Err(failure)) if ending.rest.is_empty() => {
                        Err(io::Error::other(failure.message.clone()))
                    }
                    _ => Ok(ending.rest),
                }
            }
            None => {
                answer = None;
                let failure = head.cut_off();
                match form {
                    ForwardedForm::Events => Ok(event(&error::body(&failure, None))),
                    _ => Err(io::Error::other(failure.message)),
                }
            }
        };
        Some((piece, (answer, head)))
    })
}

/// How a stream ends.
fn end(head: &Head, ending: &Ending) -> Bytes {
    let account = account(head, ending);
    match &ending.result {
        Ok(_) => ends_with(&ending.rest, &account),
        Err(failure) if ending.rest.is_empty() => {
            event(&error::body(&head.on_record(failure.clone()), Some(&account)))
        }
        Err(_) => ends_with(&ending.rest, &account),
    }
}

fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// The last events of a stream with our fields: in the first one that is a JSON object about usage,
/// else in a comment before all of them.
fn ends_with(rest: &Bytes, account: &Account<'_>) -> Bytes {
    let mut written = BytesMut::with_capacity(rest.len() + 512);
    let usage = usage_line(rest);
    match usage {
        Some((from, to)) => {
            written.put_slice(rest.get(..from).unwrap_or_default());
            written.put_slice(&with_account(rest.slice(from..to), account));
            written.put_slice(rest.get(to..).unwrap_or_default());
        }
        None => {
            written.put_slice(b": tollgate ");
            written.put_slice(to_json(account).as_bytes());
            written.put_slice(b"\n\n");
            written.put_slice(rest);
        }
    }
    written.freeze()
}

/// Where the JSON of the usage chunk lies, as OpenAI's protocol has it: an object on one line whose
/// choices are empty.
fn usage_line(rest: &[u8]) -> Option<(usize, usize)> {
    let mut from = 0;
    for line in rest.split_inclusive(|&byte| byte == b'\n') {
        let start = from;
        from += line.len();
        let Some(data) = line.strip_prefix(b"data:") else { continue };
        let is_usage = serde_json::from_slice::<UsageChunk>(data.trim_ascii())
            .is_ok_and(|chunk| chunk.choices.is_empty() && chunk.usage.is_some());
        if is_usage {
            let before = line.len() - data.trim_ascii_start().len();
            return Some((start + before, start + line.trim_ascii_end().len()));
        }
    }
    None
}

#[derive(serde::Deserialize)]
struct UsageChunk {
    choices: Vec<serde::de::IgnoredAny>,
    usage: Option<serde::de::IgnoredAny>,
}

/// `body` with our fields at its end, if it is a JSON object.
fn with_account(body: Bytes, account: &Account<'_>) -> Bytes {
    let text = body.trim_ascii();
    let Some(open) = text.strip_suffix(b"}").filter(|open| open.starts_with(b"{")) else {
        return body;
    };
    let ours = to_json(account);
    let mut written = BytesMut::with_capacity(open.len() + ours.len() + 1);
    written.put_slice(open.trim_ascii_end());
    if open.trim_ascii() != b"{" {
        written.put_u8(b',');
    }
    written.put_slice(ours.as_bytes().strip_prefix(b"{").unwrap_or_default());
    written.freeze()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tollgate_domain::TraceId;

    use super::*;
    use crate::account::tests::{priced, tokens};

    fn with<T>(check: impl FnOnce(&Account<'_>) -> T) -> T {
        let cost = priced(3_600_000, "USD");
        check(&Account::new(&tokens(), &cost, TraceId(7)))
    }

    #[test]
    fn an_object_keeps_its_text_and_gets_our_fields() {
        for body in [r#"{"id":"a","n":1.50}"#, " {\"id\":\"a\",\"n\":1.50 }\n", "{}"] {
            let written = with(|account| with_account(Bytes::from(body), account));
            let text = std::str::from_utf8(&written).unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["cost"]["amount"], "0.0000036", "{text}");
            assert_eq!(text.contains("1.50"), body.contains("1.50"), "{text}");
        }
        for body in ["[1]", "\"x\"", "", "RIFF"] {
            assert_eq!(with(|account| with_account(Bytes::from(body), account)), body);
        }
    }

    #[test]
    fn a_stream_gets_them_in_its_usage_chunk_or_in_a_comment() {
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\n";
        let done = "data: [DONE]\n\n";
        let ended = |rest: String| {
            let bytes = with(|account| ends_with(&Bytes::from(rest), account));
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let text = ended(format!("{usage}{done}"));
        let (chunk, rest) = text.split_once("\n\n").unwrap();
        let value: Value = serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&value["usage"]["prompt_tokens"], rest), (&Value::from(3), done));
        assert_eq!(value["cost"]["status"], "priced");
        let text = ended(done.to_owned());
        let (comment, rest) = text.split_once("\n\n").unwrap();
        let value: Value =
            serde_json::from_str(comment.strip_prefix(": tollgate ").unwrap()).unwrap();
        assert_eq!((value["cost"]["status"].as_str(), rest), (Some("priced"), done));
    }
}
