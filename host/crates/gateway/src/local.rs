//! The model in this process: from a prompt to a generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Operation};
use tollgate_domain::time::Interval;
use tollgate_engine::{
    Choices, Constraint, EmbedRequest, Engine, GenerateRequest, SamplingOptions, SubmitError,
    Tokenizer,
};

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
    asks: Asks,
    /// Tokens of the prompt, or of all texts.
    pub(crate) prompt_tokens: u32,
    /// When the prompt was made into tokens.
    pub(crate) tokenize: Interval,
}

/// What the engine is asked for.
enum Asks {
    Text {
        work: Box<GenerateRequest>,
        /// One for each choice.
        seeds: Vec<u64>,
        /// What each choice begins with.
        echo: Option<String>,
    },
    Embeddings(EmbedRequest),
}

/// What the engine does for a request.
pub(crate) struct Working {
    pub(crate) choices: Choices,
    /// Tokens that each choice reads: all choices of a text share what the first reads.
    pub(crate) reads: Vec<u64>,
    /// Whether it writes text; else each choice is a vector.
    pub(crate) writes: bool,
    /// What each choice begins with.
    pub(crate) echo: Option<String>,
    /// The first token of a prompt.
    pub(crate) first: Option<u32>,
    pub(crate) device: String,
    pub(crate) tokenizer: Tokenizer,
}

impl Prepared {
    /// Most tokens that the answer can have, all choices together.
    pub(crate) fn most_output_tokens(&self) -> u64 {
        match &self.asks {
            Asks::Text { work, seeds, .. } => {
                u64::from(work.max_tokens).saturating_mul(seeds.len() as u64)
            }
            Asks::Embeddings(_) => 0,
        }
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
        if let Prompt::Inputs(inputs) = prompt {
            let work = self.embeddings(call, request, inputs)?;
            let tokenize = call.arrival.at.interval(began, Instant::now());
            let prompt_tokens = work.inputs.iter().map(Vec::len).sum::<usize>();
            let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
            return Ok(Prepared { asks: Asks::Embeddings(work), prompt_tokens, tokenize });
        }
        self.writes(request)?;
        let prompt_tokens = tokio::task::block_in_place(|| self.tokenize(prompt, None))?;
        let echo = call.tuning.echo.then(|| self.said(prompt, &prompt_tokens)).transpose()?;
        let tokenize = call.arrival.at.interval(began, Instant::now());
        let used = u32::try_from(prompt_tokens.len()).unwrap_or(u32::MAX);
        let reads_only = call.asked.max_tokens == Some(0);
        let room = room(used, self.models.context_length(), prompt, reads_only)?;
        let wanted = call.asked.max_tokens.unwrap_or(match call.arrival.operation {
            Operation::TextCompletion => DEFAULT_COMPLETION_TOKENS,
            _ => room,
        });
        let work = GenerateRequest {
            prompt_tokens,
            max_tokens: wanted.min(room),
            sampling: sampling(&call.asked, &call.tuning),
            prompt_logprobs: prompt_logprobs(&call.tuning),
            stop: call.asked.stop.clone(),
            stop_token_ids: call.tuning.stop_token_ids.clone(),
            ignore_eos: call.tuning.ignore_eos,
            min_tokens: call.tuning.min_tokens,
            constraint: self.constraint(&call.tuning)?,
            tenant: request.tenant().map(Arc::from),
            priority: request.caller.0.priority(),
        };
        let seeds = seeds(work.sampling.seed, self.choices(&call.asked)?);
        let asks = Asks::Text { work: Box::new(work), seeds, echo };
        Ok(Prepared { asks, prompt_tokens: used, tokenize })
    }

    /// Hands it to the engine.
    pub(crate) fn submit(&self, prepared: Prepared) -> Result<Working, Refusal> {
        let busy = |error: SubmitError| busy(&error);
        let (choices, reads, writes, echo, first) = match prepared.asks {
            Asks::Text { work, seeds, echo } => {
                let mut reads = vec![0; seeds.len()];
                if let Some(first) = reads.first_mut() {
                    *first = prepared.prompt_tokens.into();
                }
                let choices = self.engine.submit_choices(&work, &seeds).map_err(busy)?;
                (choices, reads, true, echo, work.prompt_tokens.first().copied())
            }
            Asks::Embeddings(work) => {
                let reads = work.inputs.iter().map(|input| input.len() as u64).collect();
                (self.engine.submit_embeddings(work).map_err(busy)?, reads, false, None, None)
            }
        };
        Ok(Working {
            choices,
            reads,
            writes,
            echo,
            first,
            device: self.engine.info().device.clone(),
            tokenizer: self.engine.tokenizer().clone(),
        })
    }

    /// Refuses to write where the model only embeds.
    fn writes(&self, request: &Request) -> Result<(), Refusal> {
        if self.engine.info().generates {
            return Ok(());
        }
        let message = format!(
            "The model `{}` makes embeddings and writes no text. Ask it by /v1/embeddings.",
            request.asked.model
        );
        Err(Refusal::new(ErrorKind::InvalidRequest, message).param("model"))
    }

