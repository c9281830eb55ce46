//! Whole answers: OpenAI's shape plus what the request used and cost.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tollgate_domain::record::{FinishReason, Operation};
use tollgate_domain::{ErrorKind, RequestId, TraceId};
use tollgate_gateway::{Answer, AnswerEvent, Ending, Piece, Refusal, TokenTold};

use crate::account::{Account, Usage};
use crate::logprobs::{self, Logprobs};
use crate::wire::Wire;
use crate::{error, headers};

/// What every piece of one answer repeats.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) operation: Operation,
    pub(crate) id: RequestId,
    pub(crate) trace_id: TraceId,
    /// Seconds since the epoch.
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Head {
    pub(crate) fn new(operation: Operation, answer: &Answer) -> Self {
        Self {
            operation,
            id: answer.id.clone(),
            trace_id: answer.trace_id,
            created: answer.created.seconds(),
            model: answer.model.clone(),
        }
    }

    /// The id as OpenAI's clients know it.
    pub(crate) fn wire_id(&self) -> String {
        self.operation.answer_id(&self.id)
    }

    /// `failure` under the ids of this answer, if it has none of its own.
    pub(crate) fn on_record(&self, mut failure: Refusal) -> Refusal {
        failure.recorded.get_or_insert_with(|| Box::new((self.id.clone(), self.trace_id)));
        failure
    }

    /// The failure of an answer that stops without an ending, which it never should.
    pub(crate) fn cut_off(&self) -> Refusal {
        self.on_record(Refusal::new(ErrorKind::Internal, "The answer was cut off."))
    }
}

/// One choice as far as it has come.
#[derive(Default)]
struct Told {
    text: String,
    tokens: Vec<TokenTold>,
    /// Those of the prompt, for `prompt_logprobs`.
    prompt: Option<Vec<TokenTold>>,
    reason: Option<FinishReason>,
}

/// Waits for the whole answer, then sends it.
pub(crate) async fn whole(
    operation: Operation,
    choices: usize,
    mut answer: Answer,
    wire: Wire,
) -> Response {
    let head = Head::new(operation, &answer);
    // Each is bounded by the model's context.
    let mut told: Vec<Told> = std::iter::repeat_with(Told::default).take(choices).collect();
    loop {
        match answer.next().await {
            Some(AnswerEvent::Piece(piece)) => {
                let Piece { choice, text, tokens, prompt, finish_reason, .. } = piece;
                if let Some(told) = told.get_mut(choice) {
                    told.text.push_str(&text);
                    if !prompt.is_empty() {
                        told.tokens.extend(wire.echoed(&prompt));
                        told.prompt = wire.prompt(&prompt);
                    }
                    told.tokens.extend(tokens);
                    told.reason = finish_reason.or(told.reason);
                }
            }
            // Only answers of other servers have any; `forwarded` tells those.
            Some(AnswerEvent::Bytes(_)) => {}
            Some(AnswerEvent::Ended(ending)) => return ended(&head, told, &ending),
            None => return error::response(&head.cut_off(), None),
        }
    }
}

/// An HTTP body that is JSON already.
pub(crate) fn json(body: String) -> impl IntoResponse {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], body)
}

/// `value` in JSON. Our own types always have one; should one not, the client is told so.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        r#"{"error":{"message":"The answer could not be written.","type":"server_error","param":null,"code":"internal_error"}}"#.to_owned()
    })
}

fn ended(head: &Head, told: Vec<Told>, ending: &Ending) -> Response {
    let account = Account::new(&ending.tokens, &ending.cost, head.trace_id);
    let mut response = match &ending.result {
        Ok(_) => (StatusCode::OK, json(body(head, told, ending, account))).into_response(),
        Err(failure) => error::response(&head.on_record(failure.clone()), Some(&account)),
    };
    headers::set_ids(response.headers_mut(), &head.id, head.trace_id);
    headers::set_cost(response.headers_mut(), &ending.cost);
    response
}

fn body(head: &Head, mut told: Vec<Told>, ending: &Ending, account: Account<'_>) -> String {
    let logprobs: Vec<Option<Logprobs>> = told
        .iter_mut()
        .map(|told| {
            let tokens = std::mem::take(&mut told.tokens);
            logprobs::Writer::default().write(head.operation, tokens)
        })
        .collect();
    let prompt = |told: &Told| told.prompt.as_deref().map(logprobs::Writer::prompt);
    // vLLM tells it once of a chat, and of each choice of a completion.
    let is_chat = head.operation == Operation::Chat;
    let of_all = told.first().filter(|_| is_chat).and_then(prompt);
    let choices = told.iter().zip(logprobs).enumerate().map(|(index, (told, logprobs))| Indexed {
        index,
        prompt_logprobs: if is_chat { None } else { prompt(told) },
        choice: match head.operation {
            Operation::Chat => Choice::Chat {
                message: Message { role: "assistant", content: &told.text, refusal: None },
            },
            _ => Choice::Completion { text: &told.text },
        },
        logprobs,
        finish_reason: told.reason.map(FinishReason::name),
    });
    let object = match head.operation {
        Operation::Chat => "chat.completion",
        _ => "text_completion",
    };
    to_json(&Body {
        id: head.wire_id(),
        object,
        created: head.created,
        model: &head.model,
        choices: choices.collect(),
        usage: Usage::from(&ending.tokens),
        prompt_logprobs: of_all,
        text: told.first().map_or("", |told| &told.text),
        account,
    })
}

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Indexed<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<logprobs::Prompt>,
    /// Of the first choice.
    text: &'a str,
    #[serde(flatten)]
    account: Account<'a>,
}

