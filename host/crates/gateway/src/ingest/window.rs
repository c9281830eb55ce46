//! What is known of the newest spans: which there were, which is whose parent, and which are
//! billed. Pure.
//!
//! Bounded: the newest [`MOST`] spans. What is older is forgotten; a span that is sent again later
//! than that counts as new.

use std::collections::VecDeque;

use foldhash::{HashMap, HashSet};
use tollgate_domain::{Span, SpanId, TraceId};

/// Spans that are known.
pub(super) const MOST: usize = 131_072;

/// How far up a trace is looked.
const FAR: usize = 256;

/// Answers' ids that are shorter are no ids: some servers give all answers the same one.
const ANSWER_ID: std::ops::RangeInclusive<usize> = 16..=256;

/// A span's name for ever.
pub(super) type Id = (TraceId, SpanId);

/// The id of a span.
pub(super) fn id(span: &Span) -> Id {
    (span.context.trace_id, span.context.span_id)
}

/// What is known of a span.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) id: Id,
    pub(super) parent: Option<SpanId>,
    /// Whether it is on a bill.
    pub(super) billed: bool,
    /// Whether it is not yet on record.
    pub(super) pending: bool,
    /// Id of the answer that it tells of.
    pub(super) answer: Option<String>,
}

impl Known {
    /// Of a span that is passed on.
    pub(super) fn passed(span: &Span) -> Self {
        let (id, parent) = (id(span), span.parent);
        Self { id, parent, billed: false, pending: false, answer: None }
    }
}

/// Whether a span is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is about to be put on record.
    Pending,
    /// It is on record.
    Recorded,
}

/// The newest spans.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Oldest first.
    order: VecDeque<Id>,
    traces: HashMap<TraceId, Trace>,
    /// Answers of billed calls, and the spans that told of them.
    answers: HashMap<String, Id>,
}

#[derive(Debug, Default)]
struct Trace {
    spans: HashMap<SpanId, Place>,
    /// Spans that have one below them that is billed, whether they are known yet or not.
    above_billed: HashSet<SpanId>,
}

#[derive(Debug)]
struct Place {
    parent: Option<SpanId>,
    billed: bool,
    pending: bool,
    answer: Option<String>,
}

impl Window {
    /// Whether a span is known.
    pub(super) fn seen(&self, (trace, span): Id) -> Option<Seen> {
        let place = self.traces.get(&trace)?.spans.get(&span)?;
        Some(if place.pending { Seen::Pending } else { Seen::Recorded })
    }

    /// Takes note of a span, or of more about it.
    pub(super) fn note(&mut self, known: Known) {
        let Known { id: (trace, span), parent, billed, pending, answer } = known;
        let answer = answer.filter(|answer| ANSWER_ID.contains(&answer.len()));
        if let Some(answer) = &answer {
            self.answers.entry(answer.clone()).or_insert((trace, span));
        }
        let spans = self.traces.entry(trace).or_default();
        let place = Place { parent, billed, pending, answer };
        if spans.spans.insert(span, place).is_none() {
            self.order.push_back((trace, span));
        }
        if billed || spans.above_billed.contains(&span) {
            spans.tell_parents(span);
        }
        while self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    /// These spans are on record.
    pub(super) fn committed(&mut self, ids: &[Id]) {
        for (trace, span) in ids {
            let place = self.traces.get_mut(trace).and_then(|trace| trace.spans.get_mut(span));
            if let Some(place) = place {
                place.pending = false;
            }
        }
    }

    /// How many known spans are above a span.
    pub(super) fn depth(&self, (trace, span): Id) -> usize {
        self.traces.get(&trace).map_or(0, |trace| trace.above(span).count())
    }

    /// Whether the call that a span tells of is billed by another span: one above or below it, or
    /// one that names the same answer.
    pub(super) fn is_counted(&self, (trace, span): Id, answer: Option<&str>) -> bool {
        let by_answer = answer.and_then(|answer| self.answers.get(answer));
        by_answer.is_some_and(|id| *id != (trace, span))
            || self.traces.get(&trace).is_some_and(|trace| {
                let billed = |id| trace.spans.get(&id).is_some_and(|place| place.billed);
                trace.above_billed.contains(&span) || trace.above(span).any(billed)
            })
    }

    fn forget_oldest(&mut self) {
        let Some((id, span)) = self.order.pop_front() else { return };
        let Some(trace) = self.traces.get_mut(&id) else { return };
        let answer = trace.spans.remove(&span).and_then(|place| place.answer);
        if let Some(answer) = answer
            && self.answers.get(&answer) == Some(&(id, span))
        {
            self.answers.remove(&answer);
        }
        trace.above_billed.remove(&span);
        if trace.spans.is_empty() {
            self.traces.remove(&id);
        }
    }
}

impl Trace {
    /// The spans above one, its parent first, as far as they are known; the last may not be.
    fn above(&self, span: SpanId) -> impl Iterator<Item = SpanId> {
        let parent = move |span: &SpanId| self.spans.get(span)?.parent;
        std::iter::successors(parent(&span), parent).take(FAR)
    }

