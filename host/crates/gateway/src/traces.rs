//! Spans of traces that are not decided yet, and what was decided of the others. Pure: its caller
//! tells the time.
//!
//! A trace is decided [`TraceRules::wait`] after the first of its spans came, by all that came until
//! then. Spans that come later follow the decision, as long as it is among the newest [`DECISIONS`]
//! and no older than [`REMEMBERED_FOR`]. Its caller keeps decisions for the next start.
//!
//! Bounded in bytes and in spans. Policy when there are more: the oldest trace is *decided early*, by
//! what there is of it, and counted.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tollgate_domain::TraceId;
use tollgate_domain::sampling::{DECISIONS, Decision, REMEMBERED_FOR, TraceFacts, TraceRules};

/// Most spans that wait.
pub(crate) const MOST_SPANS: usize = 262_144;

/// Some spans of one trace, whatever they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part<T> {
    pub(crate) trace: TraceId,
    pub(crate) facts: TraceFacts,
    pub(crate) spans: usize,
    pub(crate) bytes: usize,
    pub(crate) what: T,
}

/// A trace that is decided, or what came late of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided<T> {
    pub(crate) trace: TraceId,
    pub(crate) decision: Decision,
    /// The rest of it was decided before.
    pub(crate) late: bool,
    /// In the order that they came.
    pub(crate) parts: Vec<T>,
}

/// What has become of traces so far, at an exporter that waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Traces by what was decided of them.
    pub decided: BTreeMap<Decision, u64>,
    /// Of those that were to leave, which a plugin has kept back.
    pub overruled: u64,
    /// Decided early for want of room.
    pub early: u64,
    /// Spans that came after the decision.
    pub late_spans: u64,
    /// Spans that wait.
    pub waiting_spans: u64,
    /// Their bytes, about.
    pub waiting_bytes: u64,
}

/// What waits, and what was decided.
#[derive(Debug)]
pub(crate) struct Traces<T> {
    rules: TraceRules,
    open: HashMap<TraceId, Open<T>>,
    /// The open ones, the oldest first, and when each is due.
    order: VecDeque<(Duration, TraceId)>,
    decisions: HashMap<TraceId, Decision>,
    /// The oldest first, and when each was decided. Policy when there are more than may be: the
    /// oldest is forgotten, and what comes of its trace is a trace of its own.
    known: VecDeque<(Duration, TraceId)>,
    /// What its caller has not kept yet, the oldest first. Not more than are known.
    fresh: VecDeque<TraceId>,
    /// What has become of a trace and is not taken yet.
    leaving: Vec<Decided<T>>,
    counts: TraceCounts,
}

#[derive(Debug)]
struct Open<T> {
    facts: TraceFacts,
    spans: usize,
    bytes: usize,
    parts: Vec<T>,
}

impl<T> Traces<T> {
    pub(crate) fn new(rules: TraceRules) -> Self {
        Self {
            rules,
            open: HashMap::new(),
            order: VecDeque::new(),
            decisions: HashMap::new(),
            known: VecDeque::new(),
            fresh: VecDeque::new(),
            leaving: Vec::new(),
            counts: TraceCounts::default(),
        }
    }

    /// Knows what was decided before this start. Said before anything else, the oldest first.
    pub(crate) fn recall(&mut self, trace: TraceId, decision: Decision, at: Duration) {
        self.know(trace, decision, at);
    }

    /// What was decided since it was last said to be kept, plugins' words included.
    pub(crate) fn fresh(&self) -> Vec<(TraceId, Decision)> {
        let decision = |trace: &TraceId| Some((*trace, *self.decisions.get(trace)?));
        self.fresh.iter().filter_map(decision).collect()
    }

    /// That is kept now.
    pub(crate) fn kept(&mut self) {
        self.fresh.clear();
    }

    /// Takes spans that have come at `now`, which never goes back.
    pub(crate) fn add(&mut self, part: Part<T>, now: Duration) {
        let Part { trace, facts, spans, bytes, what } = part;
        if let Some(decision) = self.decisions.get(&trace).copied() {
            self.counts.late_spans = self.counts.late_spans.saturating_add(spans as u64);
            return self.leaving.push(Decided { trace, decision, late: true, parts: vec![what] });
        }
        let open = self.open.entry(trace).or_insert_with(|| {
            self.order.push_back((now.saturating_add(self.rules.wait), trace));
            Open { facts: TraceFacts::default(), spans: 0, bytes: 0, parts: Vec::new() }
        });
        open.facts.add(&facts);
        open.spans = open.spans.saturating_add(spans);
        open.bytes = open.bytes.saturating_add(bytes);
        open.parts.push(what);
        self.counts.waiting_spans = self.counts.waiting_spans.saturating_add(spans as u64);
        self.counts.waiting_bytes = self.counts.waiting_bytes.saturating_add(bytes as u64);
        while self.is_too_much() && !self.order.is_empty() {
            self.hurry(now);
        }
    }

