//! What `/v1/embeddings` is asked: texts, or tokens, and the form of their vectors.

use tollgate_domain::record::Asked;
use tollgate_gateway::{Input, Prompt, Tuning};

use super::fields::{Field, Fields, Invalid, Kind};
use super::parameters::{self, Parameters};
use super::{completion, unserved};

/// Texts in one request, as OpenAI has it.
const MOST_INPUTS: usize = 2048;

const FORMS: &str = "a string, an array of strings, an array of token ids, or an array of those";

/// Reads all of it.
pub(super) fn read(fields: &Fields<'_>) -> Result<(Parameters, Prompt, Tuning), Invalid> {
    let prompt = Prompt::Inputs(inputs(&fields.require("input")?)?);
    unserved::check(fields)?;
    let asked = Asked {
        model: parameters::model(fields)?.unwrap_or_default(),
        prompt_characters: prompt.characters(),
        ..Asked::default()
    };
    let dimensions = fields.get("dimensions").map(|field| {
        let dimensions = field.integer_in(1.., "an integer of at least 1")?;
        Ok::<_, Invalid>(u32::try_from(dimensions).unwrap_or(u32::MAX))
    });
    let tuning = Tuning { dimensions: dimensions.transpose()?, ..Tuning::default() };
    let user = parameters::user(fields)?;
    Ok((Parameters { asked, include_usage: false, user }, prompt, tuning))
}

/// Whether vectors are told in base64 instead of numbers.
pub(super) fn base64(fields: &Fields<'_>) -> Result<bool, Invalid> {
    let Some(field) = fields.get("encoding_format") else { return Ok(false) };
    match (field.kind(), field.text().as_deref()) {
        (Kind::Text, Ok("float")) => Ok(false),
        (Kind::Text, Ok("base64")) => Ok(true),
        _ => Err(field.must_be("`float` or `base64`")),
    }
}

fn inputs(field: &Field<'_>) -> Result<Vec<Input>, Invalid> {
    if field.kind() == Kind::Text {
        return Ok(vec![text(field)?]);
    }
    let elements = field.elements(FORMS)?;
    let Some(first) = elements.first() else { return Err(empty(field)) };
    if first.kind() == Kind::Number {
        return Ok(vec![Input::Tokens(completion::ids(&elements)?)]);
    }
    if elements.len() > MOST_INPUTS {
        let message = format!(
            "`input` must have at most {MOST_INPUTS} texts, not {}. Send the rest in another request.",
            elements.len()
        );
        return Err(field.refuse(message));
    }
    let one = |element: &Field<'_>| match element.kind() {
        Kind::Text => text(element),
        Kind::Array if element.is_empty() => Err(empty(element)),
        Kind::Array => completion::token_ids(element).map(Input::Tokens),
        _ => Err(element.must_be("a string or an array of token ids")),
    };
    elements.iter().map(one).collect()
}

fn text(field: &Field<'_>) -> Result<Input, Invalid> {
    match field.text()? {
        text if text.is_empty() => Err(empty(field)),
        text => Ok(Input::Text(text)),
    }
}

fn empty(field: &Field<'_>) -> Invalid {
    field.refuse(format!("`{}` must not be empty.", field.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(Parameters, Prompt, Tuning), Invalid> {
        super::read(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn inputs_are_read_in_all_their_forms() {
        for (body, expected) in [
            (r#"{"input":"Hi"}"#, r#"Inputs([Text("Hi")])"#),
            (r#"{"input":["a","b"],"stream":true}"#, r#"Inputs([Text("a"), Text("b")])"#),
            (r#"{"input":[1, 2]}"#, "Inputs([Tokens([1, 2])])"),
            (r#"{"input":[[1],[2,3]]}"#, "Inputs([Tokens([1]), Tokens([2, 3])])"),
        ] {
            let (parameters, prompt, tuning) = read(body).unwrap();
            assert_eq!(format!("{prompt:?}"), expected);
            assert_eq!((tuning.dimensions, parameters.asked.stream), (None, false));
        }
        let (parameters, _, tuning) =
            read(r#"{"input":"Hi","model":"m","user":"u","dimensions":8}"#).unwrap();
        assert_eq!((parameters.asked.model.as_str(), tuning.dimensions), ("m", Some(8)));
        assert_eq!(
            (parameters.asked.prompt_characters, parameters.user.as_deref()),
            (2, Some("u"))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!(r#"{{"input":[{}"a"]}}"#, r#""a","#.repeat(MOST_INPUTS));
        for (body, param, message) in [
            ("{}", "input", "is missing"),
            (r#"{"input":7}"#, "input", "or an array of those, not 7."),
            (r#"{"input":""}"#, "input", "must not be empty"),
            (r#"{"input":[]}"#, "input", "must not be empty"),
            (r#"{"input":["a",""]}"#, "input[1]", "must not be empty"),
            (r#"{"input":[[1],[]]}"#, "input[1]", "must not be empty"),
            (r#"{"input":["a",1]}"#, "input[1]", "a string or an array of token ids, not 1."),
            (r#"{"input":[1,"a"]}"#, "input[1]", "a token id, not a string."),
            (many.as_str(), "input", "at most 2048 texts, not 2049."),
            (r#"{"input":"a","dimensions":0}"#, "dimensions", "at least 1, not 0."),
            (
                r#"{"input":"a","truncate_prompt_tokens":1}"#,
                "truncate_prompt_tokens",
                "not supported",
            ),
        ] {
            let invalid = read(body).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{body:.60}");
            assert!(invalid.message.contains(message), "{body:.60}: {}", invalid.message);
        }
        for (format, expected) in [
            ("null", Some(false)),
            (r#""float""#, Some(false)),
            (r#""base64""#, Some(true)),
            (r#""int8""#, None),
            ("1", None),
        ] {
            let body = format!(r#"{{"encoding_format":{format}}}"#);
            assert_eq!(base64(&Fields::parse(body.as_bytes()).unwrap()).ok(), expected, "{format}");
        }
    }
}
