//! While the client waits: admit, pin, put on record, generate, price, put on record again, and
//! only then end the answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tollgate_domain::ErrorKind;
use tollgate_domain::record::{Asked, Record};
use tollgate_ledger::{LedgerError, Ticket};
use tracing::Instrument;

use crate::admit::Admitted;
use crate::call::{Answer, AnswerEvent, Arrival, Call, Ending, Form, Refusal};
use crate::request::{End, Request};
use crate::tap::Tap;
use crate::{Gateway, Inner, pricing};

/// Pieces of an answer that may wait for the client. Policy when it is full: generation's reader
/// waits; the engine, whose own queue holds a whole answer, does not.
const PIECES_WAITING: usize = 64;

/// When a client may try again whose request could not be put on record.
const LEDGER_RETRY: Duration = Duration::from_secs(5);

/// Where the answer to a call goes, once it is known whether there is one.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Refusal>>;

impl Gateway {
    /// Serves one request: the answer while it is made, or why there is none. Either way it is on
    /// record.
    ///
    /// # Errors
    /// The refusal to tell the client, with the ids it is on record under.
    pub async fn serve(&self, call: Call) -> Result<Answer, Refusal> {
        let (reply, replied) = oneshot::channel();
        // A task of its own outlives the connection: a client that goes away changes the outcome,
        // never the accounting.
        self.0.running.spawn(serve(Arc::clone(&self.0), call, reply));
        replied.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// Puts a refusal on record that was decided before a [`Call`] could be made of the request.
    pub async fn refuse(
        &self,
        arrival: &Arrival,
        asked: Asked,
        user: Option<String>,
        refusal: Refusal,
    ) -> Refusal {
        let request = Request::begin(arrival, asked, user);
        let inner = Arc::clone(&self.0);
        let log = request.log_span();
        let recording = async move { inner.refused(&request, refusal).await };
        let recorded = self.0.running.spawn(recording.instrument(log));
        recorded.await.unwrap_or_else(|_| cut_off())
    }
}

/// Who it is, for the log too; then its life.
async fn serve(gateway: Arc<Inner>, call: Call, reply: Reply) {
    let asked = Asked { model: gateway.model_of(&call.asked).to_owned(), ..call.asked.clone() };
    let request = Request::begin(&call.arrival, asked, call.user.clone());
    let log = request.log_span();
    Box::pin(live(gateway, call, request, reply).instrument(log)).await;
}

/// The life of a request while its client waits.
async fn live(gateway: Arc<Inner>, call: Call, request: Request, mut reply: Reply) {
    let plugins = gateway.plugins.pin();
    // In a box of its own: the larger a task is, the more its making copies.
    let admitting = Box::pin(gateway.admit(call, &request, &plugins, &mut reply));
    let admitted = match admitting.await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let _ = reply.send(Err(gateway.refused(&request, refusal).await));
            return;
        }
    };
    let Admitted { work, tried, usage, tokenize, submitted, ticket, terms, mut content } = admitted;
    let (pieces, events) = mpsc::channel(PIECES_WAITING);
    let form = work.form();
    let told = Told::of(form.as_ref());
    // A client that is gone by now is found out by the tap.
    let reply = match form {
        Some(form) => {
            let _ = reply.send(Ok(answer(&request, form, terms.headers.clone(), events)));
            None
        }
        // Whom no backend answers hears so at the end, with a status of its own.
        None => Some(reply),
    };
    let upstream = work.upstream(&tried, &request.arrived);
    let tap = Tap { pieces: &pieces, ticket: &ticket, content: &mut content, stall: gateway.stall };
    let mut tapped = work.run(tap).await;
    let usage = tapped.usage(usage);
    let cost = pricing::price(&request, &plugins, tapped.served, &usage);
    let ending = Ending::new(&mut tapped, &usage, &cost);
    let (admission, tokens) = (terms.admission.clone(), usage.tokens.total());
    match tapped.served {
        true => terms.settle(tokens, &cost),
        false => terms.release(),
    }
    let record = Arc::new(request.served(End {
        phases: tapped.times.phases(&request.arrived, tokenize, submitted),
        outcome: tapped.outcome(),
        usage,
        cost,
        finish_reasons: tapped.several_reasons(),
        content: content.map(|content| content.ended(tapped.reason())),
        admission,
        upstream: upstream.map(|call| tapped.complete(call, &request.arrived)),
        engine: tapped.engine,
        response_model: tapped.response.model.take(),
        status: told.status(&ending),
    }));
    let recorded = gateway.finished(ticket, Arc::clone(&record)).await;
    let overhead = tapped.times.overhead(&request.arrived, submitted);
    gateway.requests.count(&record, Some(overhead));
    if let Some(ingest) = &gateway.ingest {
        ingest.served(&record);
    }
    tell(ending.if_recorded(recorded), reply, &pieces, &request).await;
    gateway.price_in_the_shadow(&record, &plugins);
}

