//! What is said in a request that another server answers: its text, where it is to be kept, and an estimate of its tokens,
//! where the server reports none.
//!
//! Nothing that a model reads counts for nothing: tokens count as they are, tools and calls of tools by their JSON, and what
//! cannot be read by its bytes. Pictures, sound and files are the exception; how many tokens they are is the model's affair.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;
use tollgate_model::ChatMessage;
use tollgate_model::estimate::count_tokens;

use crate::call::Prompt;

/// Tokens that a message of a chat takes besides its text, and a chat besides its messages, in the
/// templates of OpenAI's models.
const PER_MESSAGE: u64 = 4;
const PER_CHAT: u64 = 3;

/// What is said in a request, as far as it can be read: a text where it is no chat.
pub(crate) fn prompt(operation: Operation, body: &[u8]) -> Prompt {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = match operation {
        Operation::Chat => "messages",
        Operation::TextCompletion => "prompt",
        Operation::Embeddings | Operation::Responses | Operation::Other => "input",
    };
    match (operation, body.get(field)) {
        (Operation::Chat, Some(Value::Array(messages))) => {
            Prompt::Chat(messages.iter().map(message).collect())
        }
        (_, Some(said)) => Prompt::Text(text(said)),
        (_, None) => Prompt::Text(String::new()),
    }
}

fn message(message: &Value) -> ChatMessage {
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    ChatMessage { role: role.to_owned(), content: text(message) }
}

