//! What is known of the newest spans: which there were, which is whose parent, and which are
//! billed. Pure.
//!
//! Bounded: so many spans that tell of calls, and so many others ([`Most`]), each by itself, so that no
//! flood of plain spans makes a call forgotten. What is older is forgotten; [`Window::covers`] says
//! what that cannot be.
//!
//! Each sender has a [`Scope`]: what one says of ids changes nothing for another. Requests that were
//! served here are known in all.

mod known;

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use tollgate_domain::{SpanId, TraceId, UnixNanos};

pub(super) use self::known::{Answer, Id, Known, Naming, Payer, Scope, Scopes, Seen, Verdict};

/// How many spans are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// That tell of no call.
    pub(super) plain: usize,
    /// That tell of one, whether it is billed or counted elsewhere.
    pub(super) calls: usize,
}

/// So many.
pub(super) const MOST: Most = Most { plain: 131_072, calls: 262_144 };

/// How far up a trace is looked.
const FAR: usize = 256;

/// The newest spans.
#[derive(Debug)]
pub(super) struct Window {
    most: Most,
    /// Oldest first, as all of these. What has come to tell of a call stays in here until its turn.
    plain: VecDeque<Id>,
    calls: VecDeque<(Id, UnixNanos)>,
    /// Spans that are not known, above those that are billed.
    unknown: VecDeque<Id>,
    traces: HashMap<TraceId, Trace>,
    /// Answers of billed calls.
    answers: HashMap<(Scope, [u64; 2]), Told>,
    /// All calls that have been forgotten arrived by then.
    forgotten: Option<UnixNanos>,
}

#[derive(Debug, Default)]
struct Trace {
    spans: HashMap<(Scope, SpanId), Place>,
    /// Spans that are not known and have one below them that is billed.
    above_billed: HashSet<(Scope, SpanId)>,
}

#[derive(Debug, Default)]
struct Place {
    parent: Option<SpanId>,
    call: bool,
    billed: bool,
    pending: bool,
    /// One below it is billed.
    above_billed: bool,
    answer: Option<Answer>,
    payer: Option<Arc<Payer>>,
}

/// Who has told of an answer and is billed for it.
#[derive(Debug, Default)]
struct Told {
    /// Who names it as an answer.
    response: Option<Id>,
    /// Who names it as a request, the newest: as whose child, and how long its prompt was.
    request: Option<(Id, Option<SpanId>, u64)>,
    /// The call of whose request spans `response` stands for: servers name several requests alike if their
    /// clients do, and an answer is of one.
    stands_for: Option<(TraceId, Option<SpanId>)>,
}

impl Window {
    /// One that knows nothing yet.
    pub(super) fn new(most: Most) -> Self {
        Self {
            most,
            plain: VecDeque::new(),
            calls: VecDeque::new(),
            unknown: VecDeque::new(),
            traces: HashMap::default(),
            answers: HashMap::default(),
            forgotten: None,
        }
    }

    /// Whether a span is known: of this sender, or served here.
    pub(super) fn seen(&self, id: Id) -> Option<Seen> {
        let place = self.traces.get(&id.trace)?.place(id.scope, id.span)?;
        Some(if place.pending { Seen::Pending } else { Seen::Recorded })
    }

    /// Whether a call that ended then and has come before would be known. What arrives has ended.
    pub(super) fn covers(&self, end: UnixNanos) -> bool {
        self.forgotten.is_none_or(|forgotten| end > forgotten)
    }

    /// Calls have been forgotten, or were never known, that arrived until then.
    pub(super) fn has_forgotten(&mut self, until: UnixNanos) {
        self.forgotten = self.forgotten.max(Some(until));
    }

