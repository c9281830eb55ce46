//! Jobs that wait, and which of them is next.
//!
//! By priority first, then whichever tenant was served least, then first come, first served. A priority counts as one higher
//! for every `aging` nanoseconds in which somebody of it waited and nobody of it was admitted: one that is `n` lower than
//! others that never cease still has an admission every `n * aging`. A priority ages and not a job, else a tenant with a
//! long queue would go before all others once it is old.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use crate::sequence::{JobId, Sequence, Tenant};
use crate::service::Service;

/// Priorities there are, bounded so that each comes to its turn by aging.
pub const PRIORITIES: RangeInclusive<i32> = -100..=100;

#[derive(Debug)]
pub(crate) struct Queue {
    aging: u64,
    classes: BTreeMap<i32, Class>,
    len: usize,
}

/// All of one priority; never empty.
#[derive(Debug)]
struct Class {
    /// The last admission, or when the first of those that wait came.
    since: u64,
    /// Never empty.
    lines: BTreeMap<Tenant, VecDeque<Sequence>>,
}

/// Where the next job is.
#[derive(Debug)]
pub(crate) struct Place {
    priority: i32,
    tenant: Tenant,
}

impl Queue {
    /// `aging` is in nanoseconds and not 0.
    pub(crate) fn new(aging: u64) -> Self {
        Self { aging, classes: BTreeMap::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        let mut lines = self.classes.values().flat_map(|class| class.lines.values());
        lines.any(|line| line.iter().any(|waiting| waiting.job.id == id))
    }

    /// Adds a new job, after all others of its tenant and priority.
    pub(crate) fn push(&mut self, sequence: Sequence) {
        self.line(&sequence).push_back(sequence);
    }

    /// Puts a preempted one back, before all others of its tenant and priority.
    pub(crate) fn put_back(&mut self, sequence: Sequence) {
        self.line(&sequence).push_front(sequence);
    }

    /// Who is next.
    pub(crate) fn next(&self, service: &Service, now: u64) -> Option<Place> {
        let aged = |priority: i32, class: &Class| {
            let ages = now.saturating_sub(class.since) / self.aging;
            i64::from(priority).saturating_add(i64::try_from(ages).unwrap_or(i64::MAX))
        };
        let classes = self.classes.iter();
        let (&priority, class) = classes.max_by_key(|(p, class)| (aged(**p, class), **p))?;
        let first = |line: &VecDeque<Sequence>| line.front().map(|sequence| sequence.number);
        let least =
            |(tenant, line): &(&Tenant, &VecDeque<Sequence>)| (service.served(tenant), first(line));
        let (tenant, _) = class.lines.iter().min_by_key(least)?;
        Some(Place { priority, tenant: tenant.clone() })
    }

    pub(crate) fn peek(&self, place: &Place) -> Option<&Sequence> {
        self.classes.get(&place.priority)?.lines.get(&place.tenant)?.front()
    }

    /// Takes the next one out to run.
    pub(crate) fn pop(&mut self, place: &Place, now: u64) -> Option<Sequence> {
        let class = self.classes.get_mut(&place.priority)?;
        class.since = now;
        let sequence = class.lines.get_mut(&place.tenant)?.pop_front()?;
        self.tidy(place);
        Some(sequence)
    }

    /// Takes one out that is not to run.
    pub(crate) fn remove(&mut self, id: JobId) -> Option<Sequence> {
        let lines = self.classes.iter_mut().flat_map(|(&priority, class)| {
            class.lines.iter_mut().map(move |(tenant, line)| (priority, tenant, line))
        });
        for (priority, tenant, line) in lines {
            if let Some(at) = line.iter().position(|waiting| waiting.job.id == id) {
                let place = Place { priority, tenant: tenant.clone() };
                let sequence = line.remove(at);
                self.tidy(&place);
                return sequence;
            }
        }
        None
    }

    /// The line that a sequence is about to join.
    fn line(&mut self, sequence: &Sequence) -> &mut VecDeque<Sequence> {
        self.len += 1;
        let job = &sequence.job;
        let priority = job.priority.clamp(*PRIORITIES.start(), *PRIORITIES.end());
        let new = || Class { since: sequence.waiting_since, lines: BTreeMap::new() };
        let class = self.classes.entry(priority).or_insert_with(new);
        class.lines.entry(job.tenant.clone()).or_default()
    }

    /// One has left this place.
    fn tidy(&mut self, place: &Place) {
        self.len = self.len.saturating_sub(1);
        let Some(class) = self.classes.get_mut(&place.priority) else { return };
        if class.lines.get(&place.tenant).is_some_and(VecDeque::is_empty) {
            class.lines.remove(&place.tenant);
        }
        if class.lines.is_empty() {
            self.classes.remove(&place.priority);
        }
    }
}

/// Of those that run, the one to preempt: of the lowest priority the one that was admitted last, but never the one that was
/// submitted first. `running` is in the order of admission; its place there.
pub(crate) fn victim(running: &[Sequence]) -> Option<usize> {
    let oldest = running.iter().map(|sequence| sequence.number).min()?;
    let others = running.iter().enumerate().filter(|(_, sequence)| sequence.number != oldest);
    let (place, _) =
        others.min_by_key(|(place, sequence)| (sequence.job.priority, Reverse(*place)))?;
    Some(place)
}