    /// All above this one have a billed span below them.
    fn tell_parents(&mut self, span: SpanId) {
        let above: Vec<SpanId> = self.above(span).collect();
        for parent in above {
            if !self.above_billed.insert(parent) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(span: u64, parent: u64, billed: bool) -> Known {
        let parent = (parent > 0).then_some(SpanId(parent));
        Known { id: at(span), parent, billed, pending: false, answer: None }
    }

    fn at(span: u64) -> Id {
        (TraceId(1), SpanId(span))
    }

    /// In whichever order a client's span (1), the one of its connection (2) and the server's (3)
    /// arrive, the second of the calls is known to be counted.
    #[test]
    fn one_of_a_client_and_a_server_is_billed() {
        let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
        for order in orders {
            let mut window = Window::default();
            let mut billed = 0;
            for span in order {
                window.note(known(span, span - 1, false));
                if span == 2 {
                    continue;
                }
                if !window.is_counted(at(span), None) {
                    window.note(known(span, span - 1, true));
                    billed += 1;
                }
            }
            // Until the span between them is known nothing says that they are of one call.
            let wanted = if order[2] == 2 { 2 } else { 1 };
            assert_eq!(billed, wanted, "{order:?}");
        }
    }

    #[test]
    fn siblings_are_calls_of_their_own() {
        let mut window = Window::default();
        window.note(known(2, 1, true));
        window.note(known(3, 1, false));
        assert!(!window.is_counted(at(3), None));
        assert!(window.is_counted(at(1), None), "their parent is not");
        window.note(Known { id: (TraceId(2), SpanId(1)), ..known(1, 0, false) });
        assert!(!window.is_counted((TraceId(2), SpanId(1)), None), "of another trace");
    }

    #[test]
    fn an_answer_is_billed_once_if_it_has_a_real_id() {
        let mut window = Window::default();
        for (answer, counted) in [("chatcmpl-0123456789abcdef", true), ("chatcmpl-1", false)] {
            let answer = answer.to_owned();
            window.note(Known { answer: Some(answer.clone()), ..known(5, 0, true) });
            let elsewhere = (TraceId(9), SpanId(9));
            assert_eq!(window.is_counted(elsewhere, Some(&answer)), counted);
            assert!(!window.is_counted(at(5), Some(&answer)), "itself");
        }
    }

    #[test]
    fn loops_end_and_the_oldest_are_forgotten() {
        let mut window = Window::default();
        window.note(known(1, 2, true));
        window.note(known(2, 1, true));
        assert!(window.is_counted(at(1), None) && window.depth(at(1)) <= FAR);
        for span in 3..MOST as u64 + 10 {
            window.note(known(span, 0, false));
        }
        assert_eq!((window.order.len(), window.seen(at(1))), (MOST, None));
        assert_eq!(window.traces[&TraceId(1)].spans.len(), MOST);
        assert!(window.traces[&TraceId(1)].above_billed.is_empty());
    }

    #[test]
    fn what_is_pending_is_told_apart() {
        let mut window = Window::default();
        window.note(Known { pending: true, ..known(1, 0, false) });
        assert_eq!(window.seen(at(1)), Some(Seen::Pending));
        window.committed(&[at(1)]);
        assert_eq!(window.seen(at(1)), Some(Seen::Recorded));
    }
}
