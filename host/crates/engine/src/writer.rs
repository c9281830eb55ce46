//! From the logits of one request to its text: sampling, whole characters, stop strings.

use std::time::Instant;

use tollgate_domain::record::FinishReason;
use tollgate_model::{Constraint, ModelError, Sampler, TextStream, TokenLogprobs, Tokenizer};

use crate::stop::StopMatcher;
use crate::{Event, GenerateRequest};

/// What one request has written so far.
pub(crate) struct Writer {
    sampler: Sampler,
    constraint: Option<Constraint>,
    stream: TextStream,
    stops: StopMatcher,
    /// Tokens that end the text.
    ends: Vec<u32>,
    min_tokens: u32,
    output_tokens: u32,
    /// Of tokens since the last text.
    logprobs: Vec<TokenLogprobs>,
}

impl Writer {
    /// Takes what it needs out of the request.
    pub(crate) fn new(
        request: &mut GenerateRequest,
        prompt: &[u32],
        tokenizer: &Tokenizer,
    ) -> Self {
        let mut ends = std::mem::take(&mut request.stop_token_ids);
        if !request.ignore_eos {
            ends.extend_from_slice(tokenizer.stop_tokens());
        }
        let sampling = std::mem::take(&mut request.sampling);
        Self {
            sampler: Sampler::after(sampling, prompt),
            constraint: request.constraint.take(),
            stream: tokenizer.text_stream(),
            stops: StopMatcher::new(std::mem::take(&mut request.stop)),
            ends,
            min_tokens: request.min_tokens,
            output_tokens: 0,
            logprobs: Vec::new(),
        }
    }

    /// Tokens sampled so far.
    pub(crate) fn output_tokens(&self) -> u32 {
        self.output_tokens
    }

    /// What it is held to.
    pub(crate) fn constraint_mut(&mut self) -> Option<&mut Constraint> {
        self.constraint.as_mut()
    }

    /// Chooses the next token.
    pub(crate) fn sample(&mut self, logits: &mut [f32]) -> Result<u32, ModelError> {
        let barred = if self.may_end() { &[] } else { self.ends.as_slice() };
        let mask = self.constraint.as_mut().map(Constraint::mask).transpose()?;
        let (token, logprobs) = self.sampler.choose_from(logits, barred, mask)?;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
        }
        self.output_tokens += 1;
        self.logprobs.extend(logprobs);
        Ok(token)
    }

    /// How likely the tokens since the last text were.
    pub(crate) fn take_logprobs(&mut self) -> Vec<TokenLogprobs> {
        std::mem::take(&mut self.logprobs)
    }

    /// Adds the token that was sampled, which may be the last one; why the text ends, if it does.
    pub(crate) fn push(
        &mut self,
        token: u32,
        is_last: bool,
        emit: &impl Fn(Event),
    ) -> Result<Option<FinishReason>, ModelError> {
        if self.may_end() && self.ends.contains(&token) {
            self.flush(emit)?;
            return Ok(Some(FinishReason::Stop));
        }
        if let Some(text) = self.stream.push(token)?
            && self.stopped_by(&text, emit)
        {
            return Ok(Some(FinishReason::Stop));
        }
        let whole = self.constraint.as_ref().is_some_and(Constraint::is_done);
        if !is_last && !whole {
            return Ok(None);
        }
        let stopped = self.flush(emit)? || whole;
        Ok(Some(if stopped { FinishReason::Stop } else { FinishReason::Length }))
    }

    fn may_end(&self) -> bool {
        self.output_tokens >= self.min_tokens
    }

    /// Emits what may be shown of the text so far; whether a stop string was found.
    fn stopped_by(&mut self, text: &str, emit: &impl Fn(Event)) -> bool {
        if !self.may_end() {
            self.show(text.to_owned(), emit);
            return false;
        }
        let (text, stopped) = self.stops.push(text);
        self.show(text, emit);
        stopped
    }

    /// Lets go of text that was held back in case more would come; whether a stop string was in it.
    fn flush(&mut self, emit: &impl Fn(Event)) -> Result<bool, ModelError> {
        let rest = self.stream.finish()?.unwrap_or_default();
        let stopped = self.stopped_by(&rest, emit);
        if !stopped {
            let held = self.stops.finish();
            self.show(held, emit);
        }
        Ok(stopped)
    }

    fn show(&mut self, text: String, emit: &impl Fn(Event)) {
        if !text.is_empty() {
            let (output_tokens, logprobs) = (self.output_tokens, self.take_logprobs());
            emit(Event::Text { text, output_tokens, logprobs, at: Instant::now() });
        }
    }
}
