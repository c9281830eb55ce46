//! What is to be done with the spans of a request: which are billed, which are passed on, and which have
//! been taken before.

use std::sync::Arc;
use std::time::SystemTime;

use foldhash::{HashMap, HashSet};
use tollgate_domain::received::{Group, Origin};
use tollgate_domain::{Span, UnixNanos, UnpricedReason};
use tollgate_ledger::{Ledger, ReceivedKey};
use tollgate_telemetry::genai::{Call, Look, Source};

use super::batches::Batches;
use super::window::{Id, Known, Payer, Scope, Seen, Verdict, Window};
use super::{Ingest, Outcomes, Taking, busy, record};
use crate::call::{Caller, Refusal};
use crate::serve::unrecorded;

/// What is to be done with the spans of a request.
pub(super) struct Sorted<'a> {
    /// To be billed.
    pub(super) calls: Vec<Billed>,
    /// To be passed on.
    pub(super) passed: Batches,
    /// All that are new.
    pub(super) taking: Taking<'a>,
}

/// A span that tells of a call, and is billed.
pub(super) struct Billed {
    pub(super) call: Call,
    pub(super) origin: Arc<Origin>,
    pub(super) span: Span,
    /// As this span and others of the call say.
    pub(super) payer: Payer,
    /// Its prompt is billed with another choice of the call.
    pub(super) is_choice: bool,
}

/// Who sends, and when.
#[derive(Clone, Copy)]
struct Sender<'a> {
    scope: Scope,
    /// The tenant of the key that was shown.
    tenant: Option<&'a str>,
    now: UnixNanos,
}

/// A span that tells of a call, by its place among all.
struct Candidate {
    place: Place,
    depth: usize,
    call: Call,
    known: Known,
    payer: Payer,
}

/// A span by its group and its place in there.
type Place = (usize, usize);

/// What a span that tells of a call comes to.
type Judged = Result<(Call, Payer, bool), UnpricedReason>;