/// Where the status of an answer comes from.
enum Told {
    /// It follows from the outcome, and is out before a stream fails.
    Ours,
    /// From another server, if anything of its answer is passed on, and if `at_once` in any case.
    Passed { status: u16, at_once: bool },
    /// From the failure, since there is no answer.
    Failure,
}

impl Told {
    fn of(form: Option<&Form>) -> Self {
        match form {
            Some(Form::Pieces { .. }) => Self::Ours,
            Some(Form::Forwarded(head)) => {
                let at_once = head.form != tollgate_upstream::Form::Whole;
                Self::Passed { status: head.status, at_once }
            }
            None => Self::Failure,
        }
    }

    /// The status, where it does not follow from the outcome; none, too, where nobody is told any.
    fn status(&self, ending: &Ending) -> Option<u16> {
        let failed = ending.result.as_ref().err().map(|failure| failure.kind.http_status());
        match *self {
            Self::Ours => None,
            Self::Passed { status, at_once } if at_once || !ending.rest.is_empty() => Some(status),
            Self::Passed { status, .. } => failed.or(Some(status)),
            Self::Failure => failed,
        }
    }
}

/// Tells the client of the end. One that is gone does not hear it; that is already on record.
async fn tell(
    ending: Ending,
    reply: Option<Reply>,
    pieces: &mpsc::Sender<AnswerEvent>,
    request: &Request,
) {
    let Some(reply) = reply else {
        let _ = pieces.send(AnswerEvent::Ended(Box::new(ending))).await;
        return;
    };
    let mut refusal = ending.result.err().unwrap_or_else(cut_off);
    refusal.recorded.get_or_insert_with(|| Box::new(request.ids()));
    let _ = reply.send(Err(refusal));
}

impl Inner {
    /// Puts the end of a request on record; the refusal to tell the client if that cannot be done.
    async fn finished(&self, ticket: Ticket, record: Arc<Record>) -> Result<(), Refusal> {
        let recorded = self.ledger.finish(ticket, record).await;
        recorded.map(drop).map_err(|error| unrecorded(&error))
    }

    /// Puts a refusal on record; what to tell the client.
    async fn refused(&self, request: &Request, mut refusal: Refusal) -> Refusal {
        let record = request.refused(&refusal);
        self.requests.count(&record, None);
        match self.ledger.refused(record).await {
            Ok(_) => refusal.recorded = Some(Box::new(request.ids())),
            Err(error) if refusal.kind != ErrorKind::RecordUnavailable => {
                return unrecorded(&error);
            }
            Err(_) => {}
        }
        refusal
    }
}

fn answer(
    request: &Request,
    form: Form,
    headers: Vec<(&'static str, String)>,
    events: mpsc::Receiver<AnswerEvent>,
) -> Answer {
    Answer {
        id: request.id.clone(),
        trace_id: request.trace.trace_id,
        created: request.arrived.wall(),
        model: request.asked.model.clone(),
        form,
        headers,
        log: tracing::Span::current(),
        events,
    }
}

/// What cannot be put on record is not served.
pub(crate) fn unrecorded(error: &LedgerError) -> Refusal {
    tracing::warn!(%error, "request refused, since the ledger cannot record it");
    let message = "The gateway cannot put requests on record at the moment. Try again shortly.";
    Refusal::new(ErrorKind::RecordUnavailable, message).retry_after(LEDGER_RETRY)
}

fn cut_off() -> Refusal {
    Refusal::new(ErrorKind::Internal, "The request was cut off.")
}