    /// What is decided by `now`, late spans included.
    pub(crate) fn take(&mut self, now: Duration) -> Vec<Decided<T>> {
        while self.order.front().is_some_and(|(due, _)| *due <= now) && self.decide_oldest(now) {}
        let is_old = |(at, _): &(Duration, TraceId)| at.saturating_add(REMEMBERED_FOR) <= now;
        while self.known.front().is_some_and(is_old) {
            self.forget_oldest();
        }
        std::mem::take(&mut self.leaving)
    }

    /// Decides the oldest trace now, for want of room elsewhere.
    pub(crate) fn hurry(&mut self, now: Duration) {
        if self.decide_oldest(now) {
            self.counts.early = self.counts.early.saturating_add(1);
        }
    }

    /// When the next trace is due; at once if some are decided already.
    pub(crate) fn due(&self) -> Option<Duration> {
        if !self.leaving.is_empty() {
            return Some(Duration::ZERO);
        }
        self.order.front().map(|(due, _)| *due)
    }

    /// A plugin has decided otherwise: what comes late of this trace does not leave either.
    pub(crate) fn overrule(&mut self, trace: TraceId) {
        if let Some(decision) = self.decisions.get_mut(&trace)
            && decision.is_kept()
        {
            *decision = Decision::Dropped;
            self.counts.overruled = self.counts.overruled.saturating_add(1);
        }
    }

    pub(crate) fn counts(&self) -> &TraceCounts {
        &self.counts
    }

    fn is_too_much(&self) -> bool {
        self.counts.waiting_spans > MOST_SPANS as u64
            || self.counts.waiting_bytes > self.rules.most_bytes as u64
    }

    /// False if none is open.
    fn decide_oldest(&mut self, now: Duration) -> bool {
        let Some((_, trace)) = self.order.pop_front() else { return false };
        let Some(open) = self.open.remove(&trace) else { return true };
        let decision = self.rules.decide(trace, &open.facts);
        self.counts.waiting_spans = self.counts.waiting_spans.saturating_sub(open.spans as u64);
        self.counts.waiting_bytes = self.counts.waiting_bytes.saturating_sub(open.bytes as u64);
        *self.counts.decided.entry(decision).or_default() += 1;
        self.know(trace, decision, now);
        self.fresh.push_back(trace);
        if self.fresh.len() > DECISIONS {
            self.fresh.pop_front();
        }
        self.leaving.push(Decided { trace, decision, late: false, parts: open.parts });
        true
    }

