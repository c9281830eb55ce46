//! A job and how far it is.

use std::sync::Arc;

use crate::block_pool::Table;
use crate::facts::Facts;

/// Names a job; the caller's choice, never two at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Who is served; all that have no name are one.
pub type Tenant = Option<Arc<str>>;

/// What to compute.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// The prompt, at least one token.
    pub prompt: Arc<[u32]>,
    /// Most tokens to sample, at least 1; 0 counts as 1.
    pub max_tokens: usize,
    /// Whose turn it uses.
    pub tenant: Tenant,
    /// The higher, the sooner; what lies outside [`crate::PRIORITIES`] counts as the nearest inside.
    pub priority: i32,
    /// When it came, in nanoseconds.
    pub arrived: u64,
    /// With whom it shares what it computes.
    pub prefixes: Prefixes,
}

/// With whom a job shares the blocks of what it reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prefixes {
    /// With all others that say so. How long an answer takes tells then whether somebody has sent the same beginning before.
    #[default]
    Shared,
    /// With those that name the same scope: a tenant, or a salt.
    Within(Arc<str>),
    /// With nobody: every position is computed, and nothing is kept.
    Unused,
}

/// A job, in the queue or running.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) job: Job,
    /// Its place among all that were ever submitted.
    pub(crate) number: u64,
    /// What was sampled so far.
    output: Vec<u32>,
    /// Empty while it waits.
    pub(crate) table: Table,
    /// Positions, from the start, that have their keys and values in the table.
    pub(crate) computed: usize,
    /// What this step computes of it.
    pub(crate) planned: Option<Planned>,
    /// Since when it waits, while it does.
    pub(crate) waiting_since: u64,
    /// Positions that it had when it was preempted.
    lost: usize,
    /// Tokens, from the start, that its tenant was charged for: nobody pays for what a preemption makes necessary.
    charged: usize,
    pub(crate) facts: Facts,
}

/// A sequence's part of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// Tokens, from `computed` on.
    pub(crate) tokens: usize,
    /// One token whose predecessors have all been computed, after the first was sampled.
    pub(crate) decode: bool,
    /// Sequences in the step.
    pub(crate) batch: usize,
}

impl Sequence {
    pub(crate) fn new(job: Job, number: u64) -> Self {
        Self {
            waiting_since: job.arrived,
            job,
            number,
            output: Vec::new(),
            table: Table::empty(),
            computed: 0,
            planned: None,
            lost: 0,
            charged: 0,
            facts: Facts::default(),
        }
    }

    /// Tokens known: the prompt and what was sampled.
    pub(crate) fn len(&self) -> usize {
        self.job.prompt.len() + self.output.len()
    }

    /// Positions that it can ever need; the last token that is sampled is not read again.
    pub(crate) fn most_positions(job: &Job) -> usize {
        job.prompt.len().saturating_add(job.max_tokens.max(1) - 1)
    }

    /// Whether it will need more blocks than it has, if it samples all that it may.
    pub(crate) fn grows(&self, block_tokens: usize) -> bool {
        self.table.blocks().len() < Self::most_positions(&self.job).div_ceil(block_tokens)
    }

    /// Whether all that it may sample is sampled.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= self.job.max_tokens.max(1)
    }

    /// Positions still to compute before the next token is sampled.
    pub(crate) fn remaining(&self) -> usize {
        if self.is_full() { 0 } else { self.len() - self.computed }
    }

    pub(crate) fn decodes(&self) -> bool {
        !self.output.is_empty() && self.remaining() == 1
    }

    /// A piece of the tokens.
    pub(crate) fn tokens(&self, start: usize, count: usize) -> Vec<u32> {
        self.job.prompt.iter().chain(&self.output).skip(start).take(count).copied().collect()
    }

    /// The tokens of each full block; not of one that has the last token, which must be computed for its logits.
    pub(crate) fn full_blocks(&self, block_tokens: usize) -> impl Iterator<Item = Vec<u32>> {
        let full = self.len().saturating_sub(1) / block_tokens;
        (0..full).map(move |block| self.tokens(block * block_tokens, block_tokens))
    }

    /// It leaves the queue with blocks for `cached` positions that are computed already; how many tokens it is charged.
    pub(crate) fn start(&mut self, table: Table, cached: usize, now: u64) -> usize {
        self.note_waited(now);
        if self.facts.preemptions == 0 {
            self.facts.cached_tokens = cached;
        } else {
            self.facts.recomputed_tokens += self.lost.saturating_sub(cached);
        }
        self.table = table;
        self.computed = cached;
        let charge = self.len().saturating_sub(self.charged.max(cached));
        self.charged = self.len();
        charge
    }

    /// Puts as much of it into the step as fits into the budget and into its blocks.
    pub(crate) fn plan(&mut self, budget: &mut usize, block_tokens: usize) {
        let room = (self.table.blocks().len() * block_tokens).saturating_sub(self.computed);
        let tokens = self.remaining().min(*budget).min(room);
        *budget -= tokens;
        self.planned = (tokens > 0).then(|| Planned { tokens, decode: self.decodes(), batch: 0 });
    }

    /// It leaves the queue.
    pub(crate) fn note_waited(&mut self, now: u64) {
        let waited = now.saturating_sub(self.waiting_since);
        let first = self.facts.preemptions == 0;
        *(if first { &mut self.facts.queued } else { &mut self.facts.requeued }) += waited;
    }

    /// It loses its blocks; the caller gives them back.
    pub(crate) fn stop(&mut self, now: u64) -> Table {
        self.facts.preemptions += 1;
        self.lost = self.computed;
        self.computed = 0;
        self.planned = None;
        self.waiting_since = now;
        std::mem::replace(&mut self.table, Table::empty())
    }

    /// Another token was sampled and charged for.
    pub(crate) fn push(&mut self, token: u32) {
        self.output.push(token);
        self.charged = self.len();
    }

    /// What a step that it was in adds to the facts.
    pub(crate) fn count(&mut self, planned: Planned) {
        self.computed += planned.tokens;
        let facts = &mut self.facts;
        facts.chunks += u32::from(!planned.decode);
        facts.steps += 1;
        facts.batch_max = facts.batch_max.max(planned.batch);
        facts.batch_sum += planned.batch as u64;
    }

    pub(crate) fn note_blocks(&mut self) {
        self.facts.blocks_peak = self.facts.blocks_peak.max(self.table.blocks().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_preemption_makes_necessary_is_not_charged() {
        let job = Job {
            id: JobId(1),
            prompt: Arc::from([0; 8]),
            max_tokens: 9,
            tenant: None,
            priority: 0,
            arrived: 5,
            prefixes: Prefixes::Shared,
        };
        let mut sequence = Sequence::new(job, 1);
        assert_eq!(sequence.start(Table::empty(), 4, 7), 4);
        sequence.computed = 8;
        sequence.push(1);
        sequence.stop(10);
        assert_eq!(sequence.start(Table::empty(), 0, 13), 0);
        let facts = sequence.facts;
        assert_eq!((facts.queued, facts.requeued), (2, 3));
        assert_eq!((facts.cached_tokens, facts.recomputed_tokens), (4, 8));
    }
}
