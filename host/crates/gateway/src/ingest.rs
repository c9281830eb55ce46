//! Spans that other programs send us: recognised, priced by the same plugins, on record before
//! they are acknowledged. From there they are delivered like our own.
//!
//! What is billed, and what not:
//!
//! 1. A span that was received before, by its trace and its id, is dropped: neither billed nor
//!    delivered again.
//! 2. A span that a Tollgate recorded is passed on as it is: it is on that one's record.
//! 3. Of the spans that tell of one call only one is billed: the innermost of those that arrive
//!    together, else the first. Spans tell of one call if one is below the other in a trace, or if
//!    both name the same answer. Requests of this gateway count as the first.
//! 4. What is not billed by 3 is passed on and says so.
//!
//! All of that within the newest spans ([`window`]), which are known again after a restart.

mod passed;
mod rate;
mod record;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::block_in_place;
use tollgate_domain::received::{Group, Origin, SpanBatch};
use tollgate_domain::{CostOutcome, ErrorKind, Record, Span, UnpricedReason};
use tollgate_ledger::{Ledger, LedgerError, Payload};
use tollgate_plugin_host::PluginSet;
use tollgate_telemetry::genai::{self, Call};
use tollgate_telemetry::receive::{self, Encoding, Malformed};
use tollgate_tenancy::Draw;
use tracing::Instrument;

use crate::call::{Caller, Refusal};
use crate::serve::unrecorded;
use crate::{Gateway, Inner};
use rate::Rate;
use window::{Known, Seen, Window};

/// Requests that are worked on at a time. Policy when there are more: *refuse*, with 429.
const AT_A_TIME: usize = 8;

/// When a sender may try again.
const RETRY: Duration = Duration::from_secs(1);

/// Most spans of one entry of the ledger.
const BATCH: usize = 512;

/// How far back a restart looks for what was received, in entries of the ledger.
const LOOK_BACK: u64 = 262_144;

/// What is known of received spans, where any are taken.
#[derive(Debug)]
pub(crate) struct Ingest {
    places: Arc<Semaphore>,
    rate: Rate,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    /// It is not known what the ledger holds: a commit has failed.
    stale: bool,
}

/// What became of a request of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Spans that no receiver could take.
    pub rejected: u64,
    /// What was wrong with the first of them.
    pub problem: Option<String>,
}

/// How many spans met which end, by its name in metrics.
type Outcomes = BTreeMap<&'static str, u64>;

impl Ingest {
    /// Knows what the ledger holds. Each sender may send so many bytes a minute.
    pub(crate) fn new(ledger: &Ledger, per_minute: Option<u64>) -> Result<Self, LedgerError> {
        let window = remembered(ledger)?;
        let state = Mutex::new(State { window, stale: false });
        let rate = Rate::new(per_minute);
        Ok(Self { places: Arc::new(Semaphore::new(AT_A_TIME)), rate, state })
    }

