//! A scheduler under watch: its steps run on a memory that remembers what was written where, and every promise is checked
//! after every call.
//!
//! In place of keys and values the memory holds, for each position, a hash of all tokens up to it and of the scope they may
//! be shared in. A step that reads a position checks the hash it finds, so blocks that were mixed up, overwritten, shared too
//! widely or never filled are noticed. The next token is made from the last hash: a job's answer depends on its prompt alone,
//! and must come out the same whatever else ran, was cached or was preempted.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};

use tollgate_scheduler::{
    BlockId, Facts, Job, JobId, Next, Outcome, Prefixes, Scheduler, SchedulerOptions, Step,
    SubmitError,
};

/// Nanoseconds that a step takes.
pub const STEP: u64 = 1_000_000;

/// A job as the test knows it.
pub struct Known {
    pub job: Job,
    /// Prompt and answer so far.
    pub text: Vec<u32>,
    /// Positions computed; `None` while it waits.
    pub computed: Option<usize>,
    pub at_limit: bool,
}

/// A job that is over.
pub struct Done {
    pub job: Job,
    pub answer: Vec<u32>,
    pub facts: Facts,
    pub cancelled: bool,
    pub at: u64,
}

pub struct World {
    pub scheduler: Scheduler,
    pub options: SchedulerOptions,
    pub jobs: BTreeMap<JobId, Known>,
    pub done: BTreeMap<JobId, Done>,
    pub now: u64,
    pub steps: u64,
    memory: BTreeMap<(BlockId, usize), u64>,
    next_id: u64,
}

