//! Streamed answers: server-sent events as OpenAI and vLLM send them.
//!
//! A chat's first delta, which only names the role, goes out together with the first text: load
//! tools take it for the first token. The last chunk says what the request used and cost; with
//! `stream_options.include_usage` that is the chunk without choices, else the one with the finish
//! reason. It and `[DONE]` follow [`AnswerEvent::Ended`], so by then the request is on record.
//!
//! An answer that fails in the middle ends with one event that holds `error`, on which OpenAI's
//! clients raise, and without `[DONE]`, so that nobody takes it for a whole one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tollgate_domain::record::{FinishReason, Operation};
use tollgate_gateway::{Answer, AnswerEvent, Ending};

use crate::account::{Account, Usage};
use crate::response::{Head, to_json};
use crate::{error, headers};

/// How long a stream may be silent before a comment shows that it is alive, to proxies and to us.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Sends the answer as it is made. Dropping the response drops the answer.
pub(crate) fn response(operation: Operation, answer: Answer, include_usage: bool) -> Response {
    let head = Head::new(operation, &answer);
    let (id, trace_id) = (head.id.clone(), head.trace_id);
    let events = events(answer, Chunks { head, include_usage, begun: false })
        .map(|data| Ok::<_, Infallible>(Event::default().data(data)));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    // Nginx would hold the events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers::set_ids(headers, &id, trace_id);
    response
}

/// The data of each event.
fn events(answer: Answer, chunks: Chunks) -> impl Stream<Item = String> {
    let log = answer.log_span();
    let start = (Some(answer), chunks, VecDeque::new(), log);
    stream::unfold(start, |(mut answer, mut chunks, mut ready, log)| async move {
        loop {
            if let Some(data) = ready.pop_front() {
                return Some((data, (answer, chunks, ready, log)));
            }
            match answer.as_mut()?.next().await {
                Some(AnswerEvent::Text(text)) => {
                    ready.extend(log.in_scope(|| chunks.text(&text)));
                }
                // Only answers of other servers have any; `forwarded` tells those.
                Some(AnswerEvent::Bytes(_)) => {}
                Some(AnswerEvent::Ended(ending)) => {
                    ready.extend(log.in_scope(|| chunks.end(&ending)));
                    answer = None;
                }
                None => {
                    ready.push_back(error::body(&chunks.head.cut_off(), None));
                    answer = None;
                }
            }
        }
    })
}

/// Makes chunks of an answer's pieces.
struct Chunks {
    head: Head,
    include_usage: bool,
    begun: bool,
}

impl Chunks {
    fn text(&mut self, text: &str) -> Vec<String> {
        let mut chunks = self.begin();
        chunks.push(match self.head.operation {
            Operation::Chat => self.chunk(Choice::delta(None, Some(text), None)),
            _ => self.chunk(Choice::text(text, None)),
        });
        chunks
    }

    fn end(&mut self, ending: &Ending) -> Vec<String> {
        let account = Account::new(&ending.tokens, &ending.cost, self.head.trace_id);
        let reason = match &ending.result {
            Ok(reason) => *reason,
            Err(failure) => {
                let failure = self.head.on_record(failure.clone());
                return vec![error::body(&failure, Some(&account))];
            }
        };
        let mut chunks = self.begin();
        let last = match self.head.operation {
            Operation::Chat => Choice::delta(None, None, reason),
            _ => Choice::text("", reason),
        };
        if self.include_usage {
            chunks.push(self.chunk(last));
            let usage = Usage::from(&ending.tokens);
            chunks.push(self.write(&[], Some(Some(usage)), Some(account)));
        } else {
            chunks.push(self.write(&[last], None, Some(account)));
        }
        chunks.push("[DONE]".to_owned());
        chunks
    }