    /// A place to work on a request of so many bytes.
    fn place(&self, caller: &Caller, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| busy("The gateway is busy with other requests."))?;
        let taken = self.rate.take(caller.0.key_id.as_deref(), bytes, Instant::now());
        taken.map_err(|wait| {
            let message = "The sender has sent as much as it may in a minute \
                (otlp-mib-per-minute); send the same again later.";
            Refusal::new(ErrorKind::RateLimited, message).retry_after(wait)
        })?;
        Ok(place)
    }

    /// Takes note of a request of our own: spans that tell of it are not billed.
    pub(crate) fn served(&self, record: &Record) {
        if record.usage.is_some() {
            let mut state = self.locked();
            record::known(record).into_iter().for_each(|known| state.window.note(known));
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was received and served lately, as the ledger tells it.
fn remembered(ledger: &Ledger) -> Result<Window, LedgerError> {
    let mut newest_first = Vec::new();
    ledger.look_back(LOOK_BACK, |payload| {
        match payload {
            Payload::Record(record) => newest_first.extend(record::known(record)),
            Payload::Spans(batch) => {
                let spans = batch.groups.iter().flat_map(|group| &group.spans);
                newest_first.extend(spans.map(Known::passed));
            }
            Payload::Passed(_) => {}
        }
        newest_first.len() < window::MOST
    })?;
    let mut window = Window::default();
    newest_first.into_iter().rev().for_each(|known| window.note(known));
    Ok(window)
}

impl Gateway {
    /// Takes a request of spans; its bytes are not compressed any more. It ends in a task of its
    /// own: a sender that goes away changes nothing.
    ///
    /// # Errors
    /// The refusal says whether the same request may be sent again.
    pub async fn ingest(
        &self,
        caller: Caller,
        body: bytes::Bytes,
        encoding: Encoding,
    ) -> Result<Receipt, Refusal> {
        let inner = Arc::clone(&self.0);
        let taking = async move { inner.take_spans(&caller, &body, encoding).await };
        let taken = self.0.running.spawn(taking.in_current_span());
        taken.await.unwrap_or_else(|_| Err(Refusal::new(ErrorKind::Internal, "It was cut off.")))
    }
}

impl Inner {
    async fn take_spans(
        &self,
        caller: &Caller,
        body: &[u8],
        encoding: Encoding,
    ) -> Result<Receipt, Refusal> {
        let taken = self.try_spans(caller, body, encoding).await;
        let result = taken.as_ref().map_or_else(|refusal| refusal.kind.name(), |_| "taken");
        self.requests.received.request(result);
        taken
    }

    async fn try_spans(
        &self,
        caller: &Caller,
        body: &[u8],
        encoding: Encoding,
    ) -> Result<Receipt, Refusal> {
        let ingest = self.ready_to_take()?;
        let _place = ingest.place(caller, body.len())?;
        let incoming = block_in_place(|| receive::decode(body, encoding));
        let incoming = incoming.map_err(|error| malformed(&error))?;
        let receipt = Receipt { rejected: incoming.rejected, problem: incoming.problem };
        let mut outcomes = Outcomes::from([("rejected", receipt.rejected)]);
        let sorted = block_in_place(|| ingest.sort(&self.ledger, incoming.groups, &mut outcomes));
        let mut sorted = sorted?;
        let ids = std::mem::take(&mut sorted.ids);
        let plugins = self.plugins.pin();
        let (payloads, calls) =
            block_in_place(|| self.priced(caller, &plugins, sorted, &mut outcomes));
        if !payloads.is_empty() {
            let committed = self.ledger.received(payloads).await;
            let mut state = ingest.locked();
            match committed {
                Ok(()) => state.window.committed(&ids),
                Err(error) => {
                    state.stale = true;
                    return Err(unrecorded(&error));
                }
            }
        }
        self.settle(caller, &plugins, &calls);
        self.requests.received.spans(&outcomes);
        Ok(receipt)
    }

    /// Where what is sent goes, unless nothing can be taken now.
    fn ready_to_take(&self) -> Result<&Ingest, Refusal> {
        let Some(ingest) = &self.ingest else {
            let message = "This gateway takes no spans; --otlp-listen makes it.";
            return Err(Refusal::new(ErrorKind::NotFound, message));
        };
        if self.running.is_closed() {
            let refusal = Refusal::new(ErrorKind::ShuttingDown, "The gateway is shutting down.");
            return Err(refusal.retry_after(RETRY));
        }
        self.ledger.admits().map_err(|error| unrecorded(&error))?;
        Ok(ingest)
    }

    /// The records and batches that go on record.
    fn priced(
        &self,
        caller: &Caller,
        plugins: &PluginSet,
        sorted: Sorted,
        outcomes: &mut Outcomes,
    ) -> (Vec<Payload>, Vec<Arc<Record>>) {
        let now = SystemTime::now().into();
        let tenant = |span: &Span, origin: &Origin| match &caller.0.key_id {
            Some(_) => caller.0.tenant.clone(),
            None => genai::tenant(span, origin),
        };
        let mut records: Vec<Arc<Record>> = Vec::with_capacity(sorted.calls.len());
        for (call, origin, span) in sorted.calls {
            let tenant = tenant(&span, &origin);
            let mut record = record::of(call, &origin, span, tenant, caller, now);
            record.cost = match &record.usage {
                None => CostOutcome::Unpriced { reason: UnpricedReason::MissingUsage },
                Some(usage) if usage.request_model.is_empty() => {
                    CostOutcome::Unpriced { reason: UnpricedReason::UnknownModel }
                }
                Some(usage) => plugins.price(record.tenant.as_deref(), usage),
            };
            *outcomes.entry(record.cost.status()).or_default() += 1;
            records.push(Arc::new(record));
        }
        let mut batches = BTreeMap::<Option<String>, Vec<SpanBatch>>::new();
        for Group { origin, spans } in sorted.passed {
            for span in spans {
                let tenant = tenant(&span, &origin);
                let batches = match batches.get_mut(&tenant) {
                    Some(batches) => batches,
                    None => batches.entry(tenant.clone()).or_default(),
                };
                if batches.last().is_none_or(|last| last.len() >= BATCH) {
                    batches.push(SpanBatch { tenant, arrived: now, groups: Vec::new() });
                }
                let Some(batch) = batches.last_mut() else { continue };
                match batch.groups.last_mut() {
                    Some(last) if Arc::ptr_eq(&last.origin, &origin) => last.spans.push(span),
                    _ => {
                        let origin = Arc::clone(&origin);
                        batch.groups.push(Group { origin, spans: vec![span] });
                    }
                }
            }
        }
        let of_calls = records.iter().map(|record| Payload::Record(Arc::clone(record)));
        let others = batches.into_values().flatten().map(|batch| Payload::Spans(Box::new(batch)));
        (of_calls.chain(others).collect(), records)
    }

    /// Tells budgets, counters and plugins in the shadow of calls that are on record.
    fn settle(&self, caller: &Caller, plugins: &PluginSet, calls: &[Arc<Record>]) {
        for record in calls {
            if let Some(cost) = record.cost.cost() {
                let mut payer = caller.0.clone();
                payer.tenant.clone_from(&record.tenant);
                let tokens = record.usage.as_ref().map_or(0, |usage| usage.tokens.total());
                let used = Draw { tokens, cost: Some(cost.total) };
                let now = SystemTime::now().into();
                self.tenancy.limiter.spend(&payer, &record.asked.model, used, now);
            }
            self.requests.count_received(record);
            self.price_in_the_shadow(record, plugins);
        }
    }
}

/// What is to be done with the spans of a request.
struct Sorted {
    /// To be billed.
    calls: Vec<(Call, Arc<Origin>, Span)>,
    /// To be passed on.
    passed: Vec<Group>,
    /// All that are new.
    ids: Vec<window::Id>,
}

/// A span that tells of a call, by its place among all.
struct Candidate {
    group: usize,
    span: usize,
    depth: usize,
    call: Call,
}

impl Ingest {
    /// Says of each span what it is, and takes note of it.
    fn sort(
        &self,
        ledger: &Ledger,
        mut groups: Vec<Group>,
        outcomes: &mut Outcomes,
    ) -> Result<Sorted, Refusal> {
        let mut state = self.locked();
        if state.stale {
            state.window = remembered(ledger).map_err(|error| unrecorded(&error))?;
            state.stale = false;
        }
        let window = &mut state.window;
        let all = || groups.iter().flat_map(|group| &group.spans);
        if all().any(|span| window.seen(window::id(span)) == Some(Seen::Pending)) {
            return Err(busy("A span of the request is being taken already."));
        }
        let mut ids = Vec::new();
        for group in &mut groups {
            group.spans.retain(|span| {
                let new = window.seen(window::id(span)).is_none();
                if new {
                    ids.push(window::id(span));
                    window.note(Known { pending: true, ..Known::passed(span) });
                }
                *outcomes.entry("duplicate").or_default() += u64::from(!new);
                new
            });
        }
        let mut billed = billed(&groups, window, outcomes);
        let mut calls = Vec::new();
        for (place, group) in groups.iter_mut().enumerate() {
            let mut passed = Vec::with_capacity(group.spans.len());
            for (at, mut span) in std::mem::take(&mut group.spans).into_iter().enumerate() {
                match billed.remove(&(place, at)) {
                    Some(Ok(call)) => calls.push((call, Arc::clone(&group.origin), span)),
                    Some(Err(reason)) => {
                        tollgate_telemetry::not_billed(&mut span, reason);
                        passed.push(span);
                    }
                    None => passed.push(span),
                }
            }
            *outcomes.entry("passed").or_default() += passed.len() as u64;
            group.spans = passed;
        }
        Ok(Sorted { calls, passed: groups, ids })
    }
}

/// Which spans are billed, by their places, and why those that tell of a call are not.
fn billed(
    groups: &[Group],
    window: &mut Window,
    outcomes: &mut Outcomes,
) -> BTreeMap<(usize, usize), Result<Call, UnpricedReason>> {
    let mut candidates = Vec::new();
    for (group, Group { origin, spans }) in groups.iter().enumerate() {
        for (at, span) in spans.iter().enumerate() {
            if genai::is_ours(span, origin) {
                *outcomes.entry("ours").or_default() += 1;
            } else if let Some(call) = genai::call(span, origin) {
                let depth = window.depth(window::id(span));
                candidates.push(Candidate { group, span: at, depth, call });
            }
        }
    }
    // The innermost first.
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.depth));
    let mut billed = BTreeMap::new();
    for Candidate { group, span: at, call, .. } in candidates {
        let Some(span) = groups.get(group).and_then(|group| group.spans.get(at)) else { continue };
        let verdict = if window.is_counted(window::id(span), call.response_id.as_deref()) {
            *outcomes.entry("counted_elsewhere").or_default() += 1;
            Err(UnpricedReason::CountedElsewhere)
        } else {
            // Only what has a price can stand for others.
            let counts = call.tokens.is_some() && !call.request_model.is_empty();
            let known = Known { billed: counts, pending: true, ..Known::passed(span) };
            window.note(Known { answer: call.response_id.clone().filter(|_| counts), ..known });
            Ok(call)
        };
        billed.insert((group, at), verdict);
    }
    billed
}

fn busy(message: &str) -> Refusal {
    Refusal::new(ErrorKind::Overloaded, message).retry_after(RETRY)
}

fn malformed(error: &Malformed) -> Refusal {
    let kind = match error {
        Malformed::TooMany { .. } => ErrorKind::TooLarge,
        Malformed::Unreadable(_) => ErrorKind::InvalidRequest,
    };
    Refusal::new(kind, format!("{error}."))
}