    /// Takes note of a span, or of more about it, at that time.
    pub(super) fn note(&mut self, known: &Known, now: UnixNanos) {
        let Known { id, parent, call, billed, pending, answer, prompt, payer } = known;
        if *call
            && let Some(before) = self.place(*id).and_then(|place| place.answer)
            && Some(before) != *answer
        {
            self.forget_answer(*id, before);
        }
        if let (Some(answer), true) = (answer, billed) {
            let told = self.answers.entry((id.scope, answer.digest)).or_default();
            match answer.naming {
                Naming::Answer => drop(told.response.get_or_insert(*id)),
                Naming::Request => {
                    told.request = prompt.map(|prompt| (*id, *parent, prompt)).or(told.request);
                }
            }
        }
        let trace = self.traces.entry(id.trace).or_default();
        let above = !trace.above_billed.is_empty()
            && (trace.above_billed.remove(&(id.scope, id.span))
                || trace.above_billed.contains(&(Scope::SERVED, id.span)));
        let is_new = !trace.spans.contains_key(&(id.scope, id.span));
        let place = trace.spans.entry((id.scope, id.span)).or_default();
        if *call && !place.call {
            self.calls.push_back((*id, now));
        } else if is_new {
            self.plain.push_back(*id);
        }
        place.parent = *parent;
        place.call |= call;
        place.billed = *billed;
        place.pending = *pending;
        place.above_billed |= above;
        if *call {
            place.answer = *answer;
            place.payer.clone_from(payer);
        }
        if *billed || place.above_billed {
            let unknown = trace.tell_parents(id.scope, id.span);
            self.unknown.extend(unknown.map(|span| Id { span, ..*id }));
        }
        self.forget();
    }

    /// A span that was noted is on record.
    pub(super) fn recorded(&mut self, known: Known, now: UnixNanos) {
        let trace = self.traces.get_mut(&known.id.trace);
        let place = trace.and_then(|trace| trace.spans.get_mut(&(known.id.scope, known.id.span)));
        match place {
            Some(place) => place.pending = false,
            // It was forgotten meanwhile, or all was.
            None => self.note(&Known { pending: false, ..known }, now),
        }
    }

    /// What its sender has said of a span.
    fn place(&self, id: Id) -> Option<&Place> {
        self.traces.get(&id.trace)?.spans.get(&(id.scope, id.span))
    }

    /// How many known spans are above a span.
    pub(super) fn depth(&self, id: Id) -> usize {
        self.traces.get(&id.trace).map_or(0, |trace| trace.above(id.scope, id.span).count())
    }

    /// Whether the call that a span tells of is billed by another span: one above or below it, or
    /// one that names the same answer.
    pub(super) fn verdict(&self, known: &Known) -> Verdict {
        let Id { scope, trace, span } = known.id;
        let in_trace = self.traces.get(&trace).is_some_and(|trace| {
            let billed = |id| trace.place(scope, id).is_some_and(|place| place.billed);
            let unknown = |scope| trace.above_billed.contains(&(scope, span));
            trace.place(scope, span).is_some_and(|place| place.above_billed)
                || unknown(scope)
                || unknown(Scope::SERVED)
                || trace.above(scope, span).any(billed)
        });
        if in_trace {
            return Verdict::Counted;
        }
        let Some(answer) = known.answer else { return Verdict::New };
        for scope in [scope, Scope::SERVED] {
            let Some(told) = self.answers.get(&(scope, answer.digest)) else { continue };
            let response = told.response.filter(|id| *id != known.id);
            match answer.naming {
                Naming::Answer if response.is_some() || told.request.is_some() => {
                    return Verdict::Counted;
                }
                Naming::Request if response.is_some() => {
                    let call = (trace, known.parent);
                    if told.stands_for.is_none_or(|stands_for| stands_for == call) {
                        return Verdict::Counted;
                    }
                }
                _ => {}
            }
            if let (Naming::Request, Some((id, parent, prompt))) = (answer.naming, told.request)
                && (id.trace, parent, Some(prompt)) == (trace, known.parent, known.prompt)
                && parent.is_some()
                && id != known.id
            {
                return Verdict::Choice;
            }
        }
        Verdict::New
    }