    /// What comes before the first piece.
    fn begin(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.begun, true) || self.head.operation != Operation::Chat {
            return Vec::new();
        }
        vec![self.chunk(Choice::delta(Some("assistant"), Some(""), None))]
    }

    fn chunk(&self, choice: Choice<'_>) -> String {
        // Who asked for usage gets a null until it is known.
        self.write(&[choice], self.include_usage.then_some(None), None)
    }

    fn write(
        &self,
        choices: &[Choice<'_>],
        usage: Option<Option<Usage>>,
        account: Option<Account<'_>>,
    ) -> String {
        let object = match self.head.operation {
            Operation::Chat => "chat.completion.chunk",
            _ => "text_completion",
        };
        to_json(&Chunk {
            id: self.head.wire_id(),
            object,
            created: self.head.created,
            model: &self.head.model,
            choices,
            usage,
            account,
        })
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(flatten)]
    account: Option<Account<'a>>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl<'a> Choice<'a> {
    fn delta(
        role: Option<&'static str>,
        content: Option<&'a str>,
        reason: Option<FinishReason>,
    ) -> Self {
        Self { delta: Some(Delta { role, content }), ..Self::ended(reason) }
    }

    fn text(text: &'a str, reason: Option<FinishReason>) -> Self {
        Self { text: Some(text), ..Self::ended(reason) }
    }

    fn ended(reason: Option<FinishReason>) -> Self {
        let finish_reason = reason.map(FinishReason::name);
        Self { index: 0, delta: None, text: None, logprobs: None, finish_reason }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_domain::ErrorKind;
    use tollgate_gateway::Refusal;

    use super::*;
    use crate::response::tests::{ending, head};

    const ACCOUNT: &str = r#""prompt_tokens":12,"completion_tokens":3,"estimated_cost_usd":0.0000036,"cost":{"status":"priced","amount":"0.0000036","currency":"USD","plugin":{"name":"tollgate/cost-per-token","version":"0.1.0","digest":"ab12"}},"trace_id":"00000000000000000000000000000007""#;

    fn chunks(operation: Operation, include_usage: bool) -> Chunks {
        Chunks { head: head(operation), include_usage, begun: false }
    }

    /// The chunks without the part that all of them share.
    fn told(
        mut chunks: Chunks,
        texts: &[&str],
        result: Result<FinishReason, Refusal>,
    ) -> Vec<String> {
        let mut written = Vec::new();
        for text in texts {
            written.extend(chunks.text(text));
        }
        written.extend(chunks.end(&ending(result)));
        let shared = match chunks.head.operation {
            Operation::Chat => {
                r#"{"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"mistral-7b","choices":"#
            }
            _ => {
                r#"{"id":"cmpl-r1","object":"text_completion","created":1700000000,"model":"mistral-7b","choices":"#
            }
        };
        written.iter().map(|chunk| chunk.strip_prefix(shared).unwrap_or(chunk).to_owned()).collect()
    }

    #[test]
    fn a_chat_streams_role_then_text_then_the_reason() {
        let told = told(chunks(Operation::Chat, false), &["Hi", "\n"], Ok(FinishReason::Stop));
        let delta = |delta: &str| {
            format!(r#"[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]}}"#)
        };
        assert_eq!(
            told,
            [
                delta(r#"{"role":"assistant","content":""}"#),
                delta(r#"{"content":"Hi"}"#),
                delta(r#"{"content":"\n"}"#),
                format!(
                    r#"[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}],{ACCOUNT}}}"#
                ),
                "[DONE]".to_owned(),
            ]
        );
    }

    #[test]
    fn usage_comes_last_and_without_choices() {
        let told = told(chunks(Operation::TextCompletion, true), &["Hi"], Ok(FinishReason::Length));
        assert_eq!(
            told,
            [
                r#"[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null}],"usage":null}"#
                    .to_owned(),
                r#"[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}"#
                    .to_owned(),
                format!(
                    r#"[],"usage":{{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{{"cached_tokens":4}},"completion_tokens_details":{{"reasoning_tokens":0}}}},{ACCOUNT}}}"#
                ),
                "[DONE]".to_owned(),
            ]
        );
    }

    #[test]
    fn an_empty_answer_still_has_its_role() {
        let told = told(chunks(Operation::Chat, true), &[], Ok(FinishReason::Stop));
        assert_eq!(told.len(), 4);
        assert!(told[0].contains("assistant"), "{}", told[0]);
    }

    #[test]
    fn a_failure_ends_the_stream_without_done() {
        let failure = Refusal::new(ErrorKind::Backend, "The engine stopped.");
        let told = told(chunks(Operation::TextCompletion, true), &["Hi"], Err(failure));
        let error = r#"{"message":"The engine stopped.","type":"server_error","param":null,"code":"backend_error"}"#;
        assert_eq!(told.len(), 2);
        assert_eq!(told[1], format!(r#"{{"error":{error},"request_id":"r1",{ACCOUNT}}}"#));
    }
}
