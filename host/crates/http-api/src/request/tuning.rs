//! How the model in this process is to generate, in OpenAI's and vLLM's words.

use tollgate_domain::record::{Asked, Operation};
use tollgate_gateway::Tuning;

use super::fields::{Field, Fields, Invalid};
use super::parameters::number_in;
use super::{completion, format};

/// Most tokens with a bias, and most that end a text.
const MOST_BIASES: usize = 1024;
const MOST_STOP_TOKENS: usize = 128;

/// Likeliest tokens that are told in the place of each.
const MOST_LOGPROBS: i128 = 20;

/// Reads all of it but what has been read as `asked`.
pub(super) fn read(
    operation: Operation,
    fields: &Fields<'_>,
    asked: &Asked,
) -> Result<Tuning, Invalid> {
    let none = Tuning::default();
    let number = |name, range, expected, default| {
        Ok::<_, Invalid>(number_in(fields, name, range, expected)?.unwrap_or(default))
    };
    let penalty = |name| number(name, -2.0..=2.0, "a number from -2 to 2", 0.0);
    Ok(Tuning {
        min_p: number("min_p", 0.0..=1.0, "a number from 0 to 1", none.min_p)?,
        repetition_penalty: number(
            "repetition_penalty",
            f64::MIN_POSITIVE..=100.0,
            "a number above 0 and at most 100",
            none.repetition_penalty,
        )?,
        frequency_penalty: penalty("frequency_penalty")?,
        presence_penalty: penalty("presence_penalty")?,
        logit_bias: logit_bias(fields)?,
        stop_token_ids: stop_token_ids(fields)?,
        ignore_eos: fields.get("ignore_eos").map_or(Ok(false), |field| field.boolean())?,
        min_tokens: min_tokens(fields, asked.max_tokens)?,
        logprobs: logprobs(operation, fields)?,
        prompt_logprobs: prompt_logprobs(fields, asked.stream)?,
        echo: echo(operation, fields)?,
        schema: format::schema(fields)?,
        dimensions: None,
    })
}

/// In chats a switch and a number beside it, in completions a number.
fn logprobs(operation: Operation, fields: &Fields<'_>) -> Result<Option<u32>, Invalid> {
    let top = |field: &Field<'_>| {
        let top = field.integer_in(0..=MOST_LOGPROBS, "an integer from 0 to 20")?;
        Ok::<_, Invalid>(u32::try_from(top).unwrap_or_default())
    };
    if operation != Operation::Chat {
        return fields.get("logprobs").map(|field| top(&field)).transpose();
    }
    let wanted = fields.get("logprobs").map_or(Ok(false), |field| field.boolean())?;
    match fields.get("top_logprobs") {
        Some(field) => match top(&field)? {
            0 if !wanted => Ok(None),
            _ if !wanted => {
                Err(field.refuse("`top_logprobs` is allowed only with `logprobs`: true."))
            }
            top => Ok(Some(top)),
        },
        None => Ok(wanted.then_some(0)),
    }
}

/// Whether a completion begins with its prompt.
fn echo(operation: Operation, fields: &Fields<'_>) -> Result<bool, Invalid> {
    let Some(field) = fields.get("echo").filter(|_| operation == Operation::TextCompletion) else {
        return Ok(false);
    };
    field.boolean()
}

/// vLLM's, which has no place in a stream either.
fn prompt_logprobs(fields: &Fields<'_>, stream: bool) -> Result<Option<u32>, Invalid> {
    let Some(field) = fields.get("prompt_logprobs") else { return Ok(None) };
    let top = field.integer_in(0..=MOST_LOGPROBS, "an integer from 0 to 20")?;
    if stream {
        return Err(field.refuse("`prompt_logprobs` is not allowed with `stream`: true."));
    }
    Ok(u32::try_from(top).ok())
}

/// An object of biases by token id.
fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(u32, f64)>, Invalid> {
    let Some(field) = fields.get("logit_bias") else { return Ok(Vec::new()) };
    let biases = field.fields()?;
    if biases.len() > MOST_BIASES {
        return Err(field.refuse(format!("`logit_bias` must have at most {MOST_BIASES} tokens.")));
    }
    let one = |name: &str| {
        let token = name
            .parse()
            .map_err(|_| field.refuse("`logit_bias` must have ids of tokens as its keys."))?;
        let expected = "a number from -100 to 100";
        Ok((token, number_in(&biases, name, -100.0..=100.0, expected)?.unwrap_or_default()))
    };
    biases.names().map(one).collect()
}

fn stop_token_ids(fields: &Fields<'_>) -> Result<Vec<u32>, Invalid> {
    let Some(field) = fields.get("stop_token_ids") else { return Ok(Vec::new()) };
    let elements = field.elements("an array of token ids")?;
    if elements.len() > MOST_STOP_TOKENS {
        return Err(field.refuse(format!("`stop_token_ids` must have at most {MOST_STOP_TOKENS}.")));
    }
    completion::ids(&elements)
}