    /// How many answers are asked for; each waits in the engine's queue by itself.
    fn choices(&self, asked: &Asked) -> Result<usize, Refusal> {
        let (choices, most) =
            (asked.choices.map_or(1, |n| n.max(1) as usize), self.engine.max_queued());
        if choices <= most {
            return Ok(choices);
        }
        let message =
            format!("`n` is at most {most} here: so many answers may wait for the model.");
        Err(Refusal::new(ErrorKind::InvalidRequest, message).param("n"))
    }

    /// What the answer is held to.
    fn constraint(&self, tuning: &Tuning) -> Result<Option<Constraint>, Refusal> {
        let Some(schema) = &tuning.schema else { return Ok(None) };
        let tokenizer = self.engine.tokenizer();
        let made = tokio::task::block_in_place(|| tokenizer.constraint(schema));
        made.map(Some).map_err(|error| {
            let message = format!("Answers cannot be held to this schema: {error}.");
            Refusal::new(ErrorKind::InvalidRequest, message).param("response_format")
        })
    }

    /// The prompt as text.
    fn said(&self, prompt: &Prompt, tokens: &[u32]) -> Result<String, Refusal> {
        let decode = || self.engine.tokenizer().decode(tokens);
        match prompt {
            Prompt::Text(text) => Ok(text.clone()),
            Prompt::Tokens(_) | Prompt::Chat(_) | Prompt::Inputs(_) => decode().map_err(|error| {
                Refusal::new(ErrorKind::InvalidRequest, error.to_string()).param("prompt")
            }),
        }
    }

    /// The tokens of a prompt. If it is not said, a text gets those that the model expects around it,
    /// and a conversation, whose template has them, does not.
    pub(crate) fn tokenize(
        &self,
        prompt: &Prompt,
        add_special: Option<bool>,
    ) -> Result<Vec<u32>, Refusal> {
        let tokenizer = self.engine.tokenizer();
        let (param, tokens) = match prompt {
            Prompt::Text(text) => ("prompt", tokenizer.encode(text, add_special.unwrap_or(true))),
            Prompt::Chat(messages) => {
                let encode = |text: String| tokenizer.encode(&text, add_special.unwrap_or(false));
                ("messages", tokenizer.render_chat(messages).and_then(encode))
            }
            Prompt::Tokens(tokens) => ("prompt", Ok(tokens.clone())),
            // Each by itself: see `embeddings`.
            Prompt::Inputs(_) => ("input", Ok(Vec::new())),
        };
        let refused = |message: String| Refusal::new(ErrorKind::InvalidRequest, message);
        let tokens = tokens.map_err(|error| refused(error.to_string()).param(param))?;
        self.check(&tokens).map_err(|refusal| refusal.param(param))?;
        Ok(tokens)
    }

    /// Refuses tokens that the model does not have.
    pub(crate) fn check(&self, tokens: &[u32]) -> Result<(), Refusal> {
        let vocabulary = self.engine.info().vocabulary;
        match tokens.iter().find(|&&token| token as usize >= vocabulary) {
            None => Ok(()),
            Some(token) => {
                let message = format!("Token {token} is not one of the model's {vocabulary}.");
                Err(Refusal::new(ErrorKind::InvalidRequest, message))
            }
        }
    }
}

/// Whether to tell how likely the tokens of the prompt were, and how many of the likeliest: an answer
/// that begins with its prompt tells it of that too.
fn prompt_logprobs(tuning: &Tuning) -> Option<usize> {
    let echoed = tuning.logprobs.filter(|_| tuning.echo);
    tuning.prompt_logprobs.max(echoed).map(|top| top as usize)
}

/// Tokens left in the context after the prompt: none if it is only to be read.
fn room(used: u32, context: u32, prompt: &Prompt, reads_only: bool) -> Result<u32, Refusal> {
    let param = if matches!(prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
    if used == 0 {
        let message = "The prompt is empty: it must have at least one token.";
        return Err(Refusal::new(ErrorKind::InvalidRequest, message).param(param));
    }
    if used > context || (used == context && !reads_only) {
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
        logprobs: tuning.logprobs.map(|top| top as usize),
        seed: asked.seed.unwrap_or_else(rand::random),
    }
}

/// The seeds of so many choices, of which the first has the seed that was given. The others follow
/// from it by SplitMix64, so that they are the same each time and as good as independent.
fn seeds(given: u64, choices: usize) -> Vec<u64> {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let others = (1..).map(|choice: u64| mixed(given.wrapping_add(choice.wrapping_mul(STEP))));
    std::iter::once(given).chain(others).take(choices).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_choice_has_the_seed_that_was_given() {
        for given in [0, 7, u64::MAX] {
            let all = seeds(given, 128);
            assert_eq!((all.len(), all[0]), (128, given));
            assert_eq!(seeds(given, 3), all[..3], "more choices change none");
            let mut distinct = all.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), 128);
        }
        assert_ne!(seeds(1, 2)[1], seeds(2, 2)[1]);
    }
}
