//! Questions about tokens, in vLLM's words: `/tokenize` and `/detokenize`.

use tollgate_gateway::{Prompt, Refusal, ToTokens};

use super::fields::{Fields, Invalid};
use super::{chat, completion, parameters, unserved};

/// What `/tokenize` is asked.
#[derive(Debug)]
pub(crate) struct Tokenize {
    pub(crate) asked: ToTokens,
    /// Whether the tokens are told by name too.
    pub(crate) names: bool,
}

/// What `/detokenize` is asked.
#[derive(Debug)]
pub(crate) struct Detokenize {
    pub(crate) model: String,
    pub(crate) tokens: Vec<u32>,
}

/// Reads `/tokenize`.
///
/// # Errors
/// 400, with the parameter that is wrong.
pub(crate) fn tokenize(body: &[u8]) -> Result<Tokenize, Refusal> {
    Ok(read_tokenize(&Fields::parse(body)?)?)
}

/// Reads `/detokenize`.
///
/// # Errors
/// 400, with the parameter that is wrong.
pub(crate) fn detokenize(body: &[u8]) -> Result<Detokenize, Refusal> {
    let fields = Fields::parse(body)?;
    let field = fields.require("tokens")?;
    let tokens = match field.is_empty() {
        true => Vec::new(),
        false => completion::token_ids(&field)?,
    };
    Ok(Detokenize { model: parameters::model(&fields)?.unwrap_or_default(), tokens })
}

fn read_tokenize(fields: &Fields<'_>) -> Result<Tokenize, Invalid> {
    let switch = |name| fields.get(name).map(|field| field.boolean()).transpose();
    let prompt = match fields.get("messages") {
        Some(_) => Prompt::Chat(chat::messages(fields)?),
        None => Prompt::Text(fields.require("prompt")?.text()?),
    };
    unserved::check(fields)?;
    let model = parameters::model(fields)?.unwrap_or_default();
    let add_special = switch("add_special_tokens")?;
    let names = switch("return_token_strs")?.unwrap_or_default();
    Ok(Tokenize { asked: ToTokens { model, prompt, add_special }, names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read() {
        let read = tokenize(br#"{"prompt":"Hi","return_token_strs":true}"#).unwrap();
        assert!(read.names && read.asked.model.is_empty() && read.asked.add_special.is_none());
        assert!(matches!(read.asked.prompt, Prompt::Text(text) if text == "Hi"));
        let body = br#"{"model":"m","messages":[{"role":"user","content":"Hi"}],"add_special_tokens":false}"#;
        let read = tokenize(body).unwrap();
        assert!(!read.names && read.asked.model == "m" && read.asked.add_special == Some(false));
        assert!(matches!(read.asked.prompt, Prompt::Chat(all) if all.len() == 1));
        for (body, tokens) in [(r#"{"tokens":[1,2]}"#, vec![1, 2]), (r#"{"tokens":[]}"#, vec![])] {
            assert_eq!(detokenize(body.as_bytes()).unwrap().tokens, tokens);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            ("{}", Some("prompt")),
            (r#"{"prompt":[1]}"#, Some("prompt")),
            (r#"{"prompt":"a","add_special_tokens":1}"#, Some("add_special_tokens")),
            (
                r#"{"messages":[{"role":"user","content":"a"}],"add_generation_prompt":false}"#,
                Some("add_generation_prompt"),
            ),
            ("[]", None),
        ] {
            assert_eq!(tokenize(body.as_bytes()).unwrap_err().param.as_deref(), param, "{body}");
        }
        for (body, param) in [("{}", "tokens"), (r#"{"tokens":[-1]}"#, "tokens[0]")] {
            assert_eq!(detokenize(body.as_bytes()).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
