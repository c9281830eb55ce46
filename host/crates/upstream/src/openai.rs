//! Reads chat completions, completions and embeddings, streamed or plain: what goes on the account, and what of a stream the
//! client did not ask for.

use std::ops::Range;
use std::time::Instant;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::account::{Account, ReportedError};
use crate::json;
use crate::usage::{self, Timings, Told};

/// What an upstream sent is not what it said it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbage;

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes out as it came.
    Pass,
    /// It goes out without this part of its data.
    Cut(Range<usize>),
    /// It does not go out.
    Drop,
    /// It ends the answer.
    Last,
}

/// Reads one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkReader {
    /// Whether usage is for us alone.
    pub strip_usage: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "json::present")]
    usage: Option<&'a RawValue>,
    timings: Option<Timings>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    index: Option<u32>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl ChunkReader {
    /// Reads one event of a stream.
    pub fn read(
        self,
        name: Option<&[u8]>,
        data: &[u8],
        account: &mut Account,
        at: Instant,
    ) -> Result<Verdict, Garbage> {
        if account.ended {
            return Ok(Verdict::Drop);
        }
        if data.trim_ascii() == b"[DONE]" {
            account.ended = true;
            return Ok(Verdict::Last);
        }
        let text = str::from_utf8(data).map_err(|_| Garbage)?;
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(text) else {
            return unread(text, account);
        };
        if note_error(name, &chunk, text, account) {
            return Ok(Verdict::Last);
        }
        let choices = chunk.note(account, at);
        Ok(self.verdict(&chunk, choices, data))
    }

    fn verdict(self, chunk: &Chunk<'_>, choices: usize, data: &[u8]) -> Verdict {
        let Some(usage) = chunk.usage else { return Verdict::Pass };
        let only_usage = choices == 0 && !json::is_null(usage);
        match (only_usage, self.strip_usage) {
            (true, true) => Verdict::Drop,
            (true, false) => Verdict::Last,
            (false, false) => Verdict::Pass,
            (false, true) => json::place(data, usage)
                .and_then(|value| json::member(data, "usage", value))
                .map_or(Verdict::Pass, Verdict::Cut),
        }
    }
}

/// Reads a plain answer.
pub(crate) fn read_whole(body: &[u8], account: &mut Account, at: Instant) -> Result<(), Garbage> {
    let text = str::from_utf8(body).map_err(|_| Garbage)?;
    match serde_json::from_str::<Chunk<'_>>(text) {
        Ok(chunk) if note_error(None, &chunk, text, account) => {}
        Ok(chunk) => {
            chunk.note(account, at);
        }
        Err(_) => {
            unread(text, account)?;
        }
    }
    account.ended = true;
    Ok(())
}

/// JSON of an unknown shape passes, anything else does not.
pub(crate) fn unread(text: &str, account: &mut Account) -> Result<Verdict, Garbage> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Garbage)?;
    account.unread_events += 1;
    Ok(Verdict::Pass)
}

/// Whether it is an error, which is then on the account.
fn note_error(name: Option<&[u8]>, chunk: &Chunk<'_>, text: &str, account: &mut Account) -> bool {
    let error = match chunk.error {
        Some(error) => error.get(),
        None if name == Some(b"error") => text,
        None if chunk.object.is_some_and(|object| object.get() == "\"error\"") => text,
        None => return false,
    };
    account.error = Some(ReportedError::read(error));
    true
}

impl Chunk<'_> {
    /// How many choices it has. Those of a shape that nobody knows are one.
    fn note(&self, account: &mut Account, at: Instant) -> usize {
        account.identity(self.id, self.model, self.service_tier);
        let choices = self.choices.map_or(Ok(0), |choices| {
            json::each(choices, |choice: Choice<'_>| choice.note(account, at))
        });
        let choices = choices.unwrap_or_else(|_| {
            account.unread_events += 1;
            1
        });
        let reported = self.usage.and_then(usage::openai);
        let reported = match self.timings {
            None => reported,
            Some(timings) => {
                account.phases = timings.phases().or(account.phases);
                let before = account.usage;
                let before = before.map(|usage| Told { usage, output: account.output_reported });
                timings.complete(reported.or(before))
            }
        };
        if let Some(mut told) = reported {
            // What only `timings` told before is still so.
            if let Some(before) = account.usage
                && told.usage.input_cache_read == 0
                && before.input == told.usage.input
            {
                told.usage.input_cache_read = before.input_cache_read;
            }
            account.reported(told);
        }
        choices
    }
}

