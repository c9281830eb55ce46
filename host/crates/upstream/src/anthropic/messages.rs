//! A conversation as Anthropic has it: instructions apart, turns that alternate, results of tools as blocks of the user.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::anthropic::request::unsupported;
use crate::error::UpstreamError;
use crate::json;

/// One turn.
#[derive(Serialize)]
pub(super) struct Turn<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

/// A part of a turn, and whether the prompt is to be kept up to it.
#[derive(Serialize)]
pub(super) struct Block<'a> {
    #[serde(flatten)]
    said: Said<'a>,
    /// As the client wrote it: an extension of OpenAI's API that gateways agree on.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said<'a> {
    Text { text: Cow<'a, str> },
    Image { source: ImageSource<'a> },
    ToolUse { id: Cow<'a, str>, name: Cow<'a, str>, input: Box<RawValue> },
    ToolResult { tool_use_id: Cow<'a, str>, content: Vec<Block<'a>> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ImageSource<'a> {
    Base64 { media_type: String, data: Cow<'a, str> },
    Url { url: Cow<'a, str> },
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_call_id: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<WrittenCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_control: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WrittenCall<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    function: Option<WrittenFunction<'a>>,
}

#[derive(Deserialize)]
struct WrittenFunction<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WrittenPart<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    image_url: Option<WrittenImage<'a>>,
    #[serde(borrow)]
    cache_control: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WrittenImage<'a> {
    #[serde(borrow)]
    url: Option<&'a RawValue>,
}

/// The instructions and the turns.
pub(super) fn translate(
    messages: &RawValue,
) -> Result<(Vec<Block<'_>>, Vec<Turn<'_>>), UpstreamError> {
    let messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| unsupported("messages", "It must be a list of messages."))?;
    let (mut system, mut turns) = (Vec::new(), Vec::new());
    for (place, message) in messages.into_iter().enumerate() {
        let key = format!("messages[{place}]");
        let message: Written<'_> = serde_json::from_str(message.get())
            .map_err(|_| unsupported(&key, "It is not a message as chat completions have it."))?;
        let role = message.role.and_then(json::string).unwrap_or_default();
        message.check(&key)?;
        match &*role {
            "system" | "developer" if turns.is_empty() => {
                system.extend(kept(message.text(&key)?, message.cache_control));
            }
            "system" | "developer" => {
                return Err(unsupported(
                    &format!("{key}.role"),
                    "Instructions can only stand before the conversation.",
                ));
            }
            "user" => {
                let said = content(&key, message.content, true)?;
                join(&mut turns, "user", kept(said, message.cache_control));
            }
            "assistant" => {
                let control = message.cache_control;
                join(&mut turns, "assistant", kept(message.assistant(&key)?, control));
            }
            "tool" => {
                let said = vec![message.tool_result(&key)?];
                join(&mut turns, "user", kept(said, message.cache_control));
            }
            _ => {
                return Err(unsupported(&format!("{key}.role"), "There is no such role there."));
            }
        }
    }
    Ok((system, turns))
}

/// Adds to the last turn if it is of the same role: results of several tools must come in one.
fn join<'a>(turns: &mut Vec<Turn<'a>>, role: &'static str, content: Vec<Block<'a>>) {
    match turns.last_mut() {
        Some(turn) if turn.role == role => turn.content.extend(content),
        _ => turns.push(Turn { role, content }),
    }
}

/// The blocks of a message; what it says as a whole of keeping holds up to its last.
fn kept<'a>(mut blocks: Vec<Block<'a>>, control: Option<&'a RawValue>) -> Vec<Block<'a>> {
    if let (Some(last), Some(_)) = (blocks.last_mut(), control) {
        last.cache_control = control;
    }
    blocks
}

impl<'a> From<Said<'a>> for Block<'a> {
    fn from(said: Said<'a>) -> Self {
        Self { said, cache_control: None }
    }
}

impl<'a> Written<'a> {
    fn check(&self, key: &str) -> Result<(), UpstreamError> {
        let refused =
            [("name", self.name), ("function_call", self.function_call), ("audio", self.audio)];
        match refused.iter().find(|(_, value)| value.is_some()) {
            None => Ok(()),
            Some((name, _)) => {
                let why = "Anthropic's API has no counterpart.";
                Err(unsupported(&format!("{key}.{name}"), why))
            }
        }
    }

