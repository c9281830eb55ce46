//! A chat completion's parameters as those of a message.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;
use tollgate_domain::text::one_line;

use crate::anthropic::messages::{self, Block, Turn};
use crate::error::UpstreamError;
use crate::json::{self, Members};
use crate::outgoing::{Outgoing, not_json};

/// Anthropic wants a limit. For requests without one; every model takes it.
const MAX_TOKENS: &str = "4096";

#[derive(Default, Serialize)]
struct Request<'a> {
    model: &'a str,
    max_tokens: Option<&'a RawValue>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    system: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_sequences: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<Tool<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a RawValue>,
    input_schema: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ToolChoice<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disable_parallel_tool_use: Option<bool>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    user_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WrittenTool<'a> {
    #[serde(borrow)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow)]
    function: Option<WrittenFunction<'a>>,
    #[serde(borrow)]
    cache_control: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WrittenFunction<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    description: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    strict: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_control: Option<&'a RawValue>,
}

/// The body for `/messages`.
pub(crate) fn translate(outgoing: &Outgoing, upstream_model: &str) -> Result<Bytes, UpstreamError> {
    if outgoing.operation != Operation::Chat {
        return Err(UpstreamError::Request {
            parameter: Some("model".to_owned()),
            message: format!(
                "The model is served by Anthropic's API, which has only chat completions, not {}.",
                outgoing.path
            ),
        });
    }
    let text = str::from_utf8(&outgoing.body).map_err(|_| not_json())?;
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| not_json())?;
    let default_limit = RawValue::from_string(MAX_TOKENS.to_owned()).map_err(|_| not_json())?;
    let mut request = Request { model: upstream_model, ..Request::default() };
    let mut parallel = true;
    for (key, value) in &members.0 {
        if !json::is_null(value) {
            request.take(key, value, &mut parallel)?;
        }
    }
    request.max_tokens.get_or_insert(&default_limit);
    if !parallel && request.tools.is_some() {
        let automatic =
            || ToolChoice { r#type: "auto", name: None, disable_parallel_tool_use: None };
        let choice = request.tool_choice.get_or_insert_with(automatic);
        if choice.r#type != "none" {
            choice.disable_parallel_tool_use = Some(true);
        }
    }
    serde_json::to_vec(&request).map(Bytes::from).map_err(|_| not_json())
}

impl<'a> Request<'a> {
    /// Takes one parameter that is not `null`.
    fn take(
        &mut self,
        key: &str,
        value: &'a RawValue,
        parallel: &mut bool,
    ) -> Result<(), UpstreamError> {
        let text = value.get();
        match key {
            "messages" => (self.system, self.messages) = messages::translate(value)?,
            "max_completion_tokens" => self.max_tokens = Some(value),
            "max_tokens" => {
                self.max_tokens.get_or_insert(value);
            }
            "stop" => self.stop_sequences = Some(stop(value)?),
            "stream" => self.stream = Some(value),
            "temperature" => {
                if text.parse::<f64>().is_ok_and(|value| value > 1.0) {
                    return Err(unsupported(key, "This model's temperatures go from 0 to 1."));
                }
                self.temperature = Some(value);
            }
            "top_p" => self.top_p = Some(value),
            "top_k" => self.top_k = Some(value),
            "thinking" => self.thinking = Some(value),
            "tools" => self.tools = Some(tools(value)?),
            "tool_choice" => self.tool_choice = Some(tool_choice(value)?),
            "parallel_tool_calls" => *parallel = text != "false",
            "user" => self.metadata = json::string(value).map(|user_id| Metadata { user_id }),
            "service_tier" => {
                self.service_tier = Some(match text {
                    "\"auto\"" => "auto",
                    "\"default\"" => "standard_only",
                    _ => return Err(unsupported(key, "It must be \"auto\" or \"default\".")),
                });
            }
            // What says the same as leaving it out.
            "n" if text == "1" => {}
            "logprobs" | "store" if text == "false" => {}
            "presence_penalty" | "frequency_penalty"
                if text.parse::<f64>().is_ok_and(|value| value == 0.0) => {}
            "logit_bias" if text.trim_matches(['{', '}', ' ']).is_empty() => {}
            "response_format" if is_type(value, "text") => {}
            "modalities" if text.replace(' ', "") == "[\"text\"]" => {}
            // What is about the question, or for whoever keeps it, and not of the answer.
            "model" | "stream_options" | "metadata" | "prompt_cache_key" | "safety_identifier" => {}
            _ => return Err(unsupported(key, "Anthropic's API has no counterpart.")),
        }
        Ok(())
    }
}

/// An error that names a parameter.
pub(super) fn unsupported(parameter: &str, why: &str) -> UpstreamError {
    let parameter = one_line(parameter, 128);
    let message = format!("`{parameter}` cannot be sent to the backend of this model: {why}");
    UpstreamError::parameter(parameter, message)
}

fn is_type(value: &RawValue, name: &str) -> bool {
    let members: Option<Members<'_>> = serde_json::from_str(value.get()).ok();
    members
        .and_then(|members| members.get("type").and_then(json::string))
        .is_some_and(|kind| kind == name)
}

