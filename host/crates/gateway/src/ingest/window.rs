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
    spans: Spans,
    /// Spans that are not known and have one below them that is billed.
    above_billed: HashSet<Id>,
    /// Answers of billed calls.
    answers: HashMap<(Scope, [u64; 2]), Told>,
    /// All calls that have been forgotten arrived by then.
    forgotten: Option<UnixNanos>,
}

/// What is known of each span; one map for all, since most traces have few.
#[derive(Debug, Default)]
struct Spans(HashMap<Id, Place>);

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
    /// Of the few that are named as requests.
    request: Option<Box<Requested>>,
}

/// An answer that is named by its request.
#[derive(Debug, Default)]
struct Requested {
    /// Who names it so, the newest: as whose child, and how long its prompt was.
    by: Option<(Id, Option<SpanId>, u64)>,
    /// The call of whose request spans its `response` stands for: servers name several requests alike if their
    /// clients do, and an answer is of one.
    stands_for: Option<(TraceId, Option<SpanId>)>,
}

impl Told {
    /// Who names it as a request.
    fn requested_by(&self) -> Option<(Id, Option<SpanId>, u64)> {
        self.request.as_ref()?.by
    }
}

impl Window {
    /// One that knows nothing yet.
    pub(super) fn new(most: Most) -> Self {
        Self {
            most,
            plain: VecDeque::new(),
            calls: VecDeque::new(),
            unknown: VecDeque::new(),
            spans: Spans::default(),
            above_billed: HashSet::default(),
            answers: HashMap::default(),
            forgotten: None,
        }
    }

    /// Whether a span is known: of this sender, or served here.
    pub(super) fn seen(&self, id: Id) -> Option<Seen> {
        let place = self.spans.get(id)?;
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
            && let Some(before) = self.spans.0.get(id).and_then(|place| place.answer)
            && Some(before) != *answer
        {
            self.forget_answer(*id, before);
        }
        if let (Some(answer), true) = (answer, billed) {
            let told = self.answers.entry((id.scope, answer.digest)).or_default();
            match answer.naming {
                Naming::Answer => drop(told.response.get_or_insert(*id)),
                Naming::Request => {
                    let by = &mut told.request.get_or_insert_default().by;
                    *by = prompt.map(|prompt| (*id, *parent, prompt)).or(*by);
                }
            }
        }
        let above = !self.above_billed.is_empty()
            && (self.above_billed.remove(id) || self.above_billed.contains(&id.served()));
        let known = self.spans.0.len();
        let place = self.spans.0.entry(*id).or_default();
        let (was_call, is_above) = (place.call, place.above_billed | above);
        place.parent = *parent;
        place.call |= call;
        place.billed = *billed;
        place.pending = *pending;
        place.above_billed = is_above;
        if *call {
            place.answer = *answer;
            place.payer.clone_from(payer);
        }
        if *call && !was_call {
            self.calls.push_back((*id, now));
        } else if self.spans.0.len() > known {
            self.plain.push_back(*id);
        }
        if *billed || is_above {
            self.tell_parents(*id);
        }
        self.forget();
    }

    /// A span that was noted is on record.
    pub(super) fn recorded(&mut self, known: Known, now: UnixNanos) {
        match self.spans.0.get_mut(&known.id) {
            Some(place) => place.pending = false,
            // It was forgotten meanwhile, or all was.
            None => self.note(&Known { pending: false, ..known }, now),
        }
    }

    /// How many known spans are above a span.
    pub(super) fn depth(&self, id: Id) -> usize {
        self.spans.above(id).count()
    }

    /// Whether the call that a span tells of is billed by another span: one above or below it, or
    /// one that names the same answer.
    pub(super) fn verdict(&self, known: &Known) -> Verdict {
        let (id, trace) = (known.id, known.id.trace);
        let billed = |id| self.spans.get(id).is_some_and(|place| place.billed);
        let in_trace = self.spans.get(id).is_some_and(|place| place.above_billed)
            || self.above_billed.contains(&id)
            || self.above_billed.contains(&id.served())
            || self.spans.above(id).any(billed);
        if in_trace {
            return Verdict::Counted;
        }
        let Some(answer) = known.answer else { return Verdict::New };
        for scope in [id.scope, Scope::SERVED] {
            let Some(told) = self.answers.get(&(scope, answer.digest)) else { continue };
            let response = told.response.filter(|response| *response != id);
            match answer.naming {
                Naming::Answer if response.is_some() || told.requested_by().is_some() => {
                    return Verdict::Counted;
                }
                Naming::Request if response.is_some() => {
                    let call = (trace, known.parent);
                    let stands_for = told.request.as_ref().and_then(|told| told.stands_for);
                    if stands_for.is_none_or(|stands_for| stands_for == call) {
                        return Verdict::Counted;
                    }
                }
                _ => {}
            }
            if let (Naming::Request, Some((other, parent, prompt))) =
                (answer.naming, told.requested_by())
                && (other.trace, parent, Some(prompt)) == (trace, known.parent, known.prompt)
                && parent.is_some()
                && other != id
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
                    let told = told.request.get_or_insert_default();
                    told.stands_for.get_or_insert((known.id.trace, known.parent));
                }
            }
        }
        self.note(known, now);
    }

    /// Who pays for a call, as spans above a span say that tell of it, the nearest first.
    pub(super) fn payer(&self, id: Id) -> Payer {
        let mut payer = Payer::default();
        for above in self.spans.above(id) {
            let place = self.spans.0.get(&above);
            if let Some(named) = place.and_then(|place| place.payer.as_deref()) {
                payer.complete(named);
            }
        }
        payer
    }

    /// Forgets what is more than may be known.
    fn forget(&mut self) {
        while self.plain.len() > self.most.plain {
            let Some(id) = self.plain.pop_front() else { break };
            if self.spans.0.get(&id).is_some_and(|place| !place.call) {
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
            self.above_billed.remove(&id);
        }
    }

    fn forget_one(&mut self, id: Id) {
        if let Some(answer) = self.spans.0.remove(&id).and_then(|place| place.answer) {
            self.forget_answer(id, answer);
        }
    }

    fn forget_answer(&mut self, id: Id, answer: Answer) {
        let key = (id.scope, answer.digest);
        if let Some(told) = self.answers.get_mut(&key) {
            told.response.take_if(|response| *response == id);
            if let Some(request) = &mut told.request {
                request.by.take_if(|(by, ..)| *by == id);
            }
            if told.response.is_none() && told.requested_by().is_none() {
                self.answers.remove(&key);
            }
        }
    }

    /// All above this one have a billed span below them.
    fn tell_parents(&mut self, id: Id) {
        let above: Vec<Id> = self.spans.above(id).collect();
        for parent in above {
            let served = parent.served();
            let key = if self.spans.0.contains_key(&parent) { parent } else { served };
            match self.spans.0.get_mut(&key) {
                Some(place) if place.above_billed => break,
                Some(place) => place.above_billed = true,
                // There is nothing above it.
                None if self.above_billed.insert(parent) => self.unknown.push_back(parent),
                None => {}
            }
        }
    }
}

impl Spans {
    /// What a sender, or the gateway, has said of a span.
    fn get(&self, id: Id) -> Option<&Place> {
        self.0.get(&id).or_else(|| self.0.get(&id.served()))
    }

    /// The spans above one, its parent first, as far as they are known; the last may not be.
    fn above(&self, id: Id) -> impl Iterator<Item = Id> {
        let parent = move |id: &Id| Some(Id { span: self.get(*id)?.parent?, ..*id });
        std::iter::successors(parent(&id), parent).take(FAR)
    }
}

#[cfg(test)]
mod tests;