    /// Takes note of a span that is not billed, since another one is.
    pub(super) fn counted(&mut self, known: &Known, now: UnixNanos) {
        if let Some(Answer { naming: Naming::Request, digest }) = known.answer {
            for scope in [known.id.scope, Scope::SERVED] {
                if let Some(told) = self.answers.get_mut(&(scope, digest)) {
                    told.stands_for.get_or_insert((known.id.trace, known.parent));
                }
            }
        }
        self.note(known, now);
    }

    /// Who pays for a call, as spans above a span say that tell of it, the nearest first.
    pub(super) fn payer(&self, id: Id) -> Payer {
        let mut payer = Payer::default();
        if let Some(trace) = self.traces.get(&id.trace) {
            for above in trace.above(id.scope, id.span) {
                let place = trace.spans.get(&(id.scope, above));
                if let Some(named) = place.and_then(|place| place.payer.as_deref()) {
                    payer.complete(named);
                }
            }
        }
        payer
    }

    /// Forgets what is more than may be known.
    fn forget(&mut self) {
        while self.plain.len() > self.most.plain {
            let Some(id) = self.plain.pop_front() else { break };
            let place = self.traces.get(&id.trace);
            let place = place.and_then(|trace| trace.spans.get(&(id.scope, id.span)));
            if place.is_some_and(|place| !place.call) {
                self.forget_one(id);
            }
        }
        while self.calls.len() > self.most.calls {
            let Some((id, arrived)) = self.calls.pop_front() else { break };
            self.has_forgotten(arrived);
            self.forget_one(id);
        }
        while self.unknown.len() > self.most.calls {
            let Some(id) = self.unknown.pop_front() else { break };
            if let Some(trace) = self.traces.get_mut(&id.trace) {
                trace.above_billed.remove(&(id.scope, id.span));
            }
            self.forget_trace(id.trace);
        }
    }

    fn forget_one(&mut self, id: Id) {
        let Some(trace) = self.traces.get_mut(&id.trace) else { return };
        let answer = trace.spans.remove(&(id.scope, id.span)).and_then(|place| place.answer);
        self.forget_trace(id.trace);
        if let Some(answer) = answer {
            self.forget_answer(id, answer);
        }
    }

    fn forget_answer(&mut self, id: Id, answer: Answer) {
        let key = (id.scope, answer.digest);
        if let Some(told) = self.answers.get_mut(&key) {
            told.response.take_if(|response| *response == id);
            told.request.take_if(|(request, ..)| *request == id);
            if told.response.is_none() && told.request.is_none() {
                self.answers.remove(&key);
            }
        }
    }

    fn forget_trace(&mut self, id: TraceId) {
        let is_empty = |trace: &Trace| trace.spans.is_empty() && trace.above_billed.is_empty();
        if self.traces.get(&id).is_some_and(is_empty) {
            self.traces.remove(&id);
        }
    }
}

impl Trace {
    /// What a sender, or the gateway, has said of a span.
    fn place(&self, scope: Scope, span: SpanId) -> Option<&Place> {
        self.spans.get(&(scope, span)).or_else(|| self.spans.get(&(Scope::SERVED, span)))
    }

    /// The spans above one, its parent first, as far as they are known; the last may not be.
    fn above(&self, scope: Scope, span: SpanId) -> impl Iterator<Item = SpanId> {
        let parent = move |span: &SpanId| self.place(scope, *span)?.parent;
        std::iter::successors(parent(&span), parent).take(FAR)
    }

    /// All above this one have a billed span below them. Those that are not known and hear it now.
    fn tell_parents(&mut self, scope: Scope, span: SpanId) -> impl Iterator<Item = SpanId> + use<> {
        let above: Vec<SpanId> = self.above(scope, span).collect();
        let mut unknown = None;
        for parent in above {
            let (ours, served) = ((scope, parent), (Scope::SERVED, parent));
            let key = if self.spans.contains_key(&ours) { ours } else { served };
            match self.spans.get_mut(&key) {
                Some(place) if place.above_billed => break,
                Some(place) => place.above_billed = true,
                // There is nothing above it.
                None => unknown = self.above_billed.insert(ours).then_some(parent),
            }
        }
        unknown.into_iter()
    }
}

#[cfg(test)]
mod tests;
