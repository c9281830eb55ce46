//! A message as the answer to a chat completion, and an error as OpenAI has it.

use std::borrow::Cow;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_domain::TokenUsage;

use crate::account::{Account, ReportedError};
use crate::anthropic::{CALLS, finish_reason};
use crate::json;
use crate::openai::Garbage;
use crate::reading::read_error;
use crate::usage::AnthropicCounts;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub name: Option<&'a RawValue>,
    #[serde(borrow)]
    pub input: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    message: Answer<'a>,
    logprobs: Option<()>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call<'a>>,
}

#[derive(Serialize)]
struct Call<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: Cow<'a, str>,
    arguments: &'a str,
}

/// Usage in OpenAI's words: what is cached is inside the prompt.
#[derive(Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: Details,
}

#[derive(Serialize)]
struct Details {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

impl From<TokenUsage> for Usage {
    fn from(usage: TokenUsage) -> Self {
        Self {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.total(),
            prompt_tokens_details: Details {
                cached_tokens: usage.input_cache_read,
                cache_write_tokens: usage.input_cache_write,
            },
        }
    }
}

/// The chat completion that says what the message says.
pub(crate) fn translate(body: &[u8], account: &mut Account, at: Instant) -> Result<Bytes, Garbage> {
    let message: Message<'_> = serde_json::from_slice(body).map_err(|_| Garbage)?;
    account.identity(message.id, message.model, message.usage.and_then(service_tier));
    account.choices = 1;
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    let mut too_many = false;
    let read = json::each::<Block<'_>>(message.content, |block| {
        let said =
            |raw: Option<&RawValue>| raw.and_then(json::string).unwrap_or_default().into_owned();
        match block.kind.and_then(json::string).as_deref() {
            Some("text") => {
                let piece = said(block.text);
                account.output(&piece, at);
                text.push_str(&piece);
            }
            Some("thinking") => {
                let piece = said(block.thinking);
                account.output(&piece, at);
                reasoning.push_str(&piece);
            }
            Some("tool_use") if calls.len() >= CALLS => too_many = true,
            Some("tool_use") => {
                let name = block.name.and_then(json::string).unwrap_or_default();
                let arguments = block.input.map_or("{}", RawValue::get);
                account.output(&name, at);
                account.output(arguments, at);
                calls.push(Call {
                    id: block.id.and_then(json::string).unwrap_or_default(),
                    r#type: "function",
                    function: Function { name, arguments },
                });
            }
            _ => {}
        }
    });
    if read.is_err() || too_many {
        return Err(Garbage);
    }
    let stopped = message.stop_reason.and_then(json::string);
    let reason = finish_reason(stopped.as_deref().unwrap_or_default());
    account.finished(reason);
    let mut counts = AnthropicCounts::default();
    if let Some(usage) = message.usage {
        counts.merge(usage);
    }
    if let Some(told) = counts.told() {
        account.reported(told);
    }
    account.ended = true;
    let silent = text.is_empty() && !calls.is_empty();
    let answer = Answer {
        role: "assistant",
        content: (!silent).then_some(text),
        refusal: None,
        reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
        tool_calls: calls,
    };
    let completion = Completion {
        id: account.response_id.as_deref().unwrap_or_default(),
        object: "chat.completion",
        created: now(),
        model: account.response_model.as_deref().unwrap_or_default(),
        choices: [Choice { index: 0, message: answer, logprobs: None, finish_reason: reason }],
        usage: account.usage.map(Usage::from),
    };
    serde_json::to_vec(&completion).map(Bytes::from).map_err(|_| Garbage)
}

/// The error, and OpenAI's form of it.
pub(crate) fn translate_error(body: &[u8]) -> (ReportedError, Bytes) {
    let error = read_error(body);
    let written = error.written("api_error");
    (error, written.into())
}

/// `service_tier` stands in Anthropic's usage.
pub(super) fn service_tier(usage: &RawValue) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Tier<'a> {
        #[serde(borrow)]
        service_tier: Option<&'a RawValue>,
    }
    serde_json::from_str::<Tier<'_>>(usage.get()).ok()?.service_tier
}

/// `created`, since Anthropic says nothing of it.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_a_completion() {
        let body = br#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[
            {"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"Hi"},
            {"type":"tool_use","id":"t1","name":"f","input":{"a": 1.50}}],"stop_reason":"tool_use",
            "usage":{"input_tokens":5,"cache_read_input_tokens":7,"cache_creation_input_tokens":2,"output_tokens":9,"service_tier":"standard"}}"#;
        let mut account = Account::default();
        let translated = translate(body, &mut account, Instant::now()).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&translated).unwrap();
        value.as_object_mut().unwrap().remove("created").unwrap();
        let expected = serde_json::json!({
            "id":"msg_1","object":"chat.completion","model":"claude-x",
            "choices":[{"index":0,"logprobs":null,"finish_reason":"tool_calls","message":{
                "role":"assistant","content":"Hi","refusal":null,"reasoning_content":"hm",
                "tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\": 1.50}"}}]}}],
            "usage":{"prompt_tokens":14,"completion_tokens":9,"total_tokens":23,
                "prompt_tokens_details":{"cached_tokens":7,"cache_write_tokens":2}},
        });
        assert_eq!(value, expected);
        assert_eq!(account.service_tier.as_deref(), Some("standard"));
        assert_eq!(account.output_chars, 2 + 2 + 1 + 11);
    }

    #[test]
    fn errors_have_openais_form() {
        let (error, body) = translate_error(
            br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        );
        assert_eq!(error.kind.as_deref(), Some("overloaded_error"));
        assert_eq!(
            body,
            r#"{"error":{"message":"Overloaded","type":"overloaded_error","param":null,"code":null}}"#
        );
        assert!(translate_error(b"<html>").0.message.contains("<html>"));
    }
}