impl Choice<'_> {
    fn note(&self, account: &mut Account, at: Instant) {
        let index = self.index.unwrap_or_default();
        account.choices = account.choices.max(index.saturating_add(1));
        for message in [&self.delta, &self.message].into_iter().flatten() {
            message.note(account, at);
        }
        note_text(self.text, account, at);
        if let Some(reason) = self.finish_reason.and_then(json::string) {
            account.finished(&reason);
        }
    }
}

impl Message<'_> {
    fn note(&self, account: &mut Account, at: Instant) {
        note_text(self.reasoning_content.or(self.reasoning), account, at);
        note_text(self.content, account, at);
        note_text(self.refusal, account, at);
        if let Some(calls) = self.tool_calls {
            let called = json::each(calls, |call: ToolCall<'_>| {
                if let Some(function) = &call.function {
                    function.note(account, at);
                }
            });
            account.unread_events += u64::from(called.is_err());
        }
        if let Some(function) = &self.function_call {
            function.note(account, at);
        }
    }
}

impl Function<'_> {
    fn note(&self, account: &mut Account, at: Instant) {
        note_text(self.name, account, at);
        note_text(self.arguments, account, at);
    }
}

fn note_text(text: Option<&RawValue>, account: &mut Account, at: Instant) {
    if let Some(text) = text.and_then(json::string) {
        account.output(&text, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_domain::TokenUsage;

    const STRIP: ChunkReader = ChunkReader { strip_usage: true };
    const ASKED: ChunkReader = ChunkReader { strip_usage: false };

    #[test]
    fn only_what_was_not_asked_for_is_taken_away() {
        let text = r#"{"id":"a","choices":[{"index":0,"delta":{"content":"x"}}],"usage":null}"#;
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let continuous = r#"{"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let filter = r#"{"choices":[],"prompt_filter_results":[]}"#;
        let cases = [
            (STRIP, text, Verdict::Cut(57..70)),
            (ASKED, text, Verdict::Pass),
            (STRIP, usage, Verdict::Drop),
            (ASKED, usage, Verdict::Last),
            (STRIP, continuous, Verdict::Cut(35..85)),
            (STRIP, filter, Verdict::Pass),
            (STRIP, "[DONE]", Verdict::Last),
            (STRIP, r#"{"choices":"what?"}"#, Verdict::Pass),
            (STRIP, r#"{"error":{"message":"boom"}}"#, Verdict::Last),
            (STRIP, r#"{"object":"error","message":"boom"}"#, Verdict::Last),
        ];
        for (reader, data, expected) in cases {
            let mut account = Account::default();
            let verdict = reader.read(None, data.as_bytes(), &mut account, Instant::now());
            assert_eq!(verdict, Ok(expected), "{data}");
            assert_eq!(account.error.is_some(), data.contains("boom"));
        }
        let mut account = Account::default();
        assert_eq!(STRIP.read(None, b"<html>", &mut account, Instant::now()), Err(Garbage));
    }

    #[test]
    fn the_last_usage_counts() {
        let mut account = Account::default();
        for output in 1..4 {
            let data = format!(
                r#"{{"choices":[{{"index":1,"delta":{{"content":"x"}}}}],"usage":{{"prompt_tokens":5,"completion_tokens":{output}}}}}"#
            );
            STRIP.read(None, data.as_bytes(), &mut account, Instant::now()).unwrap();
        }
        let expected = TokenUsage { input: 5, output: 3, ..TokenUsage::default() };
        assert_eq!(account.usage, Some(expected));
        assert!(account.output_reported && account.choices == 2 && account.output_chars == 3);
    }
}