impl World {
    pub fn new(options: SchedulerOptions) -> Self {
        Self {
            scheduler: Scheduler::new(options).unwrap(),
            options,
            jobs: BTreeMap::new(),
            done: BTreeMap::new(),
            now: 0,
            steps: 0,
            memory: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// The id if it was taken. `job.id` and `job.arrived` are set here.
    pub fn submit(&mut self, mut job: Job) -> Result<JobId, SubmitError> {
        self.next_id += 1;
        job.id = JobId(self.next_id);
        job.arrived = self.now;
        let waiting = self.scheduler.waiting();
        let result = self.scheduler.submit(job.clone());
        let positions = job.prompt.len() + job.max_tokens - 1;
        let fits = positions.div_ceil(self.options.block_tokens) <= self.options.blocks;
        match result {
            Ok(()) => assert!(fits && waiting < self.options.max_queued),
            Err(SubmitError::Full) => assert!(waiting >= self.options.max_queued),
            Err(SubmitError::NeverFits { needed, blocks }) => assert!(!fits && needed > blocks),
            Err(error) => panic!("{error}"),
        }
        self.audit();
        result?;
        let known = Known { text: job.prompt.to_vec(), job, computed: None, at_limit: false };
        let id = known.job.id;
        self.jobs.insert(id, known);
        Ok(id)
    }

    /// Ends the nth job that is under way, wherever it is.
    pub fn cancel(&mut self, nth: usize) {
        if let Some(id) = self.jobs.keys().nth(nth).copied() {
            self.end(id, true);
        }
    }

    fn end(&mut self, id: JobId, cancelled: bool) {
        let known = self.jobs.remove(&id).unwrap();
        let facts = self.scheduler.remove(id, self.now).unwrap();
        assert_eq!(self.scheduler.remove(id, self.now), None);
        let answer = known.text[known.job.prompt.len()..].to_vec();
        self.done.insert(id, Done { job: known.job, answer, facts, cancelled, at: self.steps });
        self.audit();
    }

    /// Plans, checks the plan and runs it; jobs that are at their limit end.
    pub fn step(&mut self) -> Step {
        let step = self.plan();
        self.run(&step);
        step
    }

    /// A plan, checked.
    pub fn plan(&mut self) -> Step {
        self.now += STEP;
        let step = self.scheduler.plan(self.now);
        self.audit_after(&step);
        self.follow(&step);
        self.check(&step);
        step
    }

    fn audit_after(&self, step: &Step) {
        let moved = step.admitted.len() as isize - step.preempted.len() as isize;
        let running = self.jobs.values().filter(|known| known.computed.is_some()).count();
        assert_eq!(running as isize + moved, self.scheduler.running() as isize);
        self.audit_blocks(self.jobs.keys());
    }

    /// Takes over who came and went.
    fn follow(&mut self, step: &Step) {
        for id in &step.preempted {
            assert!(self.jobs.get_mut(id).unwrap().computed.take().is_some());
        }
        for admission in &step.admitted {
            let known = self.jobs.get_mut(&admission.id).unwrap();
            assert_eq!(known.computed, None);
            assert_eq!(admission.cached_tokens % self.options.block_tokens, 0);
            assert!(admission.cached_tokens < known.text.len());
            if known.job.prefixes == Prefixes::Unused {
                assert_eq!(admission.cached_tokens, 0);
            }
            known.computed = Some(admission.cached_tokens);
        }
    }

    fn check(&self, step: &Step) {
        assert!(step.tokens() <= self.options.max_step_tokens, "the budget");
        assert!(self.scheduler.running() <= self.options.max_running);
        assert!(step.preempted.is_empty() || step.admitted.is_empty(), "out and in at once");
        let decoding = self.jobs.iter().filter(|(_, known)| known.decodes()).map(|(id, _)| *id);
        let planned: BTreeSet<_> = step.decodes.iter().map(|decode| decode.id).collect();
        assert_eq!(planned, decoding.collect(), "all that can decode do");
        assert_eq!(planned.len(), step.decodes.len());
        for decode in &step.decodes {
            let known = &self.jobs[&decode.id];
            assert_eq!(decode.position + 1, known.text.len());
            assert_eq!(Some(&decode.token), known.text.last());
        }
        let mut seen = planned;
        for piece in &step.prefills {
            assert!(seen.insert(piece.id), "in a step once");
            let known = &self.jobs[&piece.id];
            let end = piece.start + piece.tokens.len();
            assert_eq!(known.computed, Some(piece.start), "no gap and nothing twice");
            assert_eq!(piece.tokens, known.text[piece.start..end]);
            assert!(!piece.tokens.is_empty());
            assert_eq!(piece.samples, end == known.text.len());
        }
    }

    /// The forward pass and what is recorded of it.
    pub fn run(&mut self, step: &Step) {
        self.steps += 1;
        let decodes = step.decodes.iter().map(|d| (d.id, d.position, 1, &d.blocks, true));
        let prefills =
            step.prefills.iter().map(|p| (p.id, p.start, p.tokens.len(), &p.blocks, p.samples));
        let parts: Vec<_> = decodes.chain(prefills).collect();
        for (id, start, count, blocks, _) in &parts {
            self.write(*id, *start, *count, blocks);
        }
        // After all have written: nobody has written over what another reads.
        for (id, start, count, blocks, _) in &parts {
            self.read(*id, start + count, blocks);
        }
        for (id, start, count, _, samples) in parts {
            let known = self.jobs.get_mut(&id).unwrap();
            known.computed = Some(start + count);
            if !samples {
                let early = self.scheduler.record(id, Outcome::Sampled(0));
                assert!(early.is_err(), "a token before the prompt is read");
            }
            let known = self.jobs.get_mut(&id).unwrap();
            let outcome = match samples {
                false => Outcome::Read,
                true => {
                    let token = next_token(&known.job, &known.text);
                    known.text.push(token);
                    Outcome::Sampled(token)
                }
            };
            let next = self.scheduler.record(id, outcome).unwrap();
            assert!(self.scheduler.record(id, outcome).is_err(), "recorded once");
            let known = self.jobs.get_mut(&id).unwrap();
            known.at_limit = known.text.len() == known.job.prompt.len() + known.job.max_tokens;
            assert_eq!(known.at_limit, next == Next::AtLimit);
            self.audit();
        }
        let over: Vec<_> =
            self.jobs.iter().filter(|(_, k)| k.at_limit).map(|(id, _)| *id).collect();
        for id in over {
            self.end(id, false);
        }
    }

    fn write(&mut self, id: JobId, start: usize, count: usize, blocks: &[BlockId]) {
        let hashes = hashes(&self.jobs[&id].job, &self.jobs[&id].text);
        for position in start..start + count {
            let block = blocks[position / self.options.block_tokens];
            let others = self.jobs.keys().filter(|other| **other != id);
            for other in others {
                let held = self.scheduler.blocks_of(*other).unwrap_or_default();
                assert!(!held.contains(&block), "{id:?} writes to a block of {other:?}");
            }
            self.memory.insert((block, position % self.options.block_tokens), hashes[position]);
        }
    }

    fn read(&self, id: JobId, end: usize, blocks: &[BlockId]) {
        let hashes = hashes(&self.jobs[&id].job, &self.jobs[&id].text);
        for (position, hash) in hashes.iter().enumerate().take(end) {
            let block = blocks[position / self.options.block_tokens];
            let found = self.memory.get(&(block, position % self.options.block_tokens));
            assert_eq!(found, Some(hash), "{id:?} at {position} in {block:?}");
        }
    }

    fn audit(&self) {
        self.audit_blocks(self.jobs.keys());
        let running = self.jobs.values().filter(|known| known.computed.is_some()).count();
        assert_eq!(self.scheduler.running(), running);
    }

    /// What is held is what the running jobs hold, and all else is free or cached.
    fn audit_blocks<'a>(&self, ids: impl Iterator<Item = &'a JobId>) {
        let tables = ids.filter_map(|id| self.scheduler.blocks_of(*id));
        let held: BTreeSet<_> = tables.flatten().collect();
        let usage = self.scheduler.block_use();
        assert_eq!(usage.total, self.options.blocks);
        assert_eq!(usage.held, held.len());
        assert_eq!(usage.free + usage.cached + usage.held, usage.total);
    }
}

impl Known {
    fn decodes(&self) -> bool {
        let sampled = self.text.len() > self.job.prompt.len();
        sampled && !self.at_limit && self.computed.is_some_and(|n| n + 1 == self.text.len())
    }
}

/// The answer that a job must get, computed alone.
pub fn answer(job: &Job) -> Vec<u32> {
    let mut text = job.prompt.to_vec();
    for _ in 0..job.max_tokens {
        text.push(next_token(job, &text));
    }
    text.split_off(job.prompt.len())
}

fn next_token(job: &Job, text: &[u32]) -> u32 {
    let last = hashes(job, text).last().copied().unwrap_or_default();
    // Few tokens, so that answers meet answers and prompts of others.
    (last >> 32) as u32 % 2
}

fn hashes(job: &Job, text: &[u32]) -> Vec<u64> {
    let scope = match &job.prefixes {
        Prefixes::Shared => 1,
        Prefixes::Within(scope) => scope.bytes().fold(2, mix),
        Prefixes::Unused => mix(3, job.id.0 as u8),
    };
    let next = |hash: &mut u64, token: &u32| {
        *hash = mix(*hash, *token as u8);
        Some(*hash)
    };
    text.iter().scan(scope, next).collect()
}

fn mix(hash: u64, byte: u8) -> u64 {
    let mixed = (hash ^ u64::from(byte) ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}
