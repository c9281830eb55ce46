//! What an answer turns out to have been, kept up to date while it passes.

use std::borrow::Cow;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use tollgate_domain::TokenUsage;

use crate::json;
use crate::usage::{ReportedPhases, Told};

/// Most bytes of output that are kept for counting.
const KEPT_OUTPUT: usize = 4 << 20;
/// Most characters of a name, an id or a message of an upstream.
const KEPT_NAME: usize = 256;
const KEPT_MESSAGE: usize = 1024;
/// Most reasons for an end.
const KEPT_REASONS: usize = 256;

/// What is known of an answer so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// As the upstream reported it last, with the domain's meaning.
    pub usage: Option<TokenUsage>,
    /// Whether the output counts of `usage` cover all that has come. If not, whoever needs them counts
    /// [`Self::output_text`].
    pub output_reported: bool,
    /// The model that the upstream says has answered.
    pub response_model: Option<String>,
    /// The upstream's id of the answer.
    pub response_id: Option<String>,
    /// The tier that served, in the upstream's words.
    pub service_tier: Option<String>,
    /// Why generation ended, in OpenAI's words, in the order in which choices ended.
    pub finish_reasons: Vec<String>,
    /// When the first text, reasoning or tool call arrived.
    pub first_token_at: Option<Instant>,
    /// When the latest did.
    pub last_token_at: Option<Instant>,
    /// All text, reasoning, refusals and tool calls so far, in the order of arrival. Empty once the upstream has reported what
    /// they are in tokens, unless the request asked to keep it. At most 4 MiB.
    pub output_text: String,
    /// Characters that came after those of `output_text`, for which there was no room.
    pub output_beyond: u64,
    /// Tokens of output that have been reported and are not in `output_text` any more.
    pub output_covered: u64,
    /// Characters of output, all of them.
    pub output_chars: u64,
    /// Choices that the answer has.
    pub choices: u32,
    /// Whether the answer is whole: `[DONE]`, `message_stop`, a final event, or the end of a plain answer.
    pub ended: bool,
    /// The error that the upstream reported, in a stream or as an answer.
    pub error: Option<ReportedError>,
    /// How long the upstream says that it worked, where it does.
    pub phases: Option<ReportedPhases>,
    /// Events whose JSON has a shape that nobody knows. They passed, and nothing of them is counted.
    pub unread_events: u64,
    /// Whether to keep `output_text` also after the usage is known.
    pub(crate) keep_output: bool,
}

/// An error in the upstream's words, shortened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedError {
    /// What happened.
    pub message: String,
    /// `type` of the error object.
    pub kind: Option<String>,
    /// `code` of the error object.
    pub code: Option<String>,
}

#[derive(Deserialize)]
struct WrittenError<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<&'a RawValue>,
}

impl ReportedError {
    /// Reads an error object, or whatever stands in its place.
    pub(crate) fn read(value: &str) -> Self {
        let text = |raw: Option<&RawValue>, most| {
            let raw = raw.filter(|raw| !json::is_null(raw))?;
            Some(shortened(&json::string(raw).unwrap_or(Cow::Borrowed(raw.get())), most))
        };
        let said = |message: &str| Self {
            message: shortened(message.trim(), KEPT_MESSAGE),
            ..Self::default()
        };
        // What is no object, as a list is none, has no fields.
        let object = value.trim_start().starts_with('{');
        match serde_json::from_str::<WrittenError<'_>>(value) {
            Ok(WrittenError { message, kind, code }) if object => Self {
                message: text(message, KEPT_MESSAGE).unwrap_or_default(),
                kind: text(kind, KEPT_NAME),
                code: text(code, KEPT_NAME),
            },
            _ => said(&serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned())),
        }
    }

    /// An error object in OpenAI's form; `kind`, if it names none.
    pub(crate) fn written(&self, kind: &str) -> String {
        let message = match self.message.as_str() {
            "" => "The backend gave no reason.",
            message => message,
        };
        serde_json::json!({"error": {
            "message": message,
            "type": self.kind.as_deref().unwrap_or(kind),
            "param": null,
            "code": self.code,
        }})
        .to_string()
    }
}

