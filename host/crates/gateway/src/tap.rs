//! Between engine and client: passes the stream on and writes down what happened when.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tollgate_domain::record::{FinishReason, Phases};
use tollgate_domain::time::{Interval, nanos};
use tollgate_domain::usage::{ComputeUsage, Phase};
use tollgate_domain::{ErrorKind, Outcome, TokenUsage, Usage};
use tollgate_engine::{End, Engine, Event, Facts, Generation};
use tollgate_ledger::Ticket;

use crate::call::{AnswerEvent, Moment, Refusal};
use crate::content::Captured;

/// What a stream turned out to be.
#[derive(Default)]
pub(crate) struct Tapped {
    /// Why generation ended; none if the client left or the engine failed first.
    pub(crate) reason: Option<FinishReason>,
    output_tokens: u32,
    device_time: Duration,
    facts: Facts,
    started: Option<Instant>,
    prefilled: Option<Instant>,
    first_text: Option<Instant>,
    ended: Option<Instant>,
}

/// A tapped stream and, if it failed, how.
pub(crate) struct Ran {
    pub(crate) tapped: Tapped,
    pub(crate) failure: Option<Refusal>,
}

/// Passes the stream on until it ends or the client is gone, which is when the pieces' receiver
/// is dropped or has not taken a piece for `stall`. Then generation is cancelled and what it used
/// so far is asked for. What a piece took is noted before the piece goes out, so that a killed
/// process has billed what its clients have.
pub(crate) async fn run(
    mut generation: Generation,
    prompt_tokens: u64,
    pieces: &mpsc::Sender<AnswerEvent>,
    ticket: &Ticket,
    content: &mut Option<Captured>,
    stall: Duration,
) -> Ran {
    let mut tapped = Tapped::default();
    let mut client_is_here = true;
    let mut failure = None;
    loop {
        let event = tokio::select! {
            event = generation.next() => event,
            () = pieces.closed(), if client_is_here => {
                client_is_here = false;
                generation.cancel();
                continue;
            }
        };
        let Some(event) = event else {
            failure = Some(Refusal::new(ErrorKind::Internal, "The engine stopped."));
            break;
        };
        match event {
            Event::Started { at } => tapped.started = Some(at),
            Event::Prefilled { at } => {
                tapped.prefilled = Some(at);
                ticket.progress(prompt_tokens, 0);
            }
            Event::Text { text, output_tokens, at, .. } => {
                tapped.first_text.get_or_insert(at);
                ticket.progress(prompt_tokens, u64::from(output_tokens));
                if let Some(content) = content {
                    content.answered(&text);
                }
                let piece = pieces.send(AnswerEvent::Text(text));
                if client_is_here && !matches!(tokio::time::timeout(stall, piece).await, Ok(Ok(())))
                {
                    client_is_here = false;
                    generation.cancel();
                }
            }
            Event::Ended { end, output_tokens, device_time, facts, at, .. } => {
                tapped.output_tokens = output_tokens;
                tapped.facts = facts;
                tapped.device_time = device_time;
                tapped.ended = Some(at);
                match end {
                    End::Finished(reason) if client_is_here => {
                        tapped.reason = Some(reason);
                    }
                    End::Failed(error) => {
                        tracing::error!(%error, "generation failed");
                        let message = "The model failed while answering.";
                        failure = Some(Refusal::new(ErrorKind::Internal, message));
                    }
                    // We cancelled because the client left; else the engine did, to shut down.
                    End::Cancelled if client_is_here => {
                        let message = "The gateway shut down while answering.";
                        failure = Some(Refusal::new(ErrorKind::ShuttingDown, message));
                    }
                    // The client left, if only in the last moment: it has not seen the end.
                    End::Finished(_) | End::Cancelled => {}
                }
                break;
            }
        }
    }
    Ran { tapped, failure }
}

impl Tapped {
    /// What the client is told of the end.
    pub(crate) fn result(&self, failure: Option<&Refusal>) -> Result<FinishReason, Refusal> {
        match (failure, self.reason) {
            (Some(refusal), _) => Err(refusal.clone()),
            (None, Some(reason)) => Ok(reason),
            (None, None) => Err(Refusal::new(ErrorKind::Internal, "The answer was cut off.")),
        }
    }

    /// Whether the client saw the whole answer.
    pub(crate) fn outcome(&self, failure: Option<Refusal>) -> Outcome {
        match (failure, self.reason) {
            (Some(refusal), _) => Outcome::Failed { kind: refusal.kind, message: refusal.message },
            (None, Some(reason)) => Outcome::Completed { reason },
            (None, None) => Outcome::ClientGone,
        }
    }

    /// `base` with the counts filled in.
    pub(crate) fn usage(&self, base: Usage, prompt_tokens: u64, engine: &Engine) -> Usage {
        let was_read = self.prefilled.is_some() || self.output_tokens > 0;
        Usage {
            phase: if self.reason.is_some() { Phase::Final } else { Phase::Interrupted },
            tokens: TokenUsage {
                // A prompt that the model never got to read used nothing.
                input: if was_read { prompt_tokens } else { 0 },
                input_cache_read: if was_read { u64::from(self.facts.cached_tokens) } else { 0 },
                output: u64::from(self.output_tokens),
                ..TokenUsage::default()
            },
            compute: Some(ComputeUsage {
                device: engine.info().device.to_string(),
                device_time_nanos: nanos(self.device_time),
                share_ppm: self.facts.device_share_ppm,
                energy_millijoules: None,
            }),
            ..base
        }
    }

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
        tokenize: Interval,
        submitted: Instant,
    ) -> Phases {
        let ended = self.ended.unwrap_or_else(Instant::now);
        Phases {
            request: arrived.until_now(),
            tokenize: Some(tokenize),
            queue: Some(arrived.interval(submitted, self.started.unwrap_or(ended))),
            prefill: self.started.map(|at| arrived.interval(at, self.prefilled.unwrap_or(ended))),
            decode: self.prefilled.map(|at| arrived.interval(at, ended)),
            first_token: self.first_text.map(|at| arrived.at(at)),
        }
    }
}
