//! What a request for another server may use, to reserve by: cheap, and too much rather than too little.
//!
//! Another server is the judge of what its requests mean, and reads numbers that others would refuse. So what stands for a
//! number is read as one here, and what cannot be read at all is taken for what is usual.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_domain::record::Operation;

/// Bytes of JSON that are a token.
const BYTES_PER_TOKEN: u64 = 4;
/// Tokens of an answer whose client names no limit.
const USUAL_ANSWER: u64 = 256;

/// Most tokens that prompt and answers may have, as far as the body of the request tells: of each prompt as many answers as are
/// asked for, each as long as it may be. What the gateway has read itself (`max_tokens`, `choices`) counts if it is more.
pub(crate) fn of(
    operation: Operation,
    body: &[u8],
    max_tokens: Option<u32>,
    choices: Option<u32>,
) -> (u64, u64) {
    let input = body.len() as u64 / BYTES_PER_TOKEN;
    let known = max_tokens.map(u64::from);
    let answers = match operation {
        Operation::Chat | Operation::TextCompletion | Operation::Responses => {
            serde_json::from_slice::<Said>(body).unwrap_or_default()
        }
        Operation::Embeddings | Operation::Other => return (input, known.unwrap_or_default()),
    };
    let longest = answers.longest.max(known).unwrap_or(USUAL_ANSWER);
    let many = match operation {
        Operation::Chat | Operation::TextCompletion => {
            let choices = answers.choices.max(choices.map(u64::from)).unwrap_or(1).max(1);
            choices.saturating_mul(answers.prompts.max(1))
        }
        _ => 1,
    };
    (input, longest.saturating_mul(many))
}

/// What a body says of its answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Most tokens of one.
    longest: Option<u64>,
    /// Answers to one prompt: those that come, or those of which the best come.
    choices: Option<u64>,
    /// Prompts of their own, where there is a list of them.
    prompts: u64,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Said;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a request")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Said, A::Error> {
                let mut said = Said::default();
                // Of a name that stands there twice the larger holds: servers differ in which they take.
                while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
                    match name.as_ref() {
                        "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                            said.longest = said.longest.max(count(fields.next_value()?));
                        }
                        "n" | "best_of" => {
                            said.choices = said.choices.max(count(fields.next_value()?));
                        }
                        "prompt" => {
                            said.prompts = said.prompts.max(fields.next_value::<Prompts>()?.0);
                        }
                        _ => {
                            fields.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(said)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A number, as text too, and however it is written.
fn count(said: &RawValue) -> Option<u64> {
    let text = said.get().trim_matches('"').trim();
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let number = text.parse::<f64>().ok().filter(|number| *number >= 1.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is at least 1, and what is too large becomes the largest"
    )]
    let count = number as u64;
    Some(count)
}

/// How many prompts there are: a list of texts or of lists of tokens has several.
#[derive(Debug)]
struct Prompts(u64);

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all: &RawValue = Deserialize::deserialize(deserializer)?;
        if !all.get().starts_with('[') {
            return Ok(Self(1));
        }
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = u64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<u64, A::Error> {
                let mut prompts = 0;
                while let Some(one) = all.next_element::<&RawValue>()? {
                    prompts += u64::from(one.get().starts_with(['"', '[']));
                }
                Ok(prompts)
            }
        }
        let mut list = serde_json::Deserializer::from_str(all.get());
        let prompts = list.deserialize_seq(List).map_err(de::Error::custom)?;
        Ok(Self(prompts.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use Operation::{Chat, Embeddings, Other, Responses, TextCompletion};

    use super::*;

    fn output(operation: Operation, body: &str) -> u64 {
        of(operation, body.as_bytes(), None, None).1
    }

    #[test]
    fn each_answer_to_each_prompt_is_counted() {
        let cases = [
            (Chat, r#"{"messages":[]}"#, 256),
            (Chat, r#"{"max_tokens":10,"n":128}"#, 1280),
            (Chat, r#"{"max_completion_tokens":20,"max_tokens":10,"n":2}"#, 40),
            (Chat, r#"{"max_tokens":10,"n":1000}"#, 10_000),
            (Chat, r#"{"max_tokens":"10","n":2.0}"#, 20),
            (Chat, r#"{"max_tokens":1e2,"n":1,"n":3}"#, 300),
            (Chat, r#"{"max_tokens":10,"n":null}"#, 10),
            (Chat, r#"{"max_tokens":10,"n":0}"#, 10),
            (Chat, r#"{"\u006e":7,"max_tokens":10}"#, 70),
            (TextCompletion, r#"{"prompt":"a","max_tokens":10,"best_of":5,"n":2}"#, 50),
            (TextCompletion, r#"{"prompt":["a","b","c"],"max_tokens":10}"#, 30),
            (TextCompletion, r#"{"prompt":[1,2,3],"max_tokens":10}"#, 10),
            (TextCompletion, r#"{"prompt":[[1,2],[3]],"max_tokens":10,"n":4}"#, 80),
            (TextCompletion, r#"{"prompt":[],"max_tokens":10}"#, 10),
            (TextCompletion, r#"{"prompt":["a","b"]}"#, 512),
            (Responses, r#"{"input":"a","max_output_tokens":30,"n":9}"#, 30),
            (Embeddings, r#"{"input":["a","b"]}"#, 0),
            (Chat, "no JSON", 256),
            (Chat, r#"{"max_tokens":18446744073709551615,"n":3}"#, u64::MAX),
        ];
        for (operation, body, expected) in cases {
            assert_eq!(output(operation, body), expected, "{body}");
        }
        // What was read before counts where it is more.
        assert_eq!(of(Chat, b"{}", Some(7), Some(3)), (0, 21));
        assert_eq!(of(Other, b"12345678", Some(7), None), (2, 7));
    }
}
