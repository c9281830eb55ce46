//! The state machine: jobs in, plans out.

use std::fmt;

use crate::block_pool::{BlockId, BlockPool, BlockUse};
use crate::facts::Facts;
use crate::options::{OptionsError, SchedulerOptions};
use crate::queue::{Queue, victim};
use crate::sequence::{Job, JobId, Planned, Sequence};
use crate::service::{OUTPUT_WEIGHT, Service};
use crate::step::{Admission, Decode, Prefill, Step};

/// Plans forward passes.
#[derive(Debug)]
pub struct Scheduler {
    options: SchedulerOptions,
    pool: BlockPool,
    queue: Queue,
    service: Service,
    /// In the order of admission.
    running: Vec<Sequence>,
    submitted: u64,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// As many wait as may.
    Full,
    /// It could not run even alone: it needs more blocks than there are.
    NeverFits {
        /// Blocks it may need.
        needed: usize,
        /// Blocks there are.
        blocks: usize,
    },
    /// The prompt has no token.
    EmptyPrompt,
    /// A job of this name waits or runs.
    Duplicate,
}

/// What came of a sequence's part in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was computed, and nothing was sampled: a piece of a prompt that is not the last, or of one that needs no answer.
    Read,
    /// It was computed, and this token was sampled.
    Sampled(u32),
}

/// How a sequence goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is in a later step.
    Goes,
    /// It has all the tokens that it may have. It is in no step any more and keeps its blocks until it is removed.
    AtLimit,
}

/// Why an outcome was not taken; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// No such job runs: it has been removed since.
    NotRunning,
    /// It was not in the last step, or that has been recorded.
    NotPlanned,
    /// A token cannot have been sampled: more of the prompt is left.
    PromptNotRead,
}

impl Scheduler {
    /// With an empty queue and all blocks free.
    ///
    /// # Errors
    /// A limit does not do.
    pub fn new(options: SchedulerOptions) -> Result<Self, OptionsError> {
        options.check()?;
        Ok(Self {
            options,
            pool: BlockPool::new(options.blocks, options.block_tokens),
            queue: Queue::new(options.aging),
            service: Service::default(),
            running: Vec::new(),
            submitted: 0,
        })
    }

    /// Puts a job in the queue.
    ///
    /// # Errors
    /// The queue is full, which passes, or the job can never run.
    pub fn submit(&mut self, job: Job) -> Result<(), SubmitError> {
        if job.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let needed = self.pool.blocks_for(Sequence::most_positions(&job));
        let blocks = self.options.blocks;
        if needed > blocks {
            return Err(SubmitError::NeverFits { needed, blocks });
        }
        if self.find(job.id).is_some() || self.queue.contains(job.id) {
            return Err(SubmitError::Duplicate);
        }
        if self.queue.len() >= self.options.max_queued {
            return Err(SubmitError::Full);
        }
        self.submitted += 1;
        self.service.submitted(&job.tenant);
        self.queue.push(Sequence::new(job, self.submitted));
        Ok(())
    }

    /// Ends a job, finished or cancelled, wherever it is: its blocks are free or cached at once. What came of its last step
    /// should be recorded first, so that others find it. `None` if there is no such job.
    pub fn remove(&mut self, id: JobId, now: u64) -> Option<Facts> {
        if let Some(at) = self.find(id) {
            let sequence = self.running.remove(at);
            self.pool.release(sequence.table);
            self.service.left(&sequence.job.tenant, true);
            return Some(sequence.facts);
        }
        let mut sequence = self.queue.remove(id)?;
        self.service.left(&sequence.job.tenant, false);
        sequence.note_waited(now);
        Some(sequence.facts)
    }

    /// What the next forward pass computes: a token of each sequence that decodes, then pieces of prompts that are being read,
    /// then of jobs that are admitted, as far as the budget goes. Outcomes that are not recorded before the next plan are
    /// planned again.
    pub fn plan(&mut self, now: u64) -> Step {
        let mut step = Step::default();
        self.make_room(now, &mut step);
        let mut budget = self.options.max_step_tokens;
        for sequence in &mut self.running {
            sequence.planned = None;
        }
        for decoding in [true, false] {
            for sequence in self.running.iter_mut().filter(|s| s.decodes() == decoding) {
                sequence.plan(&mut budget, self.options.block_tokens);
            }
        }
        // Who was preempted would come back at once, and take the room that was made.
        if step.preempted.is_empty() {
            self.admit(now, &mut budget, &mut step);
        }
        self.list(&mut step);
        step
    }

