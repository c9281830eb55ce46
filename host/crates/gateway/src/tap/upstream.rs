//! Taps another server's answer.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::task::block_in_place;
use tollgate_domain::record::{FinishReason, Operation};
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{ErrorKind, TokenUsage};
use tollgate_model::estimate::count_tokens;
use tollgate_upstream::{
    Account, Exchange, Form, Piece, PieceKind, UpstreamError, UpstreamErrorKind,
};

use crate::call::{AnswerEvent, Refusal};
use crate::tap::{Response, Tap, Tapped, Times};
use crate::{forward, prompt};

/// Bytes of output that are a token, for what is noted on the way.
const CHARS_PER_TOKEN: u64 = 4;

/// What was asked, for the counts of a server that tells none.
pub(crate) struct Question {
    pub(crate) operation: Operation,
    /// As the backend calls it.
    pub(crate) model: String,
    pub(crate) body: Bytes,
    /// Tokens of the prompt, roughly.
    pub(crate) prompt_tokens: u64,
    /// Those of its images and sounds, which no tokenizer counts.
    pub(crate) media_tokens: u64,
}

impl Question {
    /// Tokens of the prompt, by the tokenizer that is closest.
    fn count(&self) -> u64 {
        let text = prompt::estimated_tokens(&self.model, self.operation, &self.body);
        text.saturating_add(self.media_tokens)
    }
}

/// Passes the answer on until it ends or the client is gone, which closes the connection to the
/// backend, by which it learns that nobody wants the rest.
pub(crate) async fn run(mut exchange: Exchange, question: &Question, tap: Tap<'_>) -> Tapped {
    let mut rest = BytesMut::new();
    let (mut client_is_here, mut failure, mut passed) = (true, None, false);
    while client_is_here {
        let piece = tokio::select! {
            piece = exchange.next() => piece,
            () = tap.pieces.closed() => {
                client_is_here = false;
                continue;
            }
        };
        match piece {
            None => break,
            Some(Ok(Piece { bytes, kind: PieceKind::Last })) => rest.extend_from_slice(&bytes),
            Some(Ok(Piece { bytes, kind: PieceKind::Body })) => {
                let output = exchange.account().output_chars / CHARS_PER_TOKEN;
                tap.ticket.progress(question.prompt_tokens, output);
                client_is_here = tap.pass(AnswerEvent::Bytes(bytes)).await;
                passed |= client_is_here;
            }
            Some(Err(error)) => {
                failure = Some(broken(&error));
                break;
            }
        }
    }
    let ended = Instant::now();
    let (status, form) = (exchange.head().status, exchange.form());
    let streamed = form == Form::Events;
    let account = exchange.into_account();
    if let Some(content) = tap.content {
        content.answered(0, &account.output_text);
    }
    if failure.is_none() {
        failure = reported(&account, status);
    }
    let known = question.operation != Operation::Other;
    if failure.is_none() && client_is_here && form == Form::Whole && known && !is_object(&rest) {
        failure = Some(Refusal::new(ErrorKind::Backend, "The backend's answer is no JSON object."));
        rest.clear();
    }
    // What failed before any of it had reached the client is no answer, and costs nothing unless the backend says that it
    // has used something.
    let nothing = failure.is_some() && !passed && account.usage.is_none();
    let served = forward::refused_by(status).is_none() && !nothing;
    let (tokens, source) = match served {
        true => tokens(&account, question),
        false => (TokenUsage::default(), UsageSource::Reported),
    };
    Tapped {
        whole: client_is_here && account.ended,
        served,
        reasons: account.finish_reasons.iter().map(|reason| reason_of(reason)).collect(),
        failure,
        tokens,
        source,
        compute: None,
        engine: None,
        times: times(&account, streamed, ended),
        response: Response {
            model: account.response_model,
            id: account.response_id,
            service_tier: account.service_tier,
        },
        rest: rest.freeze(),
    }
}

/// What the backend reported, or, of what it did not, an estimate by another's tokenizer.
fn tokens(account: &Account, question: &Question) -> (TokenUsage, UsageSource) {
    match account.usage {
        Some(usage) if account.output_reported => (usage, UsageSource::Reported),
        // Counting takes long, if there is much to count.
        reported => {
            let counted = block_in_place(|| count(account, question, reported));
            (counted, UsageSource::Estimated)
        }
    }
}

/// What is not reported, by the tokenizer that is closest.
fn count(account: &Account, question: &Question, reported: Option<TokenUsage>) -> TokenUsage {
    let output = counted_output(&question.model, account);
    if let Some(usage) = reported {
        return TokenUsage { output: usage.output.max(output), ..usage };
    }
    TokenUsage { input: question.count(), output, ..TokenUsage::default() }
}

