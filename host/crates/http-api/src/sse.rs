//! Streamed answers: server-sent events as OpenAI and vLLM send them.
//!
//! A chat's first delta, which only names the role, goes out together with the first text: load
//! tools take it for the first token. Several choices come as they are made, each piece with the
//! `index` of its choice. The end of one is held back until more comes, since the last chunk says what the request used and cost; with
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
use tollgate_gateway::{Answer, AnswerEvent, Ending, Piece};

use crate::account::{Account, Usage};
use crate::logprobs::{self, Logprobs};
use crate::response::{Head, to_json};
use crate::wire::Wire;
use crate::{error, headers};

/// How long a stream may be silent before a comment shows that it is alive, to proxies and to us.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Sends the answer as it is made. Dropping the response drops the answer.
pub(crate) fn response(
    operation: Operation,
    choices: usize,
    answer: Answer,
    wire: Wire,
) -> Response {
    let head = Head::new(operation, &answer);
    let (id, trace_id) = (head.id.clone(), head.trace_id);
    let events = events(answer, Chunks::new(head, choices, wire))
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
                Some(AnswerEvent::Piece(piece)) => {
                    ready.extend(log.in_scope(|| chunks.piece(piece)));
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
    wire: Wire,
    choices: Vec<Begun>,
    /// The end of a choice, which may be the last chunk.
    held: Option<Piece>,
}

/// What has gone out of a choice.
#[derive(Clone, Copy, Default)]
struct Begun {
    role: bool,
    logprobs: logprobs::Writer,
}

impl Chunks {
    fn new(head: Head, choices: usize, wire: Wire) -> Self {
        Self { head, wire, choices: vec![Begun::default(); choices], held: None }
    }

    fn piece(&mut self, piece: Piece) -> Vec<String> {
        let mut chunks = self.release();
        if piece.finish_reason.is_some() {
            self.held = Some(piece);
        } else {
            chunks.extend(self.role(piece.choice));
            chunks.push(self.told(piece, None));
        }
        chunks
    }

    fn end(&mut self, ending: &Ending) -> Vec<String> {
        let account = Account::new(&ending.tokens, &ending.cost, self.head.trace_id);
        if let Err(failure) = &ending.result {
            let failure = self.head.on_record(failure.clone());
            return vec![error::body(&failure, Some(&account))];
        }
        let mut chunks = Vec::new();
        if self.wire.include_usage {
            chunks.extend(self.release());
            let usage = Usage::from(&ending.tokens);
            chunks.push(self.write(&[], Some(Some(usage)), Some(account)));
        } else if let Some(last) = self.held.take() {
            chunks.extend(self.role(last.choice));
            chunks.push(self.told(last, Some(account)));
        }
        chunks.push("[DONE]".to_owned());
        chunks
    }

    /// The end that was held back.
    fn release(&mut self) -> Vec<String> {
        let Some(piece) = self.held.take() else { return Vec::new() };
        let mut chunks = self.role(piece.choice);
        chunks.push(self.told(piece, None));
        chunks
    }

    /// What comes before a choice's first piece.
    fn role(&mut self, choice: usize) -> Vec<String> {
        let Some(begun) = self.choices.get_mut(choice) else { return Vec::new() };
        if std::mem::replace(&mut begun.role, true) || self.head.operation != Operation::Chat {
            return Vec::new();
        }
        let delta = Some(Delta { role: Some("assistant"), content: Some("") });
        vec![self.chunk(&Choice { delta, ..Choice::of(choice) }, None)]
    }

    fn told(&mut self, piece: Piece, account: Option<Account<'_>>) -> String {
        let Piece { choice, text, tokens, prompt, finish_reason, .. } = piece;
        let tokens = self.wire.echoed(&prompt).into_iter().chain(tokens).collect();
        let begun = self.choices.get_mut(choice);
        let logprobs = begun.and_then(|begun| begun.logprobs.write(self.head.operation, tokens));
        let (delta, text) = match self.head.operation {
            Operation::Chat => {
                let content =
                    (finish_reason.is_none() || !text.is_empty()).then_some(text.as_str());
                (Some(Delta { role: None, content }), None)
            }
            _ => (None, Some(text.as_str())),
        };
        let finish_reason = finish_reason.map(FinishReason::name);
        self.chunk(&Choice { index: choice, delta, text, logprobs, finish_reason }, account)
    }

    fn chunk(&self, choice: &Choice<'_>, account: Option<Account<'_>>) -> String {
        // Who asked for usage gets a null until it is known.
        self.write(std::slice::from_ref(choice), self.wire.include_usage.then_some(None), account)
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
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Choice<'_> {
    fn of(index: usize) -> Self {
        Self { index, delta: None, text: None, logprobs: None, finish_reason: None }
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
        Chunks::new(head(operation), 1, Wire { include_usage, ..Wire::default() })
    }

    fn piece(choice: usize, text: &str, finish_reason: Option<FinishReason>) -> Piece {
        Piece { choice, text: text.to_owned(), finish_reason, ..Piece::default() }
    }

    #[test]
    fn choices_come_as_they_are_made_and_the_last_end_is_the_last_chunk() {
        let mut chunks = Chunks::new(head(Operation::Chat), 2, Wire::default());
        let mut written = Vec::new();
        for (choice, text, reason) in [
            (1, "b", None),
            (1, "", Some(FinishReason::Stop)),
            (0, "a", None),
            (0, "", Some(FinishReason::Length)),
        ] {
            written.extend(chunks.piece(piece(choice, text, reason)));
        }
        assert_eq!(written.len(), 5, "the last end is held back");
        written.extend(chunks.end(&ending(Ok(FinishReason::Length))));
        let told: Vec<serde_json::Value> = written
            .iter()
            .filter(|chunk| *chunk != "[DONE]")
            .map(|chunk| serde_json::from_str(chunk).unwrap())
            .collect();
        let choices: Vec<String> = told
            .iter()
            .map(|chunk| {
                let choice = &chunk["choices"][0];
                format!("{}{}{}", choice["index"], choice["delta"], choice["finish_reason"])
            })
            .collect();
        assert_eq!(
            choices,
            [
                r#"1{"role":"assistant","content":""}null"#,
                r#"1{"content":"b"}null"#,
                r#"1{}"stop""#,
                r#"0{"role":"assistant","content":""}null"#,
                r#"0{"content":"a"}null"#,
                r#"0{}"length""#,
            ]
        );
        assert!(told[5].get("cost").is_some() && told[2].get("cost").is_none());
    }

    /// The chunks without the part that all of them share.
    fn told(
        mut chunks: Chunks,
        texts: &[&str],
        result: Result<FinishReason, Refusal>,
    ) -> Vec<String> {
        let mut written = Vec::new();
        for text in texts {
            written.extend(chunks.piece(piece(0, text, None)));
        }
        if let Ok(reason) = result {
            written.extend(chunks.piece(piece(0, "", Some(reason))));
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