    /// Takes what came of one sequence's part in the last step.
    ///
    /// # Errors
    /// It was not in the step, or is gone.
    pub fn record(&mut self, id: JobId, outcome: Outcome) -> Result<Next, RecordError> {
        let at = self.find(id).ok_or(RecordError::NotRunning)?;
        let sequence = self.running.get_mut(at).ok_or(RecordError::NotRunning)?;
        let planned = sequence.planned.ok_or(RecordError::NotPlanned)?;
        if matches!(outcome, Outcome::Sampled(_)) && planned.tokens < sequence.remaining() {
            return Err(RecordError::PromptNotRead);
        }
        sequence.planned = None;
        sequence.count(planned);
        let block_tokens = self.options.block_tokens;
        for block in sequence.table.sealed()..sequence.computed / block_tokens {
            let filled = sequence.tokens(block * block_tokens, block_tokens);
            self.pool.seal(&mut sequence.table, filled);
        }
        if let Outcome::Sampled(token) = outcome {
            sequence.push(token);
            self.service.charge(&sequence.job.tenant, OUTPUT_WEIGHT);
        }
        Ok(if sequence.is_full() { Next::AtLimit } else { Next::Goes })
    }

    /// Jobs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Jobs that hold blocks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Where all blocks are.
    #[must_use]
    pub fn block_use(&self) -> BlockUse {
        self.pool.usage()
    }

    /// The blocks that a running job holds, by position.
    #[must_use]
    pub fn blocks_of(&self, id: JobId) -> Option<&[BlockId]> {
        Some(self.running.get(self.find(id)?)?.table.blocks())
    }

    fn find(&self, id: JobId) -> Option<usize> {
        self.running.iter().position(|sequence| sequence.job.id == id)
    }

    /// Gets every sequence that decodes a block for its token, and preempts others where there is none.
    fn make_room(&mut self, now: u64, step: &mut Step) {
        let block_tokens = self.options.block_tokens;
        let short = |s: &Sequence| s.decodes() && s.table.blocks().len() * block_tokens < s.len();
        while let Some(sequence) = self.running.iter_mut().find(|sequence| short(sequence)) {
            let positions = sequence.len();
            if self.pool.grow(&mut sequence.table, positions) {
                sequence.note_blocks();
                continue;
            }
            // There is always another one, since each fits alone.
            let Some(place) = victim(&self.running) else { return };
            let mut preempted = self.running.remove(place);
            step.preempted.push(preempted.job.id);
            self.pool.release(preempted.stop(now));
            self.service.preempted(&preempted.job.tenant);
            self.queue.put_back(preempted);
        }
    }

    /// Lets jobs in, in their order, as long as the next one has room for all that it has to read. None overtakes one that
    /// has not, else a large one would wait for ever.
    fn admit(&mut self, now: u64, budget: &mut usize, step: &mut Step) {
        let block_tokens = self.options.block_tokens;
        while *budget > 0 && self.running.len() < self.options.max_running {
            let Some(place) = self.queue.next(&self.service, now) else { return };
            let Some(next) = self.queue.peek(&place) else { return };
            let found = self.pool.find(&next.job.prefixes, next.full_blocks(block_tokens));
            let needed = self.pool.blocks_for(next.len()).saturating_sub(found.len());
            // A block for each that will want one soon, or the first of them preempts who has just come in.
            let reserve = self.running.iter().filter(|s| s.grows(block_tokens)).count();
            if self.pool.available_besides(&found) < needed + reserve {
                return;
            }
            let Some(mut sequence) = self.queue.pop(&place, now) else { return };
            let cached_tokens = found.len() * block_tokens;
            let mut table = self.pool.open(&sequence.job.prefixes, found);
            self.pool.grow(&mut table, sequence.len());
            let charge = sequence.start(table, cached_tokens, now);
            sequence.note_blocks();
            self.service.admitted(&sequence.job.tenant);
            self.service.charge(&sequence.job.tenant, charge);
            let again = sequence.facts.preemptions > 0;
            step.admitted.push(Admission { id: sequence.job.id, cached_tokens, again });
            sequence.plan(budget, block_tokens);
            self.running.push(sequence);
        }
    }

    /// Writes down what is planned.
    fn list(&mut self, step: &mut Step) {
        let batch = self.running.iter().filter(|sequence| sequence.planned.is_some()).count();
        for sequence in &mut self.running {
            let (id, start) = (sequence.job.id, sequence.computed);
            let Some(planned) = &mut sequence.planned else { continue };
            planned.batch = batch;
            let Planned { tokens: count, decode, .. } = *planned;
            let (tokens, blocks) =
                (sequence.tokens(start, count), sequence.table.blocks().to_vec());
            match tokens.first() {
                Some(&token) if decode => {
                    step.decodes.push(Decode { id, position: start, token, blocks });
                }
                _ => {
                    let samples = count == sequence.remaining();
                    step.prefills.push(Prefill { id, start, tokens, samples, blocks });
                }
            }
        }
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::NeverFits { needed, blocks } => {
                write!(f, "the job may need {needed} KV blocks, and there are {blocks}")
            }
            Self::EmptyPrompt => f.write_str("the prompt is empty"),
            Self::Duplicate => f.write_str("a job of this name is under way"),
        }
    }
}

impl std::error::Error for SubmitError {}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "no such job runs",
            Self::NotPlanned => "the job was not in the last step",
            Self::PromptNotRead => "a token was sampled before the prompt was read",
        })
    }
}

impl std::error::Error for RecordError {}
