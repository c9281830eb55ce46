//! The model in this process: from a prompt to a generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation};
use tollgate_domain::time::Interval;
use tollgate_engine::{Engine, GenerateRequest, Generation, SamplingOptions, SubmitError};

use crate::call::{Call, Prompt, Refusal, Tuning};
use crate::models::Models;
use crate::request::Request;

/// Most tokens that `/v1/completions` generates when it is not told, as OpenAI does.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;

/// The model in this process and the names it answers to.
pub(crate) struct Local {
    pub(crate) engine: Engine,
    pub(crate) models: Models,
}

/// What the engine is to do, once the request is let in.
pub(crate) struct Prepared {
    work: GenerateRequest,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u32,
    /// When the prompt was made into tokens.
    pub(crate) tokenize: Interval,
}

impl Prepared {
    /// Most tokens that the answer can have.
    pub(crate) fn max_tokens(&self) -> u32 {
        self.work.max_tokens
    }
}

impl Local {
    /// Makes tokens of the prompt and checks that there is room for an answer.
    pub(crate) fn prepare(
        &self,
        call: &Call,
        request: &Request,
        prompt: &Prompt,
    ) -> Result<Prepared, Refusal> {
        let began = Instant::now();
        let prompt_tokens = tokio::task::block_in_place(|| self.tokenize(prompt))?;
        let tokenize = call.arrival.at.interval(began, Instant::now());
        let used = u32::try_from(prompt_tokens.len()).unwrap_or(u32::MAX);
        let room = room(used, self.models.context_length(), prompt)?;
        let wanted = call.asked.max_tokens.unwrap_or(match call.arrival.operation {
            Operation::TextCompletion => DEFAULT_COMPLETION_TOKENS,
            _ => room,
        });
        let work = GenerateRequest {
            prompt_tokens,
            max_tokens: wanted.min(room),
            sampling: sampling(&call.asked, &call.tuning),
            stop: call.asked.stop.clone(),
            stop_token_ids: call.tuning.stop_token_ids.clone(),
            ignore_eos: call.tuning.ignore_eos,
            min_tokens: call.tuning.min_tokens,
            tenant: request.tenant().map(Arc::from),
            ..GenerateRequest::default()
        };
        Ok(Prepared { work, prompt_tokens: used, tokenize })
    }

    /// Hands it to the engine.
    pub(crate) fn submit(&self, prepared: Prepared) -> Result<Generation, Refusal> {
        self.engine.submit(prepared.work).map_err(|error| busy(&error))
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, Refusal> {
        let tokenizer = self.engine.tokenizer();
        let (param, tokens) = match prompt {
            Prompt::Text(text) => ("prompt", tokenizer.encode(text, true)),
            Prompt::Chat(messages) => {
                let encode = |text: String| tokenizer.encode(&text, false);
                ("messages", tokenizer.render_chat(messages).and_then(encode))
            }
            Prompt::Tokens(tokens) => ("prompt", Ok(tokens.clone())),
        };
        let refused = |message: String| Refusal::new(ErrorKind::InvalidRequest, message);
        let tokens = tokens.map_err(|error| refused(error.to_string()).param(param))?;
        let vocabulary = self.engine.info().vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            None => Ok(tokens),
            Some(token) => {
                let message = format!("Token {token} is not one of the model's {vocabulary}.");
                Err(refused(message).param(param))
            }
        }
    }
}

/// Tokens left in the context after the prompt.
fn room(used: u32, context: u32, prompt: &Prompt) -> Result<u32, Refusal> {
    let param = if matches!(prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
    if used == 0 {
        let message = "The prompt is empty: it must have at least one token.";
        return Err(Refusal::new(ErrorKind::InvalidRequest, message).param(param));
    }
    if used >= context {
        let message = format!(
            "The prompt has {used} tokens; this model's context holds {context}, the answer \
             included. Shorten the prompt to at most {} tokens.",
            context.saturating_sub(1)
        );
        return Err(Refusal::new(ErrorKind::ContextLengthExceeded, message).param(param));
    }
    Ok(context - used)
}

fn sampling(asked: &Asked, tuning: &Tuning) -> SamplingOptions {
    // Ranges were checked with the request; doubles are narrowed as the model computes in f32.
    #[expect(clippy::cast_possible_truncation, reason = "a temperature needs no double")]
    let narrow = |value: f64| value as f32;
    SamplingOptions {
        temperature: asked.temperature.map_or(1.0, narrow),
        top_p: asked.top_p.map_or(1.0, narrow),
        top_k: asked.top_k.map(|k| k as usize),
        min_p: narrow(tuning.min_p),
        repetition_penalty: narrow(tuning.repetition_penalty),
        frequency_penalty: narrow(tuning.frequency_penalty),
        presence_penalty: narrow(tuning.presence_penalty),
        logit_bias: tuning.logit_bias.iter().map(|(token, bias)| (*token, narrow(*bias))).collect(),
        logprobs: None,
        seed: asked.seed.unwrap_or_else(rand::random),
    }
}

fn busy(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Busy => Refusal::new(
            ErrorKind::Overloaded,
            "Too many requests are waiting for the model. Try again shortly.",
        )
        .retry_after(Duration::from_secs(1)),
        SubmitError::Stopped => {
            Refusal::new(ErrorKind::ShuttingDown, "The engine has stopped; restart the gateway.")
        }
    }
}