    fn text(&self, key: &str) -> Result<Vec<Block<'a>>, UpstreamError> {
        content(key, self.content, false)
    }

    fn assistant(self, key: &str) -> Result<Vec<Block<'a>>, UpstreamError> {
        let mut blocks = match self.content {
            Some(_) => self.text(key)?,
            None => Vec::new(),
        };
        blocks.extend(self.refusal.and_then(json::string).and_then(text_block));
        for (place, call) in self.tool_calls.into_iter().flatten().enumerate() {
            let key = format!("{key}.tool_calls[{place}]");
            let id = needed(&format!("{key}.id"), call.id)?;
            let function = call.function.ok_or_else(|| {
                unsupported(&format!("{key}.function"), "Only functions can be called.")
            })?;
            let name = needed(&format!("{key}.function.name"), function.name)?;
            let arguments = function.arguments.and_then(json::string).unwrap_or_default();
            let arguments = if arguments.trim().is_empty() { "{}".into() } else { arguments };
            let input = RawValue::from_string(arguments.into_owned())
                .ok()
                .filter(|input| input.get().starts_with('{'))
                .ok_or_else(|| {
                    let key = format!("{key}.function.arguments");
                    unsupported(&key, "It must be a JSON object as text.")
                })?;
            blocks.push(Said::ToolUse { id, name, input }.into());
        }
        Ok(blocks)
    }

    fn tool_result(&self, key: &str) -> Result<Block<'a>, UpstreamError> {
        let tool_use_id = needed(&format!("{key}.tool_call_id"), self.tool_call_id)?;
        Ok(Said::ToolResult { tool_use_id, content: self.text(key)? }.into())
    }
}

fn needed<'a>(key: &str, value: Option<&'a RawValue>) -> Result<Cow<'a, str>, UpstreamError> {
    value.and_then(json::string).ok_or_else(|| unsupported(key, "It must be a string."))
}

/// Anthropic refuses empty text.
fn text_block(text: Cow<'_, str>) -> Option<Block<'_>> {
    (!text.is_empty()).then(|| Said::Text { text }.into())
}

fn content<'a>(
    key: &str,
    content: Option<&'a RawValue>,
    images: bool,
) -> Result<Vec<Block<'a>>, UpstreamError> {
    let key = format!("{key}.content");
    let wrong = || unsupported(&key, "It must be text or a list of parts.");
    let content = content.ok_or_else(wrong)?;
    if let Some(text) = json::string(content) {
        return Ok(text_block(text).into_iter().collect());
    }
    let parts: Vec<WrittenPart<'_>> = serde_json::from_str(content.get()).map_err(|_| wrong())?;
    let mut blocks = Vec::with_capacity(parts.len());
    for (place, part) in parts.into_iter().enumerate() {
        let key = format!("{key}[{place}]");
        let (before, control) = (blocks.len(), part.cache_control);
        match part.r#type.and_then(json::string).as_deref() {
            Some("text") => {
                blocks.extend(text_block(needed(&format!("{key}.text"), part.text)?));
            }
            Some("refusal") => {
                blocks.extend(text_block(needed(&format!("{key}.refusal"), part.refusal)?));
            }
            Some("image_url") if images => {
                let key = format!("{key}.image_url.url");
                let url = needed(&key, part.image_url.and_then(|image| image.url))?;
                blocks.push(Said::Image { source: image(&key, url)? }.into());
            }
            _ => {
                let why = "Parts of this type cannot stand here.";
                return Err(unsupported(&format!("{key}.type"), why));
            }
        }
        if let Some(block) = blocks.get_mut(before) {
            block.cache_control = control;
        }
    }
    Ok(blocks)
}

fn image<'a>(key: &str, url: Cow<'a, str>) -> Result<ImageSource<'a>, UpstreamError> {
    if url.starts_with("https://") || url.starts_with("http://") {
        return Ok(ImageSource::Url { url });
    }
    let wrong = || unsupported(key, "It must be an https URL or a data URL with base64.");
    let (head, _) = url.split_once(',').ok_or_else(wrong)?;
    let kind = head.strip_prefix("data:").and_then(|head| head.strip_suffix(";base64"));
    let media_type = kind.filter(|kind| !kind.is_empty()).ok_or_else(wrong)?.to_owned();
    let start = head.len() + 1;
    let data = match url {
        Cow::Borrowed(url) => Cow::Borrowed(url.get(start..).unwrap_or_default()),
        Cow::Owned(mut url) => Cow::Owned(url.split_off(start)),
    };
    Ok(ImageSource::Base64 { media_type, data })
}