#[derive(Serialize)]
struct Indexed<'a> {
    index: usize,
    #[serde(flatten)]
    choice: Choice<'a>,
    logprobs: Option<Logprobs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<logprobs::Prompt>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Chat { message: Message<'a> },
    Completion { text: &'a str },
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use tollgate_domain::usage::UsageSource;

    use super::*;
    use crate::account::tests::{priced, tokens};

    pub(crate) fn head(operation: Operation) -> Head {
        Head {
            operation,
            id: RequestId("r1".to_owned()),
            trace_id: TraceId(7),
            created: 1_700_000_000,
            model: "mistral-7b".to_owned(),
        }
    }

    pub(crate) fn ending(result: Result<FinishReason, Refusal>) -> Ending {
        Ending {
            result: result.map(drop),
            tokens: tokens(),
            source: UsageSource::Reported,
            cost: priced(3_600_000, "USD"),
            rest: Bytes::new(),
        }
    }

    const USAGE: &str = r#""usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":0}}"#;
    const ACCOUNT: &str = r#""prompt_tokens":12,"completion_tokens":3,"estimated_cost_usd":0.0000036,"cost":{"status":"priced","amount":"0.0000036","currency":"USD","plugin":{"name":"tollgate/cost-per-token","version":"0.1.0","digest":"ab12"}},"trace_id":"00000000000000000000000000000007""#;

    fn told(text: &str, reason: FinishReason) -> Told {
        Told { text: text.to_owned(), reason: Some(reason), ..Told::default() }
    }

    #[test]
    fn choices_are_numbered() {
        let ending = ending(Ok(FinishReason::Stop));
        let head = head(Operation::TextCompletion);
        let account = Account::new(&ending.tokens, &ending.cost, head.trace_id);
        let all = vec![told("a", FinishReason::Stop), told("b", FinishReason::Length)];
        let body = body(&head, all, &ending, account);
        assert!(body.contains(
            r#""choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"b","logprobs":null,"finish_reason":"length"}]"#
        ), "{body}");
        assert!(body.contains(r#","text":"a","prompt_tokens""#), "{body}");
    }

    fn written(operation: Operation) -> String {
        let ending = ending(Ok(FinishReason::Stop));
        let head = head(operation);
        let account = Account::new(&ending.tokens, &ending.cost, head.trace_id);
        body(&head, vec![told("Paging \"helps\".", FinishReason::Stop)], &ending, account)
    }

    #[test]
    fn a_completion_is_openai_s_and_the_tutorial_s() {
        assert_eq!(
            written(Operation::TextCompletion),
            format!(
                r#"{{"id":"cmpl-r1","object":"text_completion","created":1700000000,"model":"mistral-7b","choices":[{{"index":0,"text":"Paging \"helps\".","logprobs":null,"finish_reason":"stop"}}],{USAGE},"text":"Paging \"helps\".",{ACCOUNT}}}"#
            )
        );
    }

    #[test]
    fn a_chat_completion_is_too() {
        assert_eq!(
            written(Operation::Chat),
            format!(
                r#"{{"id":"chatcmpl-r1","object":"chat.completion","created":1700000000,"model":"mistral-7b","choices":[{{"index":0,"message":{{"role":"assistant","content":"Paging \"helps\".","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},"text":"Paging \"helps\".",{ACCOUNT}}}"#
            )
        );
    }

    #[test]
    fn headers_say_what_it_cost_also_when_it_failed() {
        let failure = Refusal::new(ErrorKind::Backend, "The engine stopped.");
        for (result, status) in [(Ok(FinishReason::Length), 200), (Err(failure), 502)] {
            let response = ended(&head(Operation::Chat), vec![Told::default()], &ending(result));
            assert_eq!(response.status(), status);
            let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
            assert_eq!(header("x-tollgate-cost"), Some("0.0000036 USD"));
            assert_eq!(header("x-tollgate-cost-status"), Some("priced"));
            assert_eq!(header("x-request-id"), Some("r1"));
        }
    }
}