fn min_tokens(fields: &Fields<'_>, max_tokens: Option<u32>) -> Result<u32, Invalid> {
    let Some(field) = fields.get("min_tokens") else { return Ok(0) };
    let least = field.integer_in(0.., "an integer of at least 0")?;
    let least = u32::try_from(least).unwrap_or(u32::MAX);
    if max_tokens.is_some_and(|most| least > most) {
        return Err(field.refuse("`min_tokens` must be at most `max_tokens`."));
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned(body: &str) -> Result<Tuning, Invalid> {
        let asked = Asked { max_tokens: Some(10), ..Asked::default() };
        read(Operation::TextCompletion, &Fields::parse(body.as_bytes()).unwrap(), &asked)
    }

    fn tuned_chat(body: &str) -> Result<Tuning, Invalid> {
        let asked = Asked { stream: true, ..Asked::default() };
        read(Operation::Chat, &Fields::parse(body.as_bytes()).unwrap(), &asked)
    }

    #[test]
    fn each_operation_asks_for_logprobs_in_its_own_way() {
        let told = |body: &str| tuned_chat(body).unwrap().logprobs;
        assert_eq!(told(r#"{"logprobs":false,"top_logprobs":0}"#), None);
        assert_eq!(told(r#"{"logprobs":true}"#), Some(0));
        assert_eq!(told(r#"{"logprobs":true,"top_logprobs":20}"#), Some(20));
        assert_eq!(tuned(r#"{"logprobs":0}"#).unwrap().logprobs, Some(0));
        assert_eq!(tuned(r#"{"logprobs":5}"#).unwrap().logprobs, Some(5));
        assert_eq!(tuned(r#"{"prompt_logprobs":0}"#).unwrap().prompt_logprobs, Some(0));
        assert!(
            tuned(r#"{"echo":true}"#).unwrap().echo
                && !tuned_chat(r#"{"echo":true}"#).unwrap().echo
        );
        let cases = [
            (tuned_chat(r#"{"logprobs":5}"#), "logprobs", "true or false, not 5."),
            (tuned_chat(r#"{"top_logprobs":2}"#), "top_logprobs", "only with `logprobs`: true."),
            (
                tuned_chat(r#"{"logprobs":true,"top_logprobs":21}"#),
                "top_logprobs",
                "0 to 20, not 21.",
            ),
            (tuned(r#"{"logprobs":true}"#), "logprobs", "0 to 20, not true."),
            (tuned(r#"{"echo":1}"#), "echo", "true or false, not 1."),
            (tuned(r#"{"prompt_logprobs":21}"#), "prompt_logprobs", "0 to 20, not 21."),
            (
                tuned_chat(r#"{"prompt_logprobs":1}"#),
                "prompt_logprobs",
                "not allowed with `stream`",
            ),
        ];
        for (refused, param, message) in cases {
            let invalid = refused.unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param));
            assert!(invalid.message.contains(message), "{}", invalid.message);
        }
    }

    #[test]
    fn options_are_read() {
        let none = Tuning::default;
        let cases = [
            ("{}", none()),
            (r#"{"min_p":null,"logit_bias":{},"stop_token_ids":[],"min_tokens":0}"#, none()),
            (r#"{"min_p":0.5}"#, Tuning { min_p: 0.5, ..none() }),
            (r#"{"repetition_penalty":1.1}"#, Tuning { repetition_penalty: 1.1, ..none() }),
            (
                r#"{"frequency_penalty":-2,"presence_penalty":2}"#,
                Tuning { frequency_penalty: -2.0, presence_penalty: 2.0, ..none() },
            ),
            (
                r#"{"logit_bias":{"5":-100,"7":1.5}}"#,
                Tuning { logit_bias: vec![(5, -100.0), (7, 1.5)], ..none() },
            ),
            (
                r#"{"stop_token_ids":[1,2],"ignore_eos":true,"min_tokens":10}"#,
                Tuning { stop_token_ids: vec![1, 2], ignore_eos: true, min_tokens: 10, ..none() },
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(tuned(body).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (r#"{"min_p":1.5}"#, "min_p", "from 0 to 1, not 1.5."),
            (
                r#"{"repetition_penalty":0}"#,
                "repetition_penalty",
                "above 0 and at most 100, not 0.",
            ),
            (r#"{"frequency_penalty":3}"#, "frequency_penalty", "from -2 to 2, not 3."),
            (r#"{"presence_penalty":"x"}"#, "presence_penalty", "not a string."),
            (r#"{"logit_bias":{"a":1}}"#, "logit_bias", "ids of tokens"),
            (r#"{"logit_bias":{"5":101}}"#, "logit_bias.5", "from -100 to 100, not 101."),
            (r#"{"logit_bias":[1]}"#, "logit_bias", "an object"),
            (r#"{"stop_token_ids":[-1]}"#, "stop_token_ids[0]", "a token id"),
            (r#"{"ignore_eos":1}"#, "ignore_eos", "true or false"),
            (r#"{"min_tokens":11}"#, "min_tokens", "at most `max_tokens`."),
            (r#"{"min_tokens":-1}"#, "min_tokens", "not -1."),
        ];
        for (body, param, message) in cases {
            let invalid = tuned(body).unwrap_err();
            assert_eq!(invalid.param.as_deref(), Some(param), "{body}");
            assert!(invalid.message.contains(message), "{body}: {}", invalid.message);
        }
    }
}
