//! Vectors of texts, in OpenAI's shape, with what they cost.
//!
//! A vector is written as numbers, or as the base64 of its numbers in little-endian order, which is
//! what OpenAI's own clients ask for.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tollgate_domain::record::Operation;
use tollgate_gateway::{Answer, AnswerEvent, Ending, Piece};

use crate::account::Account;
use crate::response::{Head, json, to_json};
use crate::{error, headers};

/// Waits for all vectors, then sends them.
pub(crate) async fn whole(inputs: usize, mut answer: Answer, base64: bool) -> Response {
    let head = Head::new(Operation::Embeddings, &answer);
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); inputs];
    loop {
        match answer.next().await {
            Some(AnswerEvent::Piece(Piece { choice, embedding, .. })) => {
                if let (Some(vector), Some(embedding)) = (vectors.get_mut(choice), embedding) {
                    *vector = embedding;
                }
            }
            // Only answers of other servers have any; `forwarded` tells those.
            Some(AnswerEvent::Bytes(_)) => {}
            Some(AnswerEvent::Ended(ending)) => return ended(&head, vectors, &ending, base64),
            None => return error::response(&head.cut_off(), None),
        }
    }
}

fn ended(head: &Head, vectors: Vec<Vec<f32>>, ending: &Ending, base64: bool) -> Response {
    let account = Account::new(&ending.tokens, &ending.cost, head.trace_id);
    let mut response = match &ending.result {
        Ok(()) => {
            (StatusCode::OK, json(body(head, vectors, ending, account, base64))).into_response()
        }
        Err(failure) => error::response(&head.on_record(failure.clone()), Some(&account)),
    };
    headers::set_ids(response.headers_mut(), &head.id, head.trace_id);
    headers::set_cost(response.headers_mut(), &ending.cost);
    response
}

fn body(
    head: &Head,
    vectors: Vec<Vec<f32>>,
    ending: &Ending,
    account: Account<'_>,
    base64: bool,
) -> String {
    let vector = |vector: Vec<f32>| match base64 {
        true => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
        false => Vector::Numbers(vector),
    };
    let data = vectors.into_iter().enumerate().map(|(index, numbers)| Embedding {
        object: "embedding",
        index,
        embedding: vector(numbers),
    });
    let (prompt_tokens, total_tokens) = (ending.tokens.input, ending.tokens.total());
    to_json(&Body {
        object: "list",
        data: data.collect(),
        model: &head.model,
        usage: Usage { prompt_tokens, total_tokens },
        account,
    })
}

#[derive(Serialize)]
struct Body<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: Usage,
    #[serde(flatten)]
    account: Account<'a>,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[cfg(test)]
mod tests {
    use tollgate_domain::record::FinishReason;

    use super::*;
    use crate::response::tests::{ending, head};

    #[test]
    fn vectors_are_openai_s_in_either_form() {
        let (ending, head) = (ending(Ok(FinishReason::Stop)), head(Operation::Embeddings));
        for (base64, first, second) in
            [(false, "[0.5,-1.0]", "[0.0]"), (true, r#""AAAAPwAAgL8=""#, r#""AAAAAA==""#)]
        {
            let account = Account::new(&ending.tokens, &ending.cost, head.trace_id);
            let body = body(&head, vec![vec![0.5, -1.0], vec![0.0]], &ending, account, base64);
            let expected = format!(
                r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{first}}},{{"object":"embedding","index":1,"embedding":{second}}}],"model":"mistral-7b","usage":{{"prompt_tokens":12,"total_tokens":15}},"prompt_tokens":12"#
            );
            assert!(body.starts_with(&expected), "{body}");
        }
    }
}
