//! Parameters of OpenAI's and vLLM's API that are known and not served yet.
//!
//! Ignoring one would give an answer that is not what was asked for, so each is refused unless it
//! has the value that changes nothing. Parameters that cannot change the answer (`metadata`,
//! `store`, `service_tier`, ...) are not in the table and are ignored like unknown ones. To serve
//! one, take it out of here and read it where it belongs.

use super::fields::{Field, Fields, Invalid};

/// Refuses a request that wants what is not served yet.
pub(super) fn check(fields: &Fields<'_>) -> Result<(), Invalid> {
    for (name, neutral) in UNSERVED {
        if let Some(field) = fields.get(name)
            && !neutral.is(&field)
        {
            let message = format!(
                "`{name}` is not supported yet{}. Leave it out.",
                neutral.in_words().map(|value| format!(", except as {value}")).unwrap_or_default()
            );
            return Err(field.refuse(message));
        }
    }
    Ok(())
}

/// A value that changes nothing. Absent and null never do.
enum Neutral {
    Number(f64),
    Boolean(bool),
    /// An empty array, object or string.
    Empty,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// An array of nothing but `text`.
    TextOnly,
    /// None.
    Never,
}

const UNSERVED: &[(&str, Neutral)] = &[
    ("use_beam_search", Neutral::Boolean(false)),
    ("suffix", Neutral::Empty),
    // Tools.
    ("tools", Neutral::Empty),
    ("tool_choice", Neutral::Word(&["none", "auto"])),
    ("functions", Neutral::Empty),
    ("function_call", Neutral::Word(&["none", "auto"])),
    // The form of the answer.
    ("structured_outputs", Neutral::Never),
    ("guided_json", Neutral::Never),
    ("guided_regex", Neutral::Never),
    ("guided_choice", Neutral::Never),
    ("guided_grammar", Neutral::Never),
    ("modalities", Neutral::TextOnly),
    ("audio", Neutral::Never),
    ("prediction", Neutral::Never),
    ("web_search_options", Neutral::Never),
    // Sampling.
    ("length_penalty", Neutral::Number(1.0)),
    ("typical_p", Neutral::Number(1.0)),
    ("allowed_token_ids", Neutral::Never),
    ("bad_words", Neutral::Empty),
    // Where to stop.
    ("include_stop_str_in_output", Neutral::Boolean(false)),
    ("skip_special_tokens", Neutral::Boolean(true)),
    // The prompt.
    ("truncate_prompt_tokens", Neutral::Never),
    ("prompt_embeds", Neutral::Never),
    ("add_generation_prompt", Neutral::Boolean(true)),
    ("continue_final_message", Neutral::Boolean(false)),
    ("chat_template", Neutral::Never),
    ("chat_template_kwargs", Neutral::Empty),
    ("documents", Neutral::Empty),
    // What the answer tells of tokens.
    ("return_token_ids", Neutral::Boolean(false)),
    ("return_tokens_as_token_ids", Neutral::Boolean(false)),
];

impl Neutral {
    fn is(&self, field: &Field<'_>) -> bool {
        match self {
            Self::Number(neutral) => field.number().is_some_and(|number| number == *neutral),
            Self::Boolean(neutral) => field.boolean().is_ok_and(|boolean| boolean == *neutral),
            Self::Empty => field.is_empty(),
            Self::Word(words) => field.text().is_ok_and(|text| words.contains(&text.as_str())),
            Self::TextOnly => field.elements("").is_ok_and(|all| all.iter().all(is_text)),
            Self::Never => false,
        }
    }

    fn in_words(&self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.to_string()),
            Self::Boolean(boolean) => Some(boolean.to_string()),
            Self::Empty | Self::Never => None,
            Self::Word(words) => Some(words.join(" or ")),
            Self::TextOnly => Some(r#"["text"]"#.to_owned()),
        }
    }
}

fn is_text(field: &Field<'_>) -> bool {
    field.text().is_ok_and(|text| text == "text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &str) -> Result<(), Invalid> {
        check(&Fields::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn values_that_change_nothing_pass() {
        let cases = [
            r#"{"use_beam_search":false,"suffix":"","tools":[],"tool_choice":"auto"}"#,
            r#"{"modalities":["text"],"bad_words":[]}"#,
            r#"{"length_penalty":1,"typical_p":1.0}"#,
            r#"{"guided_json":null}"#,
            r#"{"metadata":{"a":"b"},"store":true,"service_tier":"auto","whatever":1}"#,
        ];
        for body in cases {
            assert!(checked(body).is_ok(), "{body}");
        }
    }

    #[test]
    fn values_that_change_something_are_refused_by_name() {
        let cases = [
            (r#"{"use_beam_search":true}"#, "use_beam_search"),
            (r#"{"length_penalty":2}"#, "length_penalty"),
            (r#"{"suffix":"x"}"#, "suffix"),
            (r#"{"tools":[{"type":"function"}]}"#, "tools"),
            (r#"{"tool_choice":"required"}"#, "tool_choice"),
            (r#"{"modalities":["text","audio"]}"#, "modalities"),
            (r#"{"skip_special_tokens":false}"#, "skip_special_tokens"),
            (r#"{"guided_json":{}}"#, "guided_json"),
        ];
        for (body, name) in cases {
            let invalid = checked(body).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(name), "{body}");
            assert!(invalid.message.contains("not supported yet"), "{}", invalid.message);
        }
        assert_eq!(
            checked(r#"{"typical_p":2}"#).unwrap_err().message,
            "`typical_p` is not supported yet, except as 1. Leave it out."
        );
    }
}