/// Tokens of the output: those that were reported, and those of the text that has come since. What there was no room for
/// has as many tokens for its characters as what was kept.
fn counted_output(model: &str, account: &Account) -> u64 {
    let text = account.output_text.as_str();
    let kept = count_tokens(model, text);
    let beyond = match u128::try_from(text.chars().count()) {
        Ok(characters) if characters > 0 => {
            let tokens = u128::from(account.output_beyond) * u128::from(kept) / characters;
            u64::try_from(tokens).unwrap_or(u64::MAX)
        }
        _ => account.output_beyond / CHARS_PER_TOKEN,
    };
    account.output_covered.saturating_add(kept).saturating_add(beyond)
}

/// The phases that the backend reports, or that can be seen from here.
fn times(account: &Account, streamed: bool, ended: Instant) -> Times {
    let first = account.first_token_at;
    let Some(phases) = account.phases else {
        // Of a stream it is seen when it was made; of a whole answer only that it was there.
        let seen = first.filter(|_| streamed);
        return Times {
            first_text: first,
            prefilled: seen,
            ended: Some(ended),
            ..Times::default()
        };
    };
    let after = |from: Option<Instant>, phase: Duration| from.and_then(|at| at.checked_add(phase));
    let last = if streamed { after(first, phases.decode) } else { first };
    let began = if streamed { first } else { first.and_then(|at| at.checked_sub(phases.decode)) };
    Times {
        started: began.and_then(|at| at.checked_sub(phases.prefill)),
        prefilled: began,
        first_text: if streamed { first } else { None },
        decoded: last,
        ended: Some(ended),
    }
}

fn reason_of(reason: &str) -> FinishReason {
    match reason {
        "stop" => FinishReason::Stop,
        "length" | "max_output_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// The error that the backend reports, in a stream or as its answer.
fn reported(account: &Account, status: u16) -> Option<Refusal> {
    let said = account.error.as_ref().map(|error| error.message.as_str());
    let kind = match (forward::refused_by(status), said) {
        (Some(ErrorKind::ModelNotFound), _) if !misses_the_model(account) => ErrorKind::NotFound,
        (Some(kind), _) => kind,
        (None, Some(_)) => ErrorKind::Backend,
        (None, None) => return None,
    };
    let said = said.filter(|said| !said.is_empty()).unwrap_or("no reason given");
    Some(Refusal::new(kind, format!("The backend answered {status}: {said}")))
}

/// Whether a plain answer is an object, as all are that mean anything here.
fn is_object(answer: &[u8]) -> bool {
    answer.trim_ascii_start().first() == Some(&b'{')
}

/// Whether what the backend does not find is the model: it may be an answer that it was to go on with, or the path.
fn misses_the_model(account: &Account) -> bool {
    account.error.as_ref().is_some_and(|error| {
        let code = error.code.as_deref().is_some_and(|code| code == "model_not_found");
        code || error.message.to_lowercase().contains("model")
    })
}

/// How an answer broke off.
fn broken(error: &UpstreamError) -> Refusal {
    tracing::warn!(%error, "an answer broke off");
    let (kind, message) = match error.kind() {
        UpstreamErrorKind::Timeout => {
            (ErrorKind::BackendTimeout, "The backend stopped in the middle of its answer.")
        }
        _ => (ErrorKind::Backend, "The backend's answer broke off."),
    };
    Refusal::new(kind, message)
}

/// What came of a request that no backend answered. `asked`: what one was at work on when the client left. It has read the
/// prompt, or soon will have, and bills it.
pub(crate) fn unanswered(failure: Option<Refusal>, asked: Option<&Question>) -> Tapped {
    let input = asked.map_or(0, |question| block_in_place(|| question.count()));
    Tapped {
        whole: false,
        served: asked.is_some(),
        reasons: Vec::new(),
        failure,
        tokens: TokenUsage { input, ..TokenUsage::default() },
        source: UsageSource::Estimated,
        compute: None,
        engine: None,
        times: Times { ended: Some(Instant::now()), ..Times::default() },
        response: Response::default(),
        rest: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(text: &str, beyond: u64, covered: u64) -> Account {
        let mut account = Account::default();
        account.output_text = text.to_owned();
        (account.output_beyond, account.output_covered) = (beyond, covered);
        account
    }

    #[test]
    fn all_of_an_output_is_counted() {
        let words = "word ".repeat(1000);
        let kept = counted_output("gpt-4o", &account(&words, 0, 0));
        assert!(kept >= 1000, "{kept}");
        assert_eq!(counted_output("gpt-4o", &account(&words, 10_000, 0)), 3 * kept);
        assert_eq!(counted_output("gpt-4o", &account(&words, 0, 7)), kept + 7);
        assert_eq!(counted_output("gpt-4o", &account("", 400, 0)), 100);
    }
}
