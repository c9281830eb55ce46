//! The prompt of a completion: a text or tokens, alone or as a batch of one.

use tollgate_gateway::Prompt;

use super::fields::{Field, Fields, Invalid, Kind};

const FORMS: &str = "a string, an array of one string, or an array of token ids";

/// Reads `prompt`.
pub(super) fn prompt(fields: &Fields<'_>) -> Result<Prompt, Invalid> {
    let field = fields.require("prompt")?;
    match field.kind() {
        Kind::Text => text(&field, &field),
        Kind::Array => batch(&field),
        _ => Err(field.must_be(FORMS)),
    }
}

fn batch(field: &Field<'_>) -> Result<Prompt, Invalid> {
    let elements = field.elements(FORMS)?;
    let Some(first) = elements.first() else { return Err(empty(field)) };
    match first.kind() {
        Kind::Number => tokens(field, &elements),
        Kind::Text | Kind::Array if elements.len() > 1 => {
            let message = format!(
                "`prompt` must hold one prompt, not {}. Send one request for each.",
                elements.len()
            );
            Err(field.refuse(message))
        }
        Kind::Text => text(field, first),
        Kind::Array => tokens(field, &first.elements(FORMS)?),
        Kind::Null | Kind::Boolean | Kind::Object => Err(first.must_be("a string or a token id")),
    }
}

fn text(prompt: &Field<'_>, field: &Field<'_>) -> Result<Prompt, Invalid> {
    let text = field.text()?;
    if text.is_empty() { Err(empty(prompt)) } else { Ok(Prompt::Text(text)) }
}

fn tokens(prompt: &Field<'_>, elements: &[Field<'_>]) -> Result<Prompt, Invalid> {
    if elements.is_empty() {
        return Err(empty(prompt));
    }
    ids(elements).map(Prompt::Tokens)
}

/// An array of token ids.
pub(super) fn token_ids(field: &Field<'_>) -> Result<Vec<u32>, Invalid> {
    ids(&field.elements("an array of token ids")?)
}

/// Elements that are token ids.
pub(super) fn ids(elements: &[Field<'_>]) -> Result<Vec<u32>, Invalid> {
    let token = |field: &Field<'_>| {
        let id = field.integer().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| field.must_be("a token id"))
    };
    elements.iter().map(token).collect()
}

fn empty(prompt: &Field<'_>) -> Invalid {
    prompt.refuse("`prompt` must not be empty.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Prompt, Invalid> {
        prompt(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_prompt_is_read_in_all_its_forms() {
        let cases = [
            (r#"{"prompt":"Hi \ud83d\ude00"}"#, r#"Text("Hi 😀")"#),
            (r#"{"prompt":["Hi"]}"#, r#"Text("Hi")"#),
            (r#"{"prompt":[1, 2]}"#, "Tokens([1, 2])"),
            (r#"{"prompt":[[1,4294967295]]}"#, "Tokens([1, 4294967295])"),
        ];
        for (body, expected) in cases {
            assert_eq!(format!("{:?}", read(body).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_no_prompt_is_refused_by_name() {
        let cases = [
            ("{}", "prompt", "`prompt` is missing."),
            (r#"{"prompt":null}"#, "prompt", "`prompt` is missing."),
            (r#"{"prompt":7}"#, "prompt", "or an array of token ids, not 7."),
            (r#"{"prompt":{"a":1}}"#, "prompt", "not an object."),
            (r#"{"prompt":""}"#, "prompt", "`prompt` must not be empty."),
            (r#"{"prompt":[]}"#, "prompt", "`prompt` must not be empty."),
            (r#"{"prompt":[""]}"#, "prompt", "`prompt` must not be empty."),
            (r#"{"prompt":[[]]}"#, "prompt", "`prompt` must not be empty."),
            (r#"{"prompt":["a","b"]}"#, "prompt", "one prompt, not 2."),
            (r#"{"prompt":[[1],[2]]}"#, "prompt", "one prompt, not 2."),
            (r#"{"prompt":[null]}"#, "prompt[0]", "a string or a token id, not null."),
            (r#"{"prompt":[1,"a"]}"#, "prompt[1]", "a token id, not a string."),
            (r#"{"prompt":[1,-1]}"#, "prompt[1]", "a token id, not -1."),
            (r#"{"prompt":[[1,4294967296]]}"#, "prompt[0][1]", "not 4294967296."),
            (r#"{"prompt":[[["a"]]]}"#, "prompt[0][0]", "a token id, not an array."),
            (r#"{"prompt":"\udc00"}"#, "prompt", "`prompt` cannot be read: "),
        ];
        for (body, param, message) in cases {
            let invalid = read(body).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{body}");
            assert!(invalid.message.contains(message), "{body}: {}", invalid.message);
        }
    }
}