    fn know(&mut self, trace: TraceId, decision: Decision, at: Duration) {
        self.decisions.insert(trace, decision);
        self.known.push_back((at, trace));
        if self.known.len() > DECISIONS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.known.pop_front() {
            self.decisions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollgate_domain::sampling::Share;

    use super::*;

    const WAIT: u64 = 10;

    fn rules(most_bytes: usize) -> TraceRules {
        TraceRules {
            wait: at(WAIT),
            keep_errors: true,
            keep_slower: None,
            keep_cost: None,
            share: Share::of(0.0).unwrap(),
            most_bytes,
        }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn part(trace: u128, error: bool, what: usize) -> Part<usize> {
        let facts = TraceFacts { error, ..TraceFacts::default() };
        Part { trace: TraceId(trace), facts, spans: 1, bytes: 10, what }
    }

    #[test]
    fn a_trace_is_decided_by_all_that_came_in_time_and_late_spans_follow() {
        let mut traces = Traces::new(rules(1000));
        traces.add(part(1, false, 0), at(0));
        traces.add(part(2, false, 1), at(1));
        traces.add(part(1, true, 2), at(9));
        assert_eq!((traces.take(at(9)), traces.due()), (Vec::new(), Some(at(10))));
        let whole = traces.take(at(10));
        let of =
            |trace, decision, late, parts| Decided { trace: TraceId(trace), decision, late, parts };
        assert_eq!(whole, [of(1, Decision::Error, false, vec![0, 2])]);
        assert_eq!(traces.take(at(11)), [of(2, Decision::Dropped, false, vec![1])]);
        traces.add(part(2, true, 3), at(12));
        traces.add(part(1, false, 4), at(12));
        assert_eq!(traces.due(), Some(at(0)));
        let late = [of(2, Decision::Dropped, true, vec![3]), of(1, Decision::Error, true, vec![4])];
        assert_eq!(traces.take(at(12)), late);
        traces.overrule(TraceId(1));
        traces.add(part(1, true, 5), at(13));
        assert_eq!(traces.take(at(13)), [of(1, Decision::Dropped, true, vec![5])]);
        let decided = &traces.counts().decided;
        assert_eq!((decided[&Decision::Dropped], decided[&Decision::Error]), (1, 1));
        let counts = traces.counts();
        assert_eq!((counts.overruled, counts.late_spans, traces.due()), (1, 3, None));
    }

    #[test]
    fn decisions_are_forgotten_from_the_oldest_on() {
        let mut traces = Traces::new(rules(usize::MAX));
        for trace in 0..=DECISIONS as u128 {
            traces.add(part(trace, false, 0), at(0));
        }
        assert_eq!(traces.take(at(WAIT)).len(), DECISIONS + 1);
        traces.add(part(0, false, 1), at(20));
        traces.add(part(1, false, 2), at(20));
        let late: Vec<bool> = traces.take(at(99)).iter().map(|decided| decided.late).collect();
        assert_eq!(late, [true, false]);
        assert_eq!((traces.decisions.len(), traces.fresh().len()), (DECISIONS, DECISIONS));
    }

    #[test]
    fn what_was_decided_before_a_start_holds_until_it_is_old() {
        let mut traces = Traces::new(rules(1000));
        traces.recall(TraceId(1), Decision::Error, at(0));
        traces.recall(TraceId(2), Decision::Dropped, at(60));
        traces.add(part(1, false, 0), at(100));
        traces.add(part(2, true, 1), at(100));
        traces.add(part(3, true, 2), at(100));
        let followed = |traces: &mut Traces<usize>, now| -> Vec<(u128, Decision, bool)> {
            let taken = traces.take(now).into_iter();
            taken.map(|decided| (decided.trace.0, decided.decision, decided.late)).collect()
        };
        let late = [(1, Decision::Error, true), (2, Decision::Dropped, true)];
        assert_eq!(followed(&mut traces, at(100)), late);
        assert_eq!(traces.fresh(), [], "nothing is decided anew");
        assert_eq!(followed(&mut traces, at(110)), [(3, Decision::Error, false)]);
        traces.overrule(TraceId(3));
        assert_eq!(traces.fresh(), [(TraceId(3), Decision::Dropped)]);
        traces.kept();
        // The first is old a minute before the second.
        let old = REMEMBERED_FOR + at(1);
        assert_eq!(followed(&mut traces, old), []);
        traces.add(part(1, false, 3), old);
        traces.add(part(2, true, 4), old);
        assert_eq!(followed(&mut traces, old), [(2, Decision::Dropped, true)]);
        assert_eq!(followed(&mut traces, old + at(WAIT)), [(1, Decision::Dropped, false)]);
        assert_eq!(traces.fresh(), [(TraceId(1), Decision::Dropped)]);
    }

    proptest! {
        /// Whatever comes whenever: nothing is lost, nothing leaves twice, parts of a trace stay in
        /// order, no trace gets two decisions, the bound holds, and with room nothing is early.
        #[test]
        fn every_part_leaves_once_in_order_and_by_one_decision(
            parts in proptest::collection::vec((0_u128..6, any::<bool>(), 0_u64..4, any::<bool>()), 0..80),
            most_bytes in 0_usize..200,
        ) {
            let mut traces = Traces::new(rules(most_bytes));
            let (mut now, mut left) = (0, Vec::new());
            for (number, (trace, error, pause, take)) in parts.iter().enumerate() {
                now += pause;
                traces.add(part(*trace, *error, number), at(now));
                prop_assert!(traces.counts().waiting_bytes as usize <= most_bytes);
                if *take {
                    left.extend(traces.take(at(now)));
                }
            }
            loop {
                let more = traces.take(at(now + WAIT));
                if more.is_empty() {
                    break;
                }
                left.extend(more);
            }
            let mut seen = BTreeMap::<u128, (Decision, Vec<usize>)>::new();
            for decided in left {
                let (decision, so_far) =
                    seen.entry(decided.trace.0).or_insert((decided.decision, Vec::new()));
                prop_assert_eq!(*decision, decided.decision);
                prop_assert_eq!(decided.late, !so_far.is_empty());
                so_far.extend(decided.parts);
            }
            for (trace, (decision, numbers)) in seen {
                let all: Vec<usize> = (0..parts.len()).filter(|n| parts[*n].0 == trace).collect();
                let any_error = all.iter().any(|n| parts[*n].1);
                prop_assert_eq!(numbers, all);
                prop_assert!(any_error || decision == Decision::Dropped);
            }
            prop_assert_eq!(traces.counts().waiting_spans, 0);
            prop_assert!(traces.open.is_empty() && traces.order.is_empty());
            if most_bytes >= parts.len() * 10 {
                prop_assert_eq!(traces.counts().early, 0);
            }
        }
    }
}
