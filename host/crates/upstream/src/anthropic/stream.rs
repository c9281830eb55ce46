//! A stream of a message's events as the chunks of a chat completion.

use std::borrow::Cow;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::account::{Account, ReportedError};
use crate::anthropic::answer::{Block, Usage, now, service_tier};
use crate::anthropic::{CALLS, finish_reason};
use crate::json;
use crate::openai::{Garbage, unread};
use crate::usage::AnthropicCounts;

/// What it knows of the stream so far.
#[derive(Debug)]
pub(crate) struct Translator {
    /// Whether the client asked for usage.
    usage_asked: bool,
    counts: AnthropicCounts,
    created: u64,
    /// Anthropic's index of each call; its place here is OpenAI's.
    calls: Vec<u64>,
}

/// What becomes of one event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Translated {
    pub body: Vec<u8>,
    /// What ends the answer.
    pub last: Vec<u8>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<Start<'a>>,
    index: Option<u64>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Said<'a>,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Call<'a>; 1]>,
}

#[derive(Serialize)]
struct Call<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    arguments: Cow<'a, str>,
}

impl Translator {
    /// `usage_asked`: whether the client asked for usage.
    pub fn new(usage_asked: bool) -> Self {
        Self::at(usage_asked, now())
    }

    /// The same, `created` at that second.
    pub fn at(usage_asked: bool, created: u64) -> Self {
        Self { usage_asked, counts: AnthropicCounts::default(), created, calls: Vec::new() }
    }

    /// Reads the data of one event.
    pub fn read(
        &mut self,
        data: &[u8],
        account: &mut Account,
        at: Instant,
    ) -> Result<Translated, Garbage> {
        let mut out = Translated::default();
        if account.ended {
            return Ok(out);
        }
        let text = str::from_utf8(data).map_err(|_| Garbage)?;
        let Ok(event) = serde_json::from_str::<Event<'_>>(text) else {
            return unread(text, account).map(|_| out);
        };
        match event.kind.and_then(json::string).as_deref() {
            Some("message_start") => self.start(event, account, &mut out)?,
            Some("content_block_start") => {
                if let Some(block) = event.content_block {
                    self.block(event.index, &block, account, at, &mut out)?;
                }
            }
            Some("content_block_delta") => {
                if let Some(delta) = event.delta {
                    self.delta(event.index, &delta, account, at, &mut out)?;
                }
            }
            Some("message_delta") => {
                if let Some(usage) = event.usage {
                    self.counts.merge(usage);
                    if let Some(told) = self.counts.told() {
                        account.reported(told);
                    }
                }
                let stopped = event.delta.and_then(|delta| json::string(delta.stop_reason?));
                if let Some(reason) = stopped {
                    let reason = finish_reason(&reason);
                    account.finished(reason);
                    self.say(account, Said::default(), Some(reason), &mut out.body)?;
                }
            }
            Some("message_stop") => {
                account.ended = true;
                if let (true, Some(usage)) = (self.usage_asked, account.usage) {
                    self.chunk(account, &[], Some(usage.into()), &mut out.last)?;
                }
                out.last.extend_from_slice(b"data: [DONE]\n\n");
            }
            Some("error") => {
                let error = ReportedError::read(event.error.map_or(text, RawValue::get));
                let written = error.written("api_error");
                out.last.extend_from_slice(format!("data: {written}\n\n").as_bytes());
                account.error = Some(error);
            }
            Some("ping") => out.body.extend_from_slice(b": ping\n\n"),
            // `content_block_stop`, and whatever comes to be.
            _ => {}
        }
        Ok(out)
    }

    fn start(
        &mut self,
        event: Event<'_>,
        account: &mut Account,
        out: &mut Translated,
    ) -> Result<(), Garbage> {
        let Some(message) = event.message else { return Ok(()) };
        account.identity(message.id, message.model, message.usage.and_then(service_tier));
        account.choices = 1;
        if let Some(usage) = message.usage {
            self.counts.merge(usage);
            // The input is known; of the output it says nothing yet.
            account.usage = self.counts.told().map(|told| told.usage);
        }
        let said =
            Said { role: Some("assistant"), content: Some(Cow::Borrowed("")), ..Said::default() };
        self.say(account, said, None, &mut out.body)
    }

    fn block(
        &mut self,
        index: Option<u64>,
        block: &Block<'_>,
        account: &mut Account,
        at: Instant,
        out: &mut Translated,
    ) -> Result<(), Garbage> {
        if block.kind.is_none_or(|kind| kind.get() != "\"tool_use\"") {
            // Text and thinking begin empty; if ever they do not, it is said like any other.
            let delta = Delta {
                text: block.text,
                thinking: block.thinking,
                partial_json: None,
                stop_reason: None,
            };
            return self.delta(index, &delta, account, at, out);
        }
        if self.calls.len() >= CALLS {
            return Err(Garbage);
        }
        self.calls.push(index.unwrap_or_default());
        let name = block.name.and_then(json::string).unwrap_or_default();
        account.output(&name, at);
        let call = Call {
            index: self.calls.len() - 1,
            id: block.id.and_then(json::string),
            r#type: Some("function"),
            function: Function { name: Some(name), arguments: Cow::Borrowed("") },
        };
        let said = Said { tool_calls: Some([call]), ..Said::default() };
        self.say(account, said, None, &mut out.body)
    }

    fn delta(
        &self,
        index: Option<u64>,
        delta: &Delta<'_>,
        account: &mut Account,
        at: Instant,
        out: &mut Translated,
    ) -> Result<(), Garbage> {
        let text = |raw: Option<&'_ RawValue>| {
            raw.and_then(json::string).filter(|text| !text.is_empty()).map(Cow::into_owned)
        };
        let said = if let Some(text) = text(delta.text) {
            account.output(&text, at);
            Said { content: Some(text.into()), ..Said::default() }
        } else if let Some(text) = text(delta.thinking) {
            account.output(&text, at);
            Said { reasoning_content: Some(text.into()), ..Said::default() }
        } else if let Some(arguments) = text(delta.partial_json)
            && let Some(call) = self.calls.iter().rposition(|call| Some(*call) == index)
        {
            account.output(&arguments, at);
            let function = Function { name: None, arguments: arguments.into() };
            let call = Call { index: call, id: None, r#type: None, function };
            Said { tool_calls: Some([call]), ..Said::default() }
        } else {
            // Signatures, citations, what the server's own tools are told.
            return Ok(());
        };
        self.say(account, said, None, &mut out.body)
    }

    fn say(
        &self,
        account: &Account,
        delta: Said<'_>,
        finish_reason: Option<&'static str>,
        out: &mut Vec<u8>,
    ) -> Result<(), Garbage> {
        let choice = Choice { index: 0, delta, logprobs: None, finish_reason };
        self.chunk(account, &[choice], None, out)
    }

    fn chunk(
        &self,
        account: &Account,
        choices: &[Choice<'_>],
        usage: Option<Usage>,
        out: &mut Vec<u8>,
    ) -> Result<(), Garbage> {
        let chunk = Chunk {
            id: account.response_id.as_deref().unwrap_or_default(),
            object: "chat.completion.chunk",
            created: self.created,
            model: account.response_model.as_deref().unwrap_or_default(),
            choices,
            usage,
        };
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &chunk).map_err(|_| Garbage)?;
        out.extend_from_slice(b"\n\n");
        Ok(())
    }
}