fn stop(value: &RawValue) -> Result<Vec<Cow<'_, str>>, UpstreamError> {
    if let Some(one) = json::string(value) {
        return Ok(vec![one]);
    }
    let many: Vec<&RawValue> = serde_json::from_str(value.get())
        .map_err(|_| unsupported("stop", "It must be a string or a list of strings."))?;
    many.into_iter()
        .map(|one| json::string(one).ok_or_else(|| unsupported("stop", "It must have strings.")))
        .collect()
}

fn tools(value: &RawValue) -> Result<Vec<Tool<'_>>, UpstreamError> {
    let written: Vec<WrittenTool<'_>> = serde_json::from_str(value.get())
        .map_err(|_| unsupported("tools", "It must be a list of functions."))?;
    let mut tools = Vec::with_capacity(written.len());
    for (place, tool) in written.into_iter().enumerate() {
        let key = format!("tools[{place}]");
        if tool.r#type.and_then(json::string).as_deref() != Some("function") {
            return Err(unsupported(&format!("{key}.type"), "Only functions are known there."));
        }
        let function = tool
            .function
            .ok_or_else(|| unsupported(&format!("{key}.function"), "It must be there."))?;
        let name = function
            .name
            .and_then(json::string)
            .ok_or_else(|| unsupported(&format!("{key}.function.name"), "It must be a string."))?;
        let input_schema = match function.parameters {
            Some(schema) => Cow::Borrowed(schema),
            None => Cow::Owned(
                RawValue::from_string(r#"{"type":"object","properties":{}}"#.to_owned())
                    .map_err(|_| not_json())?,
            ),
        };
        let strict = function.strict.filter(|strict| strict.get() == "true");
        let cache_control = tool.cache_control.or(function.cache_control);
        let description = function.description;
        tools.push(Tool { name, description, input_schema, strict, cache_control });
    }
    Ok(tools)
}