/// All text in it: what stands under `content` or `text`, or is nothing but text.
fn text(said: &Value) -> String {
    match said {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<String> = parts.iter().map(text).filter(|t| !t.is_empty()).collect();
            texts.join("\n")
        }
        Value::Object(part) => {
            part.get("content").or_else(|| part.get("text")).map(text).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// An estimate of the tokens of a prompt whose tokenizer is not here.
pub(crate) fn estimated_tokens(model: &str, operation: Operation, body: &[u8]) -> u64 {
    let counting = Counting { model };
    // Of a name that stands there twice the last counts, as most servers have it.
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(body) else {
        return counting.text(&String::from_utf8_lossy(body));
    };
    let sum = |names: &[&str], count: &dyn Fn(&Value) -> u64| {
        let fields = names.iter().filter_map(|name| fields.get(*name));
        fields.map(|field| counting.field(field, count)).sum::<u64>()
    };
    match operation {
        Operation::Chat => {
            let said = sum(&["messages"], &|messages| counting.items(messages));
            said + sum(&["tools", "functions"], &|tools| counting.json(tools)) + PER_CHAT
        }
        Operation::TextCompletion => {
            sum(&["prompt"], &|prompt| counting.tokens(prompt))
                + sum(&["suffix"], &|suffix| counting.said(suffix))
        }
        Operation::Embeddings => sum(&["input"], &|input| counting.tokens(input)),
        Operation::Responses => {
            let said = sum(&["input"], &|input| counting.items(input));
            said + sum(&["instructions"], &|said| counting.items(said))
                + sum(&["tools"], &|tools| counting.json(tools))
        }
        Operation::Other => sum(&["input"], &|input| counting.said(input)),
    }
}

/// Counts with the tokenizer that is closest to a model's.
struct Counting<'a> {
    model: &'a str,
}

impl Counting<'_> {
    fn text(&self, text: &str) -> u64 {
        count_tokens(self.model, text)
    }

    /// As JSON, which is about what a template makes of it.
    fn json(&self, value: &Value) -> u64 {
        match value {
            Value::Null => 0,
            Value::Array(tools) if tools.is_empty() => 0,
            value => self.text(&value.to_string()),
        }
    }

    /// A field of the request; one that is nested too deep to be read counts as it is written.
    fn field(&self, field: &RawValue, count: &dyn Fn(&Value) -> u64) -> u64 {
        match serde_json::from_str(field.get()) {
            Ok(value) => count(&value),
            Err(_) => self.text(field.get()),
        }
    }

    /// Texts, or tokens that are there already, one prompt or several.
    fn tokens(&self, prompt: &Value) -> u64 {
        match prompt {
            Value::Number(_) => 1,
            Value::Array(parts) => parts.iter().map(|part| self.tokens(part)).sum(),
            said => self.said(said),
        }
    }

    /// Messages, and what else a conversation is made of; or one text.
    fn items(&self, items: &Value) -> u64 {
        match items {
            Value::Array(items) => items.iter().map(|item| PER_MESSAGE + self.said(item)).sum(),
            said => self.said(said),
        }
    }

    /// All that a model reads of it: text, and what it is told of calls of tools and their results.
    fn said(&self, said: &Value) -> u64 {
        const TEXTS: [&str; 9] = [
            "content",
            "text",
            "name",
            "refusal",
            "reasoning_content",
            "reasoning",
            "summary",
            "output",
            "arguments",
        ];
        match said {
            Value::String(text) => self.text(text),
            Value::Array(parts) => parts.iter().map(|part| self.said(part)).sum(),
            Value::Object(part) => {
                let texts = TEXTS.iter().filter_map(|name| part.get(*name));
                let called = ["tool_calls", "function_call", "function", "custom"];
                let calls = called.iter().filter_map(|name| part.get(*name));
                texts.chain(calls).map(|said| self.said(said)).sum()
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn estimated(operation: Operation, body: &Value) -> u64 {
        estimated_tokens("gpt-4o", operation, body.to_string().as_bytes())
    }

    #[test]
    fn nothing_that_a_model_reads_counts_for_nothing() {
        let count = |text: &str| count_tokens("gpt-4o", text);
        let words = "some words of a text";
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
        let call = json!({"id": "a", "type": "function", "function": {"name": "find", "arguments": words}});
        let chat = |message: Value| json!({"messages": [message]});
        let whole = PER_CHAT + PER_MESSAGE;
        let cases = [
            (Operation::TextCompletion, json!({"prompt": words}), count(words)),
            (Operation::TextCompletion, json!({"prompt": [words, words]}), 2 * count(words)),
            (Operation::TextCompletion, json!({"prompt": [5, 6, 7]}), 3),
            (Operation::TextCompletion, json!({"prompt": [[5, 6], [7, 8, 9]]}), 5),
            (Operation::TextCompletion, json!({"prompt": [1], "suffix": words}), 1 + count(words)),
            (Operation::Embeddings, json!({"input": [5, 6, 7]}), 3),
            (Operation::Embeddings, json!({"input": [[5], [6, 7]]}), 3),
            (Operation::Embeddings, json!({"input": [words]}), count(words)),
            (
                Operation::Chat,
                chat(json!({"role": "user", "content": words})),
                whole + count(words),
            ),
            (
                Operation::Chat,
                chat(json!({"role": "user", "content": [{"type": "text", "text": words},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]})),
                whole + count(words),
            ),
            (
                Operation::Chat,
                chat(json!({"role": "assistant", "content": null, "tool_calls": [call]})),
                whole + count("find") + count(words),
            ),
            (
                Operation::Chat,
                json!({"messages": [], "tools": [tool]}),
                PER_CHAT + count(&json!([tool]).to_string()),
            ),
            (Operation::Chat, json!({"messages": [], "tools": []}), PER_CHAT),
            (
                Operation::Responses,
                json!({"input": words, "instructions": words, "tools": [tool]}),
                2 * count(words) + count(&json!([tool]).to_string()),
            ),
            (
                Operation::Responses,
                json!({"input": [
                    {"role": "user", "content": [{"type": "input_text", "text": words}]},
                    {"type": "function_call", "call_id": "c", "name": "find", "arguments": words},
                    {"type": "function_call_output", "call_id": "c", "output": words},
                ]}),
                3 * PER_MESSAGE + 3 * count(words) + count("find"),
            ),
        ];
        for (operation, body, expected) in cases {
            assert_eq!(estimated(operation, &body), expected, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_by_its_bytes() {
        let deep = format!("{}\"x\"{}", "[".repeat(500), "]".repeat(500));
        let beside = format!(r#"{{"x":{deep},"messages":[{{"role":"user","content":"Hello"}}]}}"#);
        let within = format!(r#"{{"messages":{deep}}}"#);
        let twice = r#"{"prompt":"a","prompt":[1,2,3,4,5]}"#;
        let count = |operation, body: &str| estimated_tokens("gpt-4o", operation, body.as_bytes());
        assert_eq!(count(Operation::Chat, &beside), PER_CHAT + PER_MESSAGE + 1);
        assert!(count(Operation::Chat, &within) > 20);
        assert_eq!(count(Operation::TextCompletion, twice), 5);
        assert!(count(Operation::TextCompletion, "no JSON at all") > 0);
    }
}
