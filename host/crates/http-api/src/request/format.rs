//! The form of the answer: `response_format`, in OpenAI's words.

use super::fields::{Field, Fields, Invalid};

/// What a JSON object is, whatever is in it.
const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// Reads `response_format`: the JSON schema that the answer is held to, if any. Whether it can be is
/// the model's to say. `strict` makes no difference: a schema is always held.
pub(super) fn schema(fields: &Fields<'_>) -> Result<Option<String>, Invalid> {
    let Some(field) = fields.get("response_format") else { return Ok(None) };
    let format = field.fields()?;
    let kind = format.require("type")?;
    match kind.text()?.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(ANY_OBJECT.to_owned())),
        "json_schema" => {
            let schema = format.require("json_schema")?.fields()?.require("schema")?;
            object(&schema).map(Some)
        }
        _ => Err(kind
            .refuse("`response_format.type` must be text, json_object or json_schema.".to_owned())),
    }
}

fn object(schema: &Field<'_>) -> Result<String, Invalid> {
    schema.fields()?;
    Ok(schema.json().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str) -> Result<Option<String>, Invalid> {
        let body = format!(r#"{{"response_format":{format}}}"#);
        schema(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn forms_are_read() {
        let told = |format| read(format).unwrap();
        assert_eq!(told("null"), None);
        assert_eq!(told(r#"{"type":"text"}"#), None);
        assert_eq!(told(r#"{"type":"json_object"}"#).as_deref(), Some(ANY_OBJECT));
        let format = r#"{"type":"json_schema","json_schema":{"name":"a","strict":true,"schema":{"type": "string"}}}"#;
        assert_eq!(told(format).as_deref(), Some(r#"{"type": "string"}"#));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (format, param, message) in [
            ("7", "response_format", "an object, not 7."),
            ("{}", "response_format.type", "is missing."),
            (r#"{"type":"xml"}"#, "response_format.type", "json_object or json_schema."),
            (r#"{"type":"json_schema"}"#, "response_format.json_schema", "is missing."),
            (
                r#"{"type":"json_schema","json_schema":{}}"#,
                "response_format.json_schema.schema",
                "is missing.",
            ),
            (
                r#"{"type":"json_schema","json_schema":{"schema":[]}}"#,
                "response_format.json_schema.schema",
                "an object, not an array.",
            ),
        ] {
            let invalid = read(format).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{format}");
            assert!(invalid.message.contains(message), "{}", invalid.message);
        }
    }
}