fn tool_choice(value: &RawValue) -> Result<ToolChoice<'_>, UpstreamError> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        function: Function<'a>,
    }
    #[derive(Deserialize)]
    struct Function<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
    }
    let plain = |kind| Ok(ToolChoice { r#type: kind, name: None, disable_parallel_tool_use: None });
    match value.get() {
        "\"none\"" => return plain("none"),
        "\"auto\"" => return plain("auto"),
        "\"required\"" => return plain("any"),
        _ => {}
    }
    let named: Option<Named<'_>> = serde_json::from_str(value.get()).ok();
    let name = named.and_then(|named| json::string(named.function.name));
    match name {
        Some(name) if is_type(value, "function") => {
            Ok(ToolChoice { r#type: "tool", name: Some(name), disable_parallel_tool_use: None })
        }
        _ => Err(unsupported(
            "tool_choice",
            "It must be \"none\", \"auto\", \"required\" or name a function.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use serde_json::{Value, json};

    fn translated(body: &Value) -> Result<Value, UpstreamError> {
        let outgoing = Outgoing {
            path: "/chat/completions".into(),
            method: Method::POST,
            body: body.to_string().into(),
            stream: false,
            model: "m".to_owned(),
            headers: HeaderMap::new(),
            operation: Operation::Chat,
            keep_output: false,
        };
        Ok(serde_json::from_slice(&translate(&outgoing, "claude")?).unwrap())
    }

    #[test]
    fn a_conversation_with_all_that_is_known() {
        let tool = json!({"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":false}});
        let call =
            json!({"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":1.50}"}});
        let body = json!({
            "model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_p":0.9,"n":1,
            "max_completion_tokens":7,"max_tokens":9,"stop":"END","user":"u","tools":[tool],"tool_choice":"required",
            "parallel_tool_calls":false,"presence_penalty":0,"logit_bias":{},"response_format":{"type":"text"},"seed":null,
            "messages":[
                {"role":"system","content":"s1"},
                {"role":"developer","content":[{"type":"text","text":"s2"}]},
                {"role":"user","content":[
                    {"type":"text","text":"look"},
                    {"type":"image_url","image_url":{"url":"data:image/png;base64,iVBOR","detail":"low"}},
                    {"type":"image_url","image_url":{"url":"https://h/x.png"}},
                ]},
                {"role":"assistant","content":null,"tool_calls":[call.clone(), call]},
                {"role":"tool","tool_call_id":"t1","content":"r1"},
                {"role":"tool","tool_call_id":"t2","content":[{"type":"text","text":"r2"}]},
                {"role":"user","content":"go on"},
            ],
        });
        let expected = json!({
            "model":"claude","stream":true,"temperature":0.5,"top_p":0.9,"max_tokens":7,"stop_sequences":["END"],
            "metadata":{"user_id":"u"},
            "tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],
            "tool_choice":{"type":"any","disable_parallel_tool_use":true},
            "system":[{"type":"text","text":"s1"},{"type":"text","text":"s2"}],
            "messages":[
                {"role":"user","content":[
                    {"type":"text","text":"look"},
                    {"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBOR"}},
                    {"type":"image","source":{"type":"url","url":"https://h/x.png"}},
                ]},
                {"role":"assistant","content":[
                    {"type":"tool_use","id":"t1","name":"f","input":{"a":1.5}},
                    {"type":"tool_use","id":"t1","name":"f","input":{"a":1.5}},
                ]},
                {"role":"user","content":[
                    {"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r1"}]},
                    {"type":"tool_result","tool_use_id":"t2","content":[{"type":"text","text":"r2"}]},
                    {"type":"text","text":"go on"},
                ]},
            ],
        });
        assert_eq!(translated(&body).unwrap(), expected);
        let least = json!({"model":"m","messages":[{"role":"user","content":"hi"}]});
        let expected = json!({"model":"claude","max_tokens":4096,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]});
        assert_eq!(translated(&least).unwrap(), expected);
    }

    #[test]
    fn what_is_to_be_kept_is_said_on() {
        let control = json!({"type":"ephemeral","ttl":"1h"});
        let tool = |beside: bool| {
            let mut tool = json!({"type":"function","function":{"name":"f","parameters":{}}});
            let place = if beside { &mut tool } else { &mut tool["function"] };
            place["cache_control"] = control.clone();
            tool
        };
        let call = json!({"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}});
        let body = json!({
            "model":"m","tools":[tool(true), tool(false)],
            "messages":[
                {"role":"system","content":[{"type":"text","text":"s","cache_control":control}]},
                {"role":"user","content":[
                    {"type":"text","text":"a","cache_control":control},
                    {"type":"image_url","image_url":{"url":"https://h/x.png"},"cache_control":control},
                    {"type":"text","text":"b"},
                ]},
                {"role":"assistant","content":"c","tool_calls":[call],"cache_control":control},
                {"role":"tool","tool_call_id":"t1","content":"r","cache_control":control},
                {"role":"user","content":"d","cache_control":null},
            ],
        });
        let tool = json!({"name":"f","input_schema":{},"cache_control":control});
        let expected = json!({
            "model":"claude","max_tokens":4096,"tools":[tool, tool],
            "system":[{"type":"text","text":"s","cache_control":control}],
            "messages":[
                {"role":"user","content":[
                    {"type":"text","text":"a","cache_control":control},
                    {"type":"image","source":{"type":"url","url":"https://h/x.png"},"cache_control":control},
                    {"type":"text","text":"b"},
                ]},
                {"role":"assistant","content":[
                    {"type":"text","text":"c"},
                    {"type":"tool_use","id":"t1","name":"f","input":{},"cache_control":control},
                ]},
                {"role":"user","content":[
                    {"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r"}],"cache_control":control},
                    {"type":"text","text":"d"},
                ]},
            ],
        });
        assert_eq!(translated(&body).unwrap(), expected);
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let user = json!([{"role":"user","content":"hi"}]);
        let with = |key: &str, value: Value| {
            let mut body = json!({"model":"m","messages":user});
            body[key] = value;
            body
        };
        let message = |message: Value| json!({"model":"m","messages":[{"role":"user","content":"x"}, message]});
        let cases = [
            ("n", with("n", json!(2))),
            ("seed", with("seed", json!(1))),
            ("logprobs", with("logprobs", json!(true))),
            ("logit_bias", with("logit_bias", json!({"1":2}))),
            ("temperature", with("temperature", json!(1.5))),
            ("frequency_penalty", with("frequency_penalty", json!(0.5))),
            ("response_format", with("response_format", json!({"type":"json_object"}))),
            ("functions", with("functions", json!([]))),
            ("reasoning_effort", with("reasoning_effort", json!("high"))),
            ("whatever", with("whatever", json!(1))),
            ("stop", with("stop", json!([1]))),
            ("tools[0].type", with("tools", json!([{"type":"custom"}]))),
            ("tools[0].function.name", with("tools", json!([{"type":"function","function":{}}]))),
            ("tool_choice", with("tool_choice", json!({"type":"x"}))),
            ("messages", with("messages", json!("x"))),
            ("messages[1].role", message(json!({"role":"system","content":"late"}))),
            ("messages[1].role", message(json!({"role":"function","content":"x"}))),
            (
                "messages[1].content[0].type",
                message(json!({"role":"user","content":[{"type":"input_audio"}]})),
            ),
            (
                "messages[1].content[0].image_url.url",
                message(
                    json!({"role":"user","content":[{"type":"image_url","image_url":{"url":"ftp://x"}}]}),
                ),
            ),
            ("messages[1].content", message(json!({"role":"user","content":7}))),
            ("messages[1].tool_call_id", message(json!({"role":"tool","content":"x"}))),
            (
                "messages[1].tool_calls[0].function.arguments",
                message(
                    json!({"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{"}}]}),
                ),
            ),
            ("messages[1].name", message(json!({"role":"user","content":"x","name":"Bo"}))),
        ];
        for (expected, body) in cases {
            match translated(&body) {
                Err(UpstreamError::Request { parameter, message }) => {
                    assert_eq!(parameter.as_deref(), Some(expected), "{body}");
                    assert!(message.contains(expected), "{message}");
                }
                other => panic!("{other:?} for {body}"),
            }
        }
    }
}