impl Account {
    /// Whether nothing counts any more that comes now.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.error.is_some()
    }

    /// Some output: a piece of text, of reasoning or of a tool call.
    pub(crate) fn output(&mut self, text: &str, at: Instant) {
        if text.is_empty() {
            return;
        }
        self.first_token_at.get_or_insert(at);
        self.last_token_at = Some(at);
        let characters = bytecount(text);
        self.output_chars = self.output_chars.saturating_add(characters);
        self.output_reported = false;
        let room = KEPT_OUTPUT.saturating_sub(self.output_text.len());
        if text.len() <= room && self.output_beyond == 0 {
            self.output_text.push_str(text);
        } else {
            self.output_beyond = self.output_beyond.saturating_add(characters);
        }
    }

    /// What the upstream reported of everything that has come so far. Of an answer that has no choices, as embeddings have
    /// none, there is no output to be told.
    pub(crate) fn reported(&mut self, told: Told) {
        self.usage = Some(told.usage);
        self.output_reported = told.output || self.choices == 0;
        if self.output_reported && !self.keep_output {
            self.output_text = String::new();
            self.output_beyond = 0;
            self.output_covered = told.usage.output;
        }
    }

    /// Notes why a choice ended.
    pub(crate) fn finished(&mut self, reason: &str) {
        if self.finish_reasons.len() < KEPT_REASONS {
            self.finish_reasons.push(shortened(reason, KEPT_NAME));
        }
    }

    /// Notes who answers. The first word holds for id and model; the tier is known for certain at the end.
    pub(crate) fn identity(
        &mut self,
        id: Option<&RawValue>,
        model: Option<&RawValue>,
        tier: Option<&RawValue>,
    ) {
        let name = |raw: &RawValue| {
            json::string(raw).filter(|s| !s.is_empty()).map(|s| shortened(&s, KEPT_NAME))
        };
        if self.response_id.is_none() {
            self.response_id = id.and_then(name);
        }
        if self.response_model.is_none() {
            self.response_model = model.and_then(name);
        }
        if let Some(tier) = tier
            && self
                .service_tier
                .as_deref()
                .is_none_or(|known| tier.get().trim_matches('"') != known)
        {
            self.service_tier = name(tier).or(self.service_tier.take());
        }
    }
}

/// Characters of a text, counted by its bytes that begin one.
fn bytecount(text: &str) -> u64 {
    let begin = text.bytes().filter(|byte| (*byte as i8) >= -0x40).count();
    u64::try_from(begin).unwrap_or(u64::MAX)
}

/// What is kept of a name or a message of a server: its first characters, without control characters. It goes into
/// attributes and answers, where `…` and what is written out would not be the server's words.
fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_until_it_is_counted() {
        let mut account = Account::default();
        let now = Instant::now();
        account.output("", now);
        assert_eq!(account.first_token_at, None);
        account.output("né", now);
        assert_eq!((account.output_chars, account.output_text.as_str()), (2, "né"));
        let usage = TokenUsage { input: 1, output: 1, ..TokenUsage::default() };
        account.choices = 1;
        account.reported(Told { usage, output: false });
        assert!(!account.output_reported && account.output_text == "né", "it tells no output");
        account.reported(Told { usage, output: true });
        assert!(account.output_reported && account.output_text.is_empty());
        account.output("x", now);
        assert!(!account.output_reported, "the report does not cover it");
        account.output(&"y".repeat(KEPT_OUTPUT), now);
        assert_eq!((account.output_text.as_str(), account.output_covered), ("x", 1));
        account.output("ü", now);
        assert_eq!(account.output_beyond, KEPT_OUTPUT as u64 + 1, "no hole in what is kept");
        assert_eq!(account.output_chars, 4 + KEPT_OUTPUT as u64);
        account.reported(Told { usage, output: true });
        assert_eq!(account.output_beyond, 0);
    }

    #[test]
    fn errors_are_read_in_any_shape() {
        let error = |message: &str, kind: Option<&str>, code: Option<&str>| ReportedError {
            message: message.to_owned(),
            kind: kind.map(str::to_owned),
            code: code.map(str::to_owned),
        };
        let cases = [
            (r#"{"message":"m","type":"t","code":"c"}"#, error("m", Some("t"), Some("c"))),
            (r#"{"message":"m","code":400,"type":null}"#, error("m", None, Some("400"))),
            (r#""just text""#, error("just text", None, None)),
            (r#"["a"]"#, error("[\"a\"]", None, None)),
            ("<html>\n", error("<html>", None, None)),
            ("{}", error("", None, None)),
        ];
        for (text, expected) in cases {
            assert_eq!(ReportedError::read(text), expected, "{text}");
        }
    }
}
