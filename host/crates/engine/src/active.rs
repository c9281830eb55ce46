//! A request that the thread has taken in, until it ends.

use std::time::{Duration, Instant};

use tollgate_domain::record::FinishReason;
use tollgate_model::{
    Computed, Constraint, Embedder, Embedding, ModelError, TokenLogprobs, Tokenizer, Wanted,
};

use crate::event::Facts;
use crate::job::{Job, Task};
use crate::prompt::PromptTold;
use crate::writer::Writer;
use crate::{End, Event};

/// One request, in the queue or running.
pub(crate) struct Active {
    job: Job,
    work: Work,
    /// How likely the prompt's tokens were, if that is to be told, until it has been.
    prompt: Option<PromptTold>,
    /// Others that wait until it has read its prompt.
    followers: Vec<Job>,
    /// Whether it has left the queue once.
    started: bool,
    prefilled: bool,
    /// Its part of the passes it was in.
    device_time: Duration,
    /// All of these.
    passes: Duration,
}

/// What it makes of what it reads.
enum Work {
    Write(Box<Writer>),
    Embed { embedder: Embedder, dimensions: Option<usize>, needs_all: bool },
}

/// What a sequence did with its part of a pass.
pub(crate) enum Did {
    /// It has read on.
    Read,
    /// It chose the next token.
    Sampled(u32),
    /// It has read all that it is to read.
    Ended(End),
}

impl Active {
    /// Takes in a job, for a model that makes such vectors, if any.
    pub(crate) fn new(
        mut job: Job,
        tokenizer: &Tokenizer,
        embedding: Option<&Embedding>,
    ) -> Result<Self, Box<(Job, ModelError)>> {
        let mut prompt = None;
        let work = match (&mut job.task, embedding) {
            (Task::Write(request), _) => {
                prompt =
                    request.prompt_logprobs.map(|top| PromptTold::new(job.prompt.clone(), top));
                Work::Write(Box::new(Writer::new(request, &job.prompt, tokenizer)))
            }
            (Task::Embed { dimensions }, Some(embedding)) => Work::Embed {
                embedder: Embedder::new(embedding),
                dimensions: *dimensions,
                needs_all: embedding.needs_all(),
            },
            (Task::Embed { .. }, None) => {
                let error = ModelError::Input("the model does not embed".to_owned());
                return Err(Box::new((job, error)));
            }
        };
        let followers = std::mem::take(&mut job.followers);
        let zero = Duration::ZERO;
        Ok(Self {
            job,
            work,
            prompt,
            followers,
            started: false,
            prefilled: false,
            device_time: zero,
            passes: zero,
        })
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
        self.job.outlet.is_cancelled()
    }

    pub(crate) fn cancel(&self) {
        self.job.outlet.cancel();
    }

    /// Whether it has never left the queue.
    pub(crate) fn waits(&self) -> bool {
        !self.started
    }

    /// Whether all that it reads must be computed, also what is in memory already.
    pub(crate) fn needs_all(&self) -> bool {
        match &self.work {
            Work::Write(_) => self.prompt.is_some(),
            Work::Embed { needs_all, .. } => *needs_all,
        }
    }

    /// What its text is held to.
    pub(crate) fn constraint_mut(&mut self) -> Option<&mut Constraint> {
        match &mut self.work {
            Work::Write(writer) => writer.constraint_mut(),
            Work::Embed { .. } => None,
        }
    }

    /// What it wants of a part of a pass: `following` are the tokens that it wants to hear of.
    pub(crate) fn wanted<'a>(
        &self,
        last: bool,
        following: Option<&'a (Vec<u32>, usize)>,
    ) -> Wanted<'a> {
        Wanted {
            logits: last && self.job.max_tokens() > 0,
            states: matches!(self.work, Work::Embed { .. }),
            following: following.map(|(tokens, top)| (tokens.as_slice(), *top)),
        }
    }

    /// The tokens that it wants to hear of, of `count` from `start` on; and how much.
    pub(crate) fn following(&self, start: usize, count: usize) -> Option<(Vec<u32>, usize)> {
        let following = self.prompt.as_ref()?.following(start, count);
        (!following.0.is_empty()).then_some(following)
    }

    /// It leaves the queue, perhaps again.
    pub(crate) fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.job.emit(Event::Started { at: Instant::now() });
        }
    }

    /// Takes what was computed from position `start` on, which is the last of it or not.
    pub(crate) fn take_in(&mut self, start: usize, last: bool, computed: Computed) -> Did {
        if let Some(prompt) = &mut self.prompt {
            prompt.take_in(start, computed.following);
        }
        if let Work::Embed { embedder, .. } = &mut self.work {
            embedder.push(start, &computed.states);
        }
        if !last {
            return Did::Read;
        }
        if !self.prefilled() {
            return Did::Ended(End::Failed(ModelError::NoNumbers.into()));
        }
        let done = match (&mut self.work, computed.logits) {
            (Work::Embed { embedder, dimensions, .. }, _) => {
                embedder.finish(*dimensions).map(End::Embedded)
            }
            (Work::Write(_), None) => Ok(End::Finished(FinishReason::Length)),
            (Work::Write(writer), Some(mut logits)) => match writer.sample(&mut logits) {
                Ok(token) => return Did::Sampled(token),
                Err(error) => Err(error),
            },
        };
        Did::Ended(done.unwrap_or_else(|error| End::Failed(error.into())))
    }

    /// The model has read its prompt, perhaps again; whether it could tell of it what it should.
    fn prefilled(&mut self) -> bool {
        if !std::mem::replace(&mut self.prefilled, true) {
            let Some(prompt) = self.prompt.take().map_or(Some(Vec::new()), PromptTold::finish)
            else {
                return false;
            };
            self.job.emit(Event::Prefilled { prompt, at: Instant::now() });
        }
        true
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
        let Work::Write(writer) = &mut self.work else { return None };
        let emit = |event| self.job.emit(event);
        match writer.push(token, is_last, &emit) {
            Ok(reason) => reason.map(End::Finished),
            Err(error) => Some(End::Failed(error.into())),
        }
    }

    pub(crate) fn end(self, end: End, met: &tollgate_scheduler::Facts) {
        let (output_tokens, logprobs) = match self.work {
            Work::Write(mut writer) => (writer.output_tokens(), writer.take_logprobs()),
            Work::Embed { .. } => (0, Vec::new()),
        };
        ended(&self.job, end, (output_tokens, logprobs), (self.device_time, self.passes), met);
    }
}

/// Ends a job that could never run.
pub(crate) fn refuse(job: &Job, error: ModelError) {
    job.emit(Event::Started { at: Instant::now() });
    let (nothing, never) = ((0, Vec::new()), (Duration::ZERO, Duration::ZERO));
    let met = tollgate_scheduler::Facts::default();
    ended(job, End::Failed(error.into()), nothing, never, &met);
}

fn ended(
    job: &Job,
    end: End,
    (output_tokens, logprobs): (u32, Vec<TokenLogprobs>),
    (device_time, passes): (Duration, Duration),
    met: &tollgate_scheduler::Facts,
) {
    let facts = Facts::new(met, device_time, passes);
    let at = Instant::now();
    job.emit(Event::Ended { end, output_tokens, logprobs, device_time, facts, at });
}
