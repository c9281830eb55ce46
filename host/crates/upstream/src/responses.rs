//! Reads the Responses API, streamed or plain.
//!
//! A stream ends with an event that repeats the whole response, its usage included; there is no `[DONE]`.

use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::account::{Account, ReportedError};
use crate::json;
use crate::openai::{Garbage, Verdict, unread};
use crate::usage;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<Item<'a>>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<Incomplete<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    summary: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
}

/// Reads one event of a stream.
pub(crate) fn read_event(
    data: &[u8],
    account: &mut Account,
    at: Instant,
) -> Result<Verdict, Garbage> {
    if data.trim_ascii() == b"[DONE]" {
        // Some servers add it.
        return Ok(Verdict::Last);
    }
    if account.ended {
        return Ok(Verdict::Drop);
    }
    let text = str::from_utf8(data).map_err(|_| Garbage)?;
    let Ok(event) = serde_json::from_str::<Event<'_>>(text) else { return unread(text, account) };
    let kind = event.kind.and_then(json::string).unwrap_or_default();
    match &*kind {
        "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
            if let Some(response) = event.response {
                note_response(response.get(), account, None)?;
            }
            account.ended = true;
            return Ok(Verdict::Last);
        }
        "error" => {
            let error = event.error.map_or(text, RawValue::get);
            account.error = Some(ReportedError::read(error));
            return Ok(Verdict::Last);
        }
        "response.created" | "response.in_progress" | "response.queued" => {
            if let Some(response) = event.response {
                note_response(response.get(), account, None)?;
            }
        }
        "response.output_item.added" => {
            // A call begins with its name; its arguments follow as deltas.
            if let Some(name) = event.item.and_then(|item| json::string(item.name?)) {
                account.output(&name, at);
            }
        }
        delta if delta.ends_with(".delta") && !delta.contains(".audio.") => {
            if let Some(text) = event.delta.and_then(json::string) {
                account.output(&text, at);
            }
        }
        _ => {}
    }
    Ok(Verdict::Pass)
}

/// Reads a plain answer.
pub(crate) fn read_whole(body: &[u8], account: &mut Account, at: Instant) -> Result<(), Garbage> {
    let text = str::from_utf8(body).map_err(|_| Garbage)?;
    note_response(text, account, Some(at))?;
    account.ended = true;
    Ok(())
}

/// Notes a response object; its output too if `output_at` says when it came.
fn note_response(
    text: &str,
    account: &mut Account,
    output_at: Option<Instant>,
) -> Result<(), Garbage> {
    let Ok(response) = serde_json::from_str::<Response<'_>>(text) else {
        return unread(text, account).map(drop);
    };
    account.identity(response.id, response.model, response.service_tier);
    account.choices = 1;
    let mut called = false;
    if let Some(output) = response.output {
        let read = json::each(output, |item: Item<'_>| {
            called |= item.kind.is_some_and(|kind| kind.get() == "\"function_call\"");
            if let Some(at) = output_at {
                item.note(account, at);
            }
        });
        account.unread_events += u64::from(read.is_err());
    }
    if let Some(error) = response.error {
        account.error = Some(ReportedError::read(error.get()));
    }
    let status = response.status.and_then(json::string);
    match status.as_deref() {
        Some("completed") => account.finished(if called { "tool_calls" } else { "stop" }),
        Some("incomplete") => {
            let reason = response.incomplete_details.and_then(|details| details.reason);
            let reason = reason.and_then(json::string);
            account.finished(match reason.as_deref() {
                None | Some("max_output_tokens") => "length",
                Some(other) => other,
            });
        }
        _ => {}
    }
    if let Some(told) = response.usage.and_then(usage::openai) {
        account.reported(told);
    }
    Ok(())
}

impl Item<'_> {
    fn note(&self, account: &mut Account, at: Instant) {
        for parts in [self.summary, self.content].into_iter().flatten() {
            let read = json::each(parts, |part: Part<'_>| {
                for text in [part.text, part.refusal].into_iter().flatten() {
                    account.output(&json::string(text).unwrap_or_default(), at);
                }
            });
            account.unread_events += u64::from(read.is_err());
        }
        for text in [self.name, self.arguments].into_iter().flatten() {
            account.output(&json::string(text).unwrap_or_default(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_with_what_a_plain_answer_is() {
        let response = r#"{"id":"resp_1","model":"gpt-4.1","status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":9,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":2}},"output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}"#;
        let (mut plain, mut streamed) = (Account::default(), Account::default());
        let at = Instant::now();
        read_whole(response.as_bytes(), &mut plain, at).unwrap();
        let created = r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt-4.1","status":"in_progress","usage":null}}"#;
        let delta = r#"{"type":"response.output_text.delta","delta":"Hi"}"#;
        let last = format!(r#"{{"type":"response.incomplete","response":{response}}}"#);
        for (event, verdict) in
            [(created, Verdict::Pass), (delta, Verdict::Pass), (&last, Verdict::Last)]
        {
            assert_eq!(read_event(event.as_bytes(), &mut streamed, at), Ok(verdict));
        }
        assert_eq!(plain, streamed);
        assert_eq!(plain.finish_reasons, ["length"]);
    }
}
