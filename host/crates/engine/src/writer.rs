//! From the logits of one request to its text: sampling, whole characters, stop strings.

use std::time::Instant;

use tollgate_domain::record::FinishReason;
use tollgate_model::{ModelError, Sampler, TextStream, Tokenizer};

use crate::stop::StopMatcher;
use crate::{Event, GenerateRequest};

/// What one request has written so far.
pub(crate) struct Writer {
    tokenizer: Tokenizer,
    sampler: Sampler,
    stream: TextStream,
    stops: StopMatcher,
    output_tokens: u32,
}

impl Writer {
    pub(crate) fn new(request: &mut GenerateRequest, tokenizer: Tokenizer) -> Self {
        Self {
            sampler: Sampler::new(request.sampling),
            stream: tokenizer.text_stream(),
            stops: StopMatcher::new(std::mem::take(&mut request.stop)),
            output_tokens: 0,
            tokenizer,
        }
    }

    /// Tokens sampled so far.
    pub(crate) fn output_tokens(&self) -> u32 {
        self.output_tokens
    }

    /// Chooses the next token.
    pub(crate) fn sample(&mut self, logits: &mut [f32]) -> Result<u32, ModelError> {
        let token = self.sampler.sample(logits)?;
        self.output_tokens += 1;
        Ok(token)
    }

    /// Adds the token that was sampled, which may be the last one; why the text ends, if it does.
    pub(crate) fn push(
        &mut self,
        token: u32,
        is_last: bool,
        emit: &impl Fn(Event),
    ) -> Result<Option<FinishReason>, ModelError> {
        if self.tokenizer.stop_tokens().contains(&token) {
            self.flush(emit)?;
            return Ok(Some(FinishReason::Stop));
        }
        if let Some(text) = self.stream.push(token)?
            && self.stopped_by(&text, emit)
        {
            return Ok(Some(FinishReason::Stop));
        }
        if !is_last {
            return Ok(None);
        }
        let stopped = self.flush(emit)?;
        Ok(Some(if stopped { FinishReason::Stop } else { FinishReason::Length }))
    }

    /// Emits what may be shown of the text so far; whether a stop string was found.
    fn stopped_by(&mut self, text: &str, emit: &impl Fn(Event)) -> bool {
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

    fn show(&self, text: String, emit: &impl Fn(Event)) {
        if !text.is_empty() {
            emit(Event::Text { text, output_tokens: self.output_tokens, at: Instant::now() });
        }
    }
}
