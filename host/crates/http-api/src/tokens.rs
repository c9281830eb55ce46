//! `/tokenize` and `/detokenize`, in vLLM's shapes: for clients that count before they ask.

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tollgate_gateway::{Caller, Gateway, Refusal};

use crate::request::tokens as requests;
use crate::response::{json, to_json};

#[derive(Serialize)]
struct Tokenized {
    count: usize,
    max_model_len: u32,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Detokenized {
    prompt: String,
}

/// Which of the two is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    Tokenize,
    Detokenize,
}

/// The answer to one of them.
///
/// # Errors
/// 400 or 404, with the parameter that is wrong.
pub(crate) fn answer(
    question: Question,
    gateway: &Gateway,
    caller: &Caller,
    body: &[u8],
) -> Result<Response, Refusal> {
    let told = match question {
        Question::Tokenize => {
            let requests::Tokenize { asked, names } = requests::tokenize(body)?;
            let tokens = gateway.tokenize(caller, &asked)?;
            to_json(&Tokenized {
                count: tokens.ids.len(),
                max_model_len: tokens.context_length,
                tokens: tokens.ids,
                token_strs: names.then_some(tokens.names),
            })
        }
        Question::Detokenize => {
            let requests::Detokenize { model, tokens } = requests::detokenize(body)?;
            to_json(&Detokenized { prompt: gateway.detokenize(caller, &model, &tokens)? })
        }
    };
    Ok(json(told).into_response())
}
