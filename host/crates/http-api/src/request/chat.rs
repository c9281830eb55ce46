//! The messages of a chat.

use tollgate_gateway::ChatMessage;

use super::fields::{Field, Fields, Invalid, Kind};

/// Reads `messages`.
pub(super) fn messages(fields: &Fields<'_>) -> Result<Vec<ChatMessage>, Invalid> {
    let field = fields.require("messages")?;
    let messages = field.elements("an array of messages")?;
    if messages.is_empty() {
        return Err(field.refuse("`messages` must not be empty."));
    }
    messages.iter().map(message).collect()
}

fn message(field: &Field<'_>) -> Result<ChatMessage, Invalid> {
    let fields = field.fields()?;
    let role = role(&fields.require("role")?)?;
    for calls in ["tool_calls", "function_call"] {
        if let Some(field) = fields.get(calls)
            && !field.is_empty()
        {
            return Err(field.refuse(format!("`{}` is not supported yet.", field.path())));
        }
    }
    let content = content(&fields.require("content")?)?;
    Ok(ChatMessage { role: role.to_owned(), content })
}

/// The role as chat templates know it.
fn role(field: &Field<'_>) -> Result<&'static str, Invalid> {
    match field.text()?.as_str() {
        // OpenAI's newer word for the same.
        "system" | "developer" => Ok("system"),
        "user" => Ok("user"),
        "assistant" => Ok("assistant"),
        "tool" => Ok("tool"),
        _ => Err(field.refuse(format!(
            "`{}` must be system, developer, user, assistant or tool.",
            field.path()
        ))),
    }
}

/// A text, or a list of parts that are all text and are joined by line breaks, as vLLM does.
fn content(field: &Field<'_>) -> Result<String, Invalid> {
    if field.kind() == Kind::Text {
        return field.text();
    }
    let parts = field.elements("a string or an array of parts")?;
    if parts.is_empty() {
        return Err(field.refuse(format!("`{}` must not be empty.", field.path())));
    }
    let texts: Vec<String> = parts.iter().map(part).collect::<Result<_, _>>()?;
    Ok(texts.join("\n"))
}

fn part(field: &Field<'_>) -> Result<String, Invalid> {
    let part = field.fields()?;
    let kind = part.require("type")?;
    if kind.text()? != "text" {
        let message = format!("`{}` must be text: other parts are not supported yet.", kind.path());
        return Err(kind.refuse(message));
    }
    part.require("text")?.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(messages_json: &str) -> Result<Vec<ChatMessage>, Invalid> {
        let body = format!(r#"{{"messages":{messages_json}}}"#);
        messages(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn messages_are_read() {
        let read = read(
            r#"[{"role":"developer","content":"Be brief.","name":"x"},
                {"role":"user","content":[{"type":"text","text":"Hi"},{"type":"text","text":"you"}]},
                {"role":"assistant","content":"","tool_calls":[]},
                {"role":"tool","content":"42","tool_call_id":"a"}]"#,
        );
        let read: Vec<_> = read.unwrap().into_iter().map(|m| (m.role, m.content)).collect();
        let expected =
            [("system", "Be brief."), ("user", "Hi\nyou"), ("assistant", ""), ("tool", "42")];
        assert_eq!(read, expected.map(|(role, content)| (role.to_owned(), content.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("null", "messages", "`messages` is missing."),
            ("\"Hi\"", "messages", "an array of messages, not a string."),
            ("[]", "messages", "`messages` must not be empty."),
            ("[7]", "messages[0]", "`messages[0]` must be an object, not 7."),
            (r#"[{"content":"a"}]"#, "messages[0].role", "`messages[0].role` is missing."),
            (r#"[{"role":"boss","content":"a"}]"#, "messages[0].role", "must be system, "),
            (r#"[{"role":1,"content":"a"}]"#, "messages[0].role", "a string, not 1."),
            (r#"[{"role":"user"}]"#, "messages[0].content", "is missing."),
            (
                r#"[{"role":"user","content":"a"},{"role":"assistant","content":null}]"#,
                "messages[1].content",
                "is missing.",
            ),
            (r#"[{"role":"user","content":7}]"#, "messages[0].content", "array of parts, not 7."),
            (r#"[{"role":"user","content":[]}]"#, "messages[0].content", "must not be empty."),
            (r#"[{"role":"user","content":["a"]}]"#, "messages[0].content[0]", "an object"),
            (
                r#"[{"role":"user","content":[{"text":"a"}]}]"#,
                "messages[0].content[0].type",
                "is missing.",
            ),
            (
                r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"}]}]"#,
                "messages[0].content[1].type",
                "must be text: other parts are not supported yet.",
            ),
            (
                r#"[{"role":"user","content":[{"type":"text","text":7}]}]"#,
                "messages[0].content[0].text",
                "a string, not 7.",
            ),
            (
                r#"[{"role":"assistant","content":"a","tool_calls":[{"id":"x"}]}]"#,
                "messages[0].tool_calls",
                "not supported yet.",
            ),
        ];
        for (json, param, message) in cases {
            let invalid = read(json).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{json}");
            assert!(invalid.message.contains(message), "{json}: {}", invalid.message);
        }
    }
}
