//! Spans that other programs send us: recognised, priced by the same plugins, on record before
//! they are acknowledged. From there they are delivered like our own.
//!
//! What is billed, and what not:
//!
//! 1. A span that its sender has sent before, by its trace and its id, is dropped: neither billed nor
//!    delivered again. Of calls that holds as long as the ledger keeps them.
//! 2. A span that a Tollgate recorded is passed on as it is: it is on that one's record.
//! 3. Of the spans that tell of one call only one is billed: the innermost of those that arrive
//!    together, else the first. Spans tell of one call if one is below the other in a trace, or if
//!    both name the same answer. Requests of this gateway count as the first. Who pays is what any span
//!    of the call says that is known by then.
//! 4. What is not billed by 3 is passed on and says so.
//!
//! All of that within the newest spans ([`window`]), which are known again after a restart, and for
//! each sender apart: nobody's spans are dropped for what others have sent.

mod batches;
mod pace;
mod passed;
mod rate;
mod record;
mod sort;
mod window;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::block_in_place;
use tollgate_domain::{CostOutcome, ErrorKind, Record, UnpricedReason};
use tollgate_ledger::{Ledger, LedgerError, Payload};
use tollgate_plugin_host::PluginSet;
use tollgate_telemetry::receive::{self, Encoding, Malformed};
use tollgate_tenancy::Draw;
use tracing::Instrument;

use crate::call::{Caller, Refusal};
use crate::serve::unrecorded;
use crate::{Gateway, Inner};
use batches::Batches;
use rate::Rate;
use sort::{Billed, Sorted};
use window::{Known, Scopes, Window};

/// Requests that are worked on at a time. Policy when there are more: *refuse*, with 429.
const AT_A_TIME: usize = 8;

/// When a sender may try again.
const RETRY: Duration = Duration::from_secs(1);

/// What is known of received spans, where any are taken.
#[derive(Debug)]
pub(crate) struct Ingest {
    places: Arc<Semaphore>,
    rate: Rate,
    scopes: Scopes,
    takings: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// What is about to be put on record, by request.
    pending: Pending,
    /// It is not known what the ledger holds: a commit has failed.
    stale: bool,
}

type Pending = BTreeMap<u64, Vec<Known>>;

impl State {
    fn parts(&mut self) -> (&mut Window, &mut Pending) {
        (&mut self.window, &mut self.pending)
    }
}

/// The spans of a request on their way to the ledger. If they do not get there, whatever the reason, the
/// window is read anew before it is asked again: the commit may have reached the disk.
struct Taking<'a> {
    ingest: &'a Ingest,
    number: u64,
    begun: bool,
}

impl Taking<'_> {
    /// From now on spans of it are noted.
    fn begins<'p>(&mut self, pending: &'p mut Pending) -> &'p mut Vec<Known> {
        self.begun = true;
        pending.entry(self.number).or_default()
    }

    /// They are on record.
    fn committed(mut self) {
        self.begun = false;
        let mut state = self.ingest.locked();
        let (window, pending) = state.parts();
        let now = SystemTime::now().into();
        for known in pending.remove(&self.number).into_iter().flatten() {
            window.recorded(known, now);
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if self.begun {
            let mut state = self.ingest.locked();
            state.pending.remove(&self.number);
            state.stale = true;
        }
    }
}

/// What became of a request of spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Spans that no receiver could take.
    pub rejected: u64,
    /// What was wrong with the first of them.
    pub problem: Option<String>,
}

/// What a request of spans comes to, besides what goes on record.
struct Understood<'a> {
    receipt: Receipt,
    calls: Vec<Arc<Record>>,
    taking: Taking<'a>,
    outcomes: Outcomes,
}

/// How many spans met which end, by its name in metrics.
type Outcomes = BTreeMap<&'static str, u64>;

impl Ingest {
    /// Knows what the ledger holds. Each sender may send so many bytes a minute.
    /// `keyed`: each sender shows a key.
    pub(crate) fn new(
        ledger: &Ledger,
        keyed: bool,
        per_minute: Option<u64>,
    ) -> Result<Self, LedgerError> {
        let scopes = Scopes::default();
        let window = record::remembered(ledger, &scopes, keyed)?;
        let state = Mutex::new(State { window, pending: Pending::new(), stale: false });
        let (rate, takings) = (Rate::new(per_minute), AtomicU64::new(0));
        Ok(Self { places: Arc::new(Semaphore::new(AT_A_TIME)), rate, scopes, takings, state })
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
            let known = record::known(record, &self.scopes);
            let (mut state, now) = (self.locked(), SystemTime::now().into());
            known.iter().for_each(|known| state.window.note(known, now));
        }
    }

    /// A request, of which nothing is noted yet.
    fn taking(&self) -> Taking<'_> {
        let number = self.takings.fetch_add(1, Ordering::Relaxed);
        Taking { ingest: self, number, begun: false }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        self.keep_pace().await;
        let _place = ingest.place(caller, body.len())?;
        let plugins = self.plugins.pin();
        let (understood, recorded) = block_in_place(|| {
            let (understood, payloads) =
                self.understand(ingest, caller, &plugins, body, encoding)?;
            let recorded = (!payloads.is_empty()).then(|| self.ledger.received(payloads));
            Ok((understood, recorded))
        })?;
        if let Some(recorded) = recorded {
            recorded.await.map_err(|error| unrecorded(&error))?;
        }
        understood.taking.committed();
        self.settle(caller, &plugins, &understood.calls);
        self.requests.received.spans(&understood.outcomes);
        Ok(understood.receipt)
    }

    /// What a request comes to, and what of it goes on record.
    fn understand<'a>(
        &self,
        ingest: &'a Ingest,
        caller: &Caller,
        plugins: &PluginSet,
        body: &[u8],
        encoding: Encoding,
    ) -> Result<(Understood<'a>, Vec<Payload>), Refusal> {
        let incoming = receive::decode(body, encoding).map_err(|error| malformed(&error))?;
        let receipt = Receipt { rejected: incoming.rejected, problem: incoming.problem };
        let mut outcomes = Outcomes::from([("rejected", receipt.rejected)]);
        let sorted = ingest.sort(&self.ledger, caller, incoming.groups, &mut outcomes)?;
        let Sorted { calls, passed, taking } = sorted;
        let (payloads, calls) = self.priced(caller, plugins, (calls, passed), &mut outcomes);
        Ok((Understood { receipt, calls, taking, outcomes }, payloads))
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
        (calls, passed): (Vec<Billed>, Batches),
        outcomes: &mut Outcomes,
    ) -> (Vec<Payload>, Vec<Arc<Record>>) {
        let now = SystemTime::now().into();
        let mut records: Vec<Arc<Record>> = Vec::with_capacity(calls.len());
        for billed in calls {
            let mut record = record::of(billed, caller, now);
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
        let of_calls = records.iter().map(|record| Payload::Record(Arc::clone(record)));
        let others = passed.finish().map(|batch| Payload::Spans(Box::new(batch)));
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

#[cfg(test)]
mod tests;
