//! One running request: its cache, its sampler and the text it has made so far.

use std::time::{Duration, Instant};

use tollgate_domain::record::FinishReason;
use tollgate_model::{Model, ModelError, Sampler, Sequence, TextStream};

use crate::stop::StopMatcher;
use crate::{End, Event, Job};

/// Tokens of a prompt that are read in one turn: a long prompt lets others have theirs in between,
/// and attention over it needs no more memory than a chunk times the context.
const PREFILL_CHUNK: usize = 256;

/// Whether a sequence needs more turns.
pub(crate) enum Progress {
    Goes,
    Ended,
}

/// One running request.
pub(crate) struct Running {
    job: Job,
    cache: Sequence,
    sampler: Sampler,
    stream: TextStream,
    stops: StopMatcher,
    /// Tokens the model has yet to read: the prompt, then what was sampled last.
    next: Vec<u32>,
    output_tokens: u32,
    device_time: Duration,
}

impl Running {
    pub(crate) fn start(mut job: Job, model: &Model) -> Self {
        let request = &mut job.request;
        let running = Self {
            cache: model.start_sequence(),
            sampler: Sampler::new(request.sampling),
            stream: model.tokenizer().text_stream(),
            stops: StopMatcher::new(std::mem::take(&mut request.stop)),
            next: std::mem::take(&mut request.prompt_tokens),
            output_tokens: 0,
            device_time: Duration::ZERO,
            job,
        };
        running.job.emit(Event::Started { at: Instant::now() });
        running
    }

    /// What to log about.
    pub(crate) fn log(&self) -> &tracing::Span {
        &self.job.log
    }

    pub(crate) fn cancel(&self) {
        self.job.cancel();
    }

    /// One forward pass and, once the prompt is read, one token.
    pub(crate) fn step(&mut self, model: &Model) -> Progress {
        let end = if self.job.is_cancelled() {
            Some(End::Cancelled)
        } else {
            self.generate(model).unwrap_or_else(|error| Some(End::Failed(error.into())))
        };
        match end {
            None => Progress::Goes,
            Some(end) => {
                self.end(end);
                Progress::Ended
            }
        }
    }

    pub(crate) fn end(&self, end: End) {
        self.job.emit(Event::Ended {
            end,
            output_tokens: self.output_tokens,
            device_time: self.device_time,
            at: Instant::now(),
        });
    }

    fn generate(&mut self, model: &Model) -> Result<Option<End>, ModelError> {
        let Some(mut logits) = self.forward(model)? else {
            return Ok(None);
        };
        if self.output_tokens == 0 {
            self.job.emit(Event::Prefilled { at: Instant::now() });
        }
        let token = self.sampler.sample(&mut logits)?;
        self.output_tokens += 1;
        self.next.push(token);

        if model.tokenizer().stop_tokens().contains(&token) {
            self.flush()?;
            return Ok(Some(End::Finished(FinishReason::Stop)));
        }
        if let Some(text) = self.stream.push(token)?
            && self.stopped_by(&text)
        {
            return Ok(Some(End::Finished(FinishReason::Stop)));
        }
        let context_is_full = self.cache.len() >= model.info().context_length;
        if self.output_tokens >= self.job.request.max_tokens || context_is_full {
            let stopped = self.flush()?;
            let reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
            return Ok(Some(End::Finished(reason)));
        }
        Ok(None)
    }

    /// Reads what is next, a chunk of it at most; the logits once nothing is left to read.
    fn forward(&mut self, model: &Model) -> Result<Option<Vec<f32>>, ModelError> {
        let chunk = self.next.len().min(PREFILL_CHUNK);
        let began = Instant::now();
        let logits = model.forward(&mut self.cache, self.next.get(..chunk).unwrap_or_default());
        self.device_time += began.elapsed();
        let logits = logits?;
        self.next.drain(..chunk);
        Ok(self.next.is_empty().then_some(logits))
    }

    /// Emits what may be shown of the text so far; whether a stop string was found.
    fn stopped_by(&mut self, text: &str) -> bool {
        let (text, stopped) = self.stops.push(text);
        self.emit_text(text);
        stopped
    }

    /// Lets go of text that was held back in case more would come; whether a stop string was in it.
    fn flush(&mut self) -> Result<bool, ModelError> {
        let rest = self.stream.finish()?.unwrap_or_default();
        let stopped = self.stopped_by(&rest);
        if !stopped {
            let held = self.stops.finish();
            self.emit_text(held);
        }
        Ok(stopped)
    }

    fn emit_text(&self, text: String) {
        if !text.is_empty() {
            let output_tokens = self.output_tokens;
            self.job.emit(Event::Text { text, output_tokens, at: Instant::now() });
        }
    }
}