impl Ingest {
    /// Says of each span what it is, and takes note of it.
    pub(super) fn sort(
        &self,
        ledger: &Ledger,
        caller: &Caller,
        mut groups: Vec<Group>,
        outcomes: &mut Outcomes,
    ) -> Result<Sorted<'_>, Refusal> {
        let tenant = caller.0.key_id.as_ref().and(caller.0.tenant.as_deref());
        let now = SystemTime::now().into();
        let sender = Sender { scope: self.scopes.of(tenant), tenant, now };
        let on_record = self.on_record(ledger, sender, &groups)?;
        let mut taking = self.taking();
        let mut state = self.locked();
        if state.stale {
            let keyed = tenant.is_some();
            state.window = record::remembered(ledger, &self.scopes, keyed)
                .map_err(|error| unrecorded(&error))?;
            state.stale = false;
            let (window, pending) = state.parts();
            pending.values().flatten().for_each(|known| window.note(known, now));
        }
        let (window, pending) = state.parts();
        let all = || groups.iter().flat_map(|group| &group.spans);
        let id = |span: &Span| Id::of(sender.scope, span);
        if all().any(|span| window.seen(id(span)) == Some(Seen::Pending)) {
            return Err(busy("A span of the request is being taken already."));
        }
        let noted = taking.begins(pending);
        for span in all().filter(|span| on_record.contains(&id(span))) {
            let known = Known { call: true, billed: true, ..Known::plain(id(span), span.parent) };
            window.note(&known, now);
        }
        let came = all().count();
        for group in &mut groups {
            group.spans.retain(|span| {
                let new = window.seen(id(span)).is_none();
                if new {
                    let known = Known { pending: true, ..Known::plain(id(span), span.parent) };
                    window.note(&known, now);
                    noted.push(known);
                }
                new
            });
        }
        let duplicates = came - groups.iter().map(|group| group.spans.len()).sum::<usize>();
        outcomes.insert("duplicate", duplicates as u64);
        let (mut judged, mut tenants) = self.judged(sender, &groups, window, noted, outcomes);
        drop(state);
        let (mut calls, mut passed) = (Vec::new(), Batches::new(now));
        let passes_on = outcomes.entry("passed").or_default();
        for (group, Group { origin, spans }) in groups.into_iter().enumerate() {
            for (at, mut span) in spans.into_iter().enumerate() {
                let place = (group, at);
                match judged.remove(&place) {
                    Some(Ok((call, payer, is_choice))) => {
                        let origin = Arc::clone(&origin);
                        calls.push(Billed { call, origin, span, payer, is_choice });
                        continue;
                    }
                    Some(Err(reason)) => tollgate_telemetry::not_billed(&mut span, reason),
                    None => {}
                }
                let tenant = tenant.map(str::to_owned).or_else(|| tenants.remove(&place));
                passed.push(tenant, &origin, span);
                *passes_on += 1;
            }
        }
        Ok(Sorted { calls, passed, taking })
    }

    /// Which calls are on record though the window may have forgotten them. Few spans are that old, and
    /// the ledger is asked for no other.
    fn on_record(
        &self,
        ledger: &Ledger,
        sender: Sender<'_>,
        groups: &[Group],
    ) -> Result<HashSet<Id>, Refusal> {
        let mut old = Vec::new();
        let state = self.locked();
        for Group { origin, spans } in groups {
            for span in spans {
                let (id, end) = (Id::of(sender.scope, span), span.interval.end);
                if !state.window.covers(end) && state.window.seen(id).is_none() {
                    old.push((id, end, span, origin));
                }
            }
        }
        drop(state);
        old.retain(|(_, _, span, origin)| Look::at(span, &Source::of(origin)).call().is_some());
        if old.is_empty() {
            return Ok(HashSet::default());
        }
        let keys: Vec<_> = old
            .iter()
            .map(|(_, ended, span, _)| ReceivedKey {
                id: record::id(span),
                ended: *ended,
                tenant: sender.tenant.map(str::to_owned),
            })
            .collect();
        let found = ledger.have_received(&keys).map_err(|error| unrecorded(&error))?;
        let found = old.iter().zip(found).filter(|(_, found)| *found);
        Ok(found.map(|((id, ..), _)| *id).collect())
    }

    /// What becomes of the spans that tell of calls, and the tenants that those name which are passed on, by their places.
    /// Nobody's name counts beside that of the key.
    fn judged(
        &self,
        sender: Sender<'_>,
        groups: &[Group],
        window: &mut Window,
        noted: &mut Vec<Known>,
        outcomes: &mut Outcomes,
    ) -> (HashMap<Place, Judged>, HashMap<Place, String>) {
        let keyless = sender.tenant.is_none();
        let (mut candidates, mut tenants) = (Vec::new(), HashMap::default());
        for (group, Group { origin, spans }) in groups.iter().enumerate() {
            let source = Source::of(origin);
            for (at, span) in spans.iter().enumerate() {
                let (place, look) = ((group, at), Look::at(span, &source));
                if look.is_ours() {
                    *outcomes.entry("ours").or_default() += 1;
                } else if let Some(call) = look.call() {
                    let tenant = keyless.then(|| look.named_tenant()).flatten();
                    candidates.push(self.candidate(sender, place, span, call, tenant));
                    continue;
                }
                let tenant = keyless.then(|| look.tenant()).flatten();
                tenants.extend(tenant.map(|tenant| (place, tenant)));
            }
        }
        for candidate in &mut candidates {
            window.note(&candidate.known, sender.now);
            candidate.depth = window.depth(candidate.known.id);
        }
        let of_answers = of_answers(&candidates);
        // The innermost first.
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.depth));
        let mut judged = HashMap::default();
        for Candidate { place, call, mut known, mut payer, .. } in candidates {
            let verdict = window.verdict(&known);
            if verdict == Verdict::Counted {
                *outcomes.entry("counted_elsewhere").or_default() += 1;
                window.counted(&known, sender.now);
                judged.insert(place, Err(UnpricedReason::CountedElsewhere));
                let tenant = keyless.then(|| payer.name()).flatten();
                tenants.extend(tenant.map(|tenant| (place, tenant)));
            } else {
                let is_choice = verdict == Verdict::Choice;
                // Only what has a price can stand for others.
                known.billed = call.tokens.is_some() && !call.request_model.is_empty();
                known.prompt.take_if(|_| is_choice);
                window.note(&known, sender.now);
                payer.complete(&window.payer(known.id));
                let of_answer = known.answer.and_then(|answer| of_answers.get(&answer.digest));
                payer.complete(of_answer.unwrap_or(&Payer::default()));
                judged.insert(place, Ok((call, payer, is_choice)));
            }
            noted.push(known);
        }
        (judged, tenants)
    }

    fn candidate(
        &self,
        sender: Sender<'_>,
        place: Place,
        span: &Span,
        call: Call,
        tenant: Option<String>,
    ) -> Candidate {
        let payer = Payer { tenant, user: call.user.clone() };
        let (answer, request) = (call.response_id.as_deref(), call.request_id.as_deref());
        let known = Known {
            call: true,
            pending: true,
            answer: record::answer(&self.scopes, answer, request),
            prompt: call.tokens.map(|tokens| tokens.input),
            payer: payer.kept(),
            ..Known::plain(Id::of(sender.scope, span), span.parent)
        };
        Candidate { place, depth: 0, call, known, payer }
    }
}

/// Who pays for each answer, as far as any span of it says.
fn of_answers(candidates: &[Candidate]) -> HashMap<[u64; 2], Payer> {
    let mut payers = HashMap::<_, Payer>::default();
    for Candidate { known, payer, .. } in candidates {
        if let Some(answer) = known.answer {
            payers.entry(answer.digest).or_default().complete(payer);
        }
    }
    payers
}
