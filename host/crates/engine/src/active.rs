//! A request that the thread has taken in, until it ends.

use std::time::{Duration, Instant};

use tollgate_model::Tokenizer;

use crate::event::Facts;
use crate::writer::Writer;
use crate::{End, Event, Job};

/// One request, in the queue or running.
pub(crate) struct Active {
    job: Job,
    pub(crate) writer: Writer,
    /// Other choices of its prompt, until it has read that.
    followers: Vec<Job>,
    /// Whether it has left the queue once.
    started: bool,
    prefilled: bool,
    /// Its part of the passes it was in.
    device_time: Duration,
    /// All of these.
    passes: Duration,
}

impl Active {
    pub(crate) fn new(mut job: Job, tokenizer: &Tokenizer) -> Self {
        let writer = Writer::new(&mut job.request, tokenizer);
        let followers = std::mem::take(&mut job.followers);
        let zero = Duration::ZERO;
        Self {
            job,
            writer,
            followers,
            started: false,
            prefilled: false,
            device_time: zero,
            passes: zero,
        }
    }

    /// Those that were to wait for it.
    pub(crate) fn take_followers(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.followers)
    }

    pub(crate) fn job_mut(&mut self) -> &mut Job {
        &mut self.job
    }

    /// What to log about.
    pub(crate) fn log(&self) -> &tracing::Span {
        &self.job.log
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.job.is_cancelled()
    }

    pub(crate) fn cancel(&self) {
        self.job.cancel();
    }

    /// Whether it has never left the queue.
    pub(crate) fn waits(&self) -> bool {
        !self.started
    }

    /// It leaves the queue, perhaps again.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.job.emit(Event::Started { at: Instant::now() });
        }
    }

    /// The model has read its prompt, perhaps again.
    pub(crate) fn prefilled(&mut self) {
        if !std::mem::replace(&mut self.prefilled, true) {
            self.job.emit(Event::Prefilled { at: Instant::now() });
        }
    }

    /// It had `tokens` of the `all` in a pass that took `time`.
    pub(crate) fn charge(&mut self, time: Duration, tokens: usize, all: usize) {
        self.passes += time;
        let part = time.as_nanos().saturating_mul(tokens as u128).checked_div(all as u128);
        let part = part.and_then(|part| u64::try_from(part).ok()).unwrap_or(0);
        self.device_time += Duration::from_nanos(part);
    }

    /// Adds a token that was sampled to its text.
    pub(crate) fn write(&mut self, token: u32, is_last: bool) -> Option<End> {
        let emit = |event| self.job.emit(event);
        match self.writer.push(token, is_last, &emit) {
            Ok(reason) => reason.map(End::Finished),
            Err(error) => Some(End::Failed(error.into())),
        }
    }

    pub(crate) fn end(mut self, end: End, met: &tollgate_scheduler::Facts) {
        self.job.emit(Event::Ended {
            end,
            output_tokens: self.writer.output_tokens(),
            logprobs: self.writer.take_logprobs(),
            device_time: self.device_time,
            facts: Facts::new(met, self.device_time, self.passes),
            at: Instant::now(),
        });
    }
}
