//! Between backend and client: passes the answer on and writes down what happened when.
//!
//! [`engine`] taps a generation of the model in this process, [`upstream`] another server's answer.
//! Whichever it was, what is known of it afterwards is [`Tapped`].

pub(crate) mod engine;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tollgate_domain::record::{EngineFacts, FinishReason, Phases};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::UpstreamCall;
use tollgate_domain::usage::{ComputeUsage, Phase, UsageSource};
use tollgate_domain::{Outcome, TokenUsage, Usage};
use tollgate_ledger::Ticket;

use crate::call::{AnswerEvent, Moment, Refusal};
use crate::content::Captured;

/// Where the pieces of one answer go.
pub(crate) struct Tap<'a> {
    pub(crate) pieces: &'a mpsc::Sender<AnswerEvent>,
    pub(crate) ticket: &'a Ticket,
    pub(crate) content: &'a mut Option<Captured>,
    /// How long a client may leave a piece before it counts as gone.
    pub(crate) stall: Duration,
}

/// What an answer turned out to be.
pub(crate) struct Tapped {
    /// Whether the client has seen all of it but the end.
    pub(crate) whole: bool,
    /// Whether a backend did what was asked, or some of it. Else there is nothing to pay for.
    pub(crate) served: bool,
    /// Why generation ended, of each choice in their order, as far as the backend said so.
    pub(crate) reasons: Vec<FinishReason>,
    /// How the backend failed, if it did.
    pub(crate) failure: Option<Refusal>,
    pub(crate) tokens: TokenUsage,
    pub(crate) source: UsageSource,
    pub(crate) compute: Option<ComputeUsage>,
    /// What it met in the engine, if that answered.
    pub(crate) engine: Option<EngineFacts>,
    pub(crate) times: Times,
    pub(crate) response: Response,
    /// What is held back until the request is on record.
    pub(crate) rest: Bytes,
}

/// What another server says of its answer.
#[derive(Default)]
pub(crate) struct Response {
    /// The model that has answered.
    pub(crate) model: Option<String>,
    /// Its id of the answer.
    pub(crate) id: Option<String>,
    /// The tier that served.
    pub(crate) service_tier: Option<String>,
}

/// When an answer reached which point.
#[derive(Default)]
pub(crate) struct Times {
    /// It left the backend's queue.
    pub(crate) started: Option<Instant>,
    /// The model had read the prompt.
    pub(crate) prefilled: Option<Instant>,
    pub(crate) first_text: Option<Instant>,
    /// The backend had made all of it; none: at its end.
    pub(crate) decoded: Option<Instant>,
    pub(crate) ended: Option<Instant>,
}

impl Tap<'_> {
    /// Hands a piece to the client, unless it is gone, which is when the receiver is dropped or has
    /// not taken a piece for `stall`; whether it is still here.
    async fn pass(&self, piece: AnswerEvent) -> bool {
        matches!(tokio::time::timeout(self.stall, self.pieces.send(piece)).await, Ok(Ok(())))
    }
}

impl Tapped {
    /// Why generation ended, of the first choice.
    pub(crate) fn reason(&self) -> Option<FinishReason> {
        self.reasons.first().copied()
    }

    /// The same of each, where there are several.
    pub(crate) fn several_reasons(&self) -> Vec<FinishReason> {
        if self.whole && self.reasons.len() > 1 { self.reasons.clone() } else { Vec::new() }
    }

    /// What the client is told of the end.
    pub(crate) fn result(&self) -> Result<(), Refusal> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Whether the client saw the whole answer.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.failure {
            Some(Refusal { kind, message, .. }) => {
                Outcome::Failed { kind: *kind, message: message.clone() }
            }
            None if self.whole => Outcome::Completed { reason: self.reason() },
            None => Outcome::ClientGone,
        }
    }

    /// `base` with the counts filled in.
    pub(crate) fn usage(&self, base: Usage) -> Usage {
        let ended = self.whole && self.failure.is_none();
        Usage {
            phase: if ended { Phase::Final } else { Phase::Interrupted },
            source: self.source,
            tokens: self.tokens,
            compute: self.compute.clone(),
            service_tier: self.response.service_tier.clone(),
            ..base
        }
    }
}

impl Tapped {
    /// The call to another server, with what its answer told.
    pub(crate) fn complete(&mut self, mut call: UpstreamCall, arrived: &Moment) -> UpstreamCall {
        if let Some(ended) = self.times.ended.filter(|_| call.status.is_some()) {
            call.interval.end = call.interval.end.max(arrived.at(ended));
        }
        call.response_id = self.response.id.take();
        call
    }
}

impl Times {
    /// How long the request was in our hands and not in the backend's, so far: from its arrival
    /// until it was submitted, and from the end of generation until now.
    pub(crate) fn overhead(&self, arrived: &Moment, submitted: Instant) -> Duration {
        let after = self.ended.map(|ended| ended.elapsed()).unwrap_or_default();
        arrived.until(submitted).saturating_add(after)
    }

    /// The phases that were reached.
    pub(crate) fn phases(
        &self,
        arrived: &Moment,
        tokenize: Option<Interval>,
        submitted: Instant,
    ) -> Phases {
        let ended = self.ended.unwrap_or_else(Instant::now);
        // Whoever makes tokens of the prompt has a queue that is known here.
        let queued = tokenize.is_some();
        Phases {
            request: arrived.until_now(),
            tokenize,
            queue: queued.then(|| arrived.interval(submitted, self.started.unwrap_or(ended))),
            prefill: self.started.map(|at| arrived.interval(at, self.prefilled.unwrap_or(ended))),
            decode: self.prefilled.map(|at| arrived.interval(at, self.decoded.unwrap_or(ended))),
            first_token: self.first_text.map(|at| arrived.at(at)),
        }
    }
}
