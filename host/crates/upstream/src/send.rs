//! Getting an answer: candidates in turn, and again within limits, as long as no byte of an answer has come.
//!
//! Tried again is what may go better elsewhere or later: no connection, a lost one, too slow a first byte, an answer that is
//! not the protocol's or breaks off before there is anything to tell, a redirect, and the statuses 401, 403, 404, 407, 408, 429
//! and 5xx. Any other answer is the upstream's answer. First every candidate is tried once, then, after a pause, those that may
//! be tried again: who does not have the model, or does not take our key, will not next time. A retry of what a server may
//! have worked on is paid from the budget; one of what never reached a server is free. If nobody does better, the last
//! error is the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use crate::attempt::{self, Missed, Ready, another_may_do_better, refuses_our_key};
use crate::config::Kind;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::exchange::Exchange;
use crate::outgoing::Outgoing;
use crate::route::{Candidate, Route};
use crate::trail::{AttemptOutcome, Trail};
use crate::upstreams::Upstreams;

/// The first pause before candidates are tried again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is waited for. Whoever asks for more is not tried again.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// No candidate gave an answer, and no byte of one has come.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub kind: FailedKind,
    /// What happened last.
    pub message: String,
    /// The parameter of the request that no candidate can be sent.
    pub parameter: Option<String>,
    /// What an upstream said, if the last attempt got that far.
    pub answer: Option<Box<UpstreamAnswer>>,
    /// When another try may go better, as far as that is known.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedKind {
    /// The breakers of all candidates are open.
    Resting,
    /// All candidates have as many requests under way as they take.
    Full,
    /// The request cannot be sent to any of them as it is.
    Request,
    /// The last one failed in this way.
    Upstream(UpstreamErrorKind),
}

/// An upstream's refusal, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAnswer {
    /// HTTP status.
    pub status: u16,
    /// `content-type`.
    pub content_type: Option<String>,
    /// The first 64 KiB.
    pub body: Bytes,
}

/// What has been tried so far.
struct Run<'a> {
    outgoing: &'a Outgoing,
    trail: &'a Trail,
    /// Requests as candidates get them, by kind and model; what cannot be sent to a kind is remembered too.
    ready: HashMap<(Kind, Arc<str>, bool), Ready>,
    /// The last attempt, if it brought no answer.
    missed: Option<Missed>,
    /// What the last attempt brought, if it is an error that another may do better.
    answer: Option<Box<Exchange>>,
    /// Whether a server may have worked on the last attempt.
    reached: bool,
    refused: Option<UpstreamError>,
    full: bool,
    resting: Option<Duration>,
}

/// Whether to go on.
enum Step {
    /// Not tried.
    Skipped,
    /// Tried in vain. The candidate may be tried again, after so long.
    Missed {
        again: bool,
        after: Option<Duration>,
    },
    Answered(Box<Exchange>),
    /// The budget is used up.
    Broke,
}

impl Step {
    /// The candidate may be tried again, if that is of any use and it does not ask for more patience than there is.
    fn missed(again: bool, after: Option<Duration>) -> Self {
        Self::Missed { again: again && after.is_none_or(|a| a <= LONGEST_RETRY_AFTER), after }
    }
}

impl Upstreams {
    /// Sends a request along its route and leaves a trail. Dropping the future gives the request up, also at the upstream.
    pub async fn send(
        &self,
        route: &Route,
        outgoing: &Outgoing,
        trail: &Trail,
    ) -> Result<Exchange, Failed> {
        self.budget().request(route.snapshot.retry_budget);
        let mut run = Run {
            outgoing,
            trail,
            ready: HashMap::new(),
            missed: None,
            answer: None,
            reached: false,
            refused: None,
            full: false,
            resting: None,
        };
        let mut left: Vec<(&Candidate, u32)> =
            route.candidates.iter().map(|c| (c, c.backend.settings.retries)).collect();
        let mut pause = PAUSE;
        loop {
            let mut again = Vec::with_capacity(left.len());
            let mut soonest: Option<Duration> = None;
            for (candidate, retries) in left {
                match Box::pin(run.step(self, candidate)).await {
                    Step::Answered(exchange) => return Ok(*exchange),
                    Step::Broke => return run.ended(),
                    Step::Missed { again: true, after } if retries > 0 => {
                        again.push((candidate, retries - 1));
                        let after = after.unwrap_or_default();
                        soonest = Some(soonest.map_or(after, |soonest| soonest.min(after)));
                    }
                    Step::Missed { .. } | Step::Skipped => {}
                }
            }
            let Some(soonest) = soonest else { return run.ended() };
            tokio::time::sleep(soonest.max(jittered(pause))).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            left = again;
        }
    }
}

impl Run<'_> {
    async fn step(&mut self, upstreams: &Upstreams, candidate: &Candidate) -> Step {
        let backend = &candidate.backend;
        let permit = match backend.state.breaker.admit() {
            Ok(permit) => permit,
            Err(wait) => {
                self.resting = Some(self.resting.map_or(wait, |known| known.min(wait)));
                return Step::Skipped;
            }
        };
        let Some(slot) = backend.slot() else {
            self.full = true;
            return Step::Skipped;
        };
        let ready = match self.ready(candidate) {
            Ok(ready) => ready,
            Err(error) => {
                self.refused = Some(error);
                return Step::Skipped;
            }
        };
        let retries = !self.trail.is_empty();
        if retries && self.reached && !upstreams.budget().retry() {
            return Step::Broke;
        }
        (self.missed, self.answer) = (None, None);
        let totals = &backend.state.totals;
        totals.attempts.fetch_add(1, Relaxed);
        self.trail.asks(candidate);
        match attempt::attempt(candidate, &ready, self.outgoing, slot).await {
            Ok(exchange) => {
                let status = exchange.head().status;
                totals.answered.fetch_add(1, Relaxed);
                // 500 is an answer, but not one of a server that is well, and 401 is one for nobody.
                if status < 500 && !refuses_our_key(status) {
                    permit.succeeded();
                } else {
                    opened(permit.failed(), &backend.name, status);
                }
                if refuses_our_key(status) {
                    let backend = &*backend.name;
                    tracing::error!(
                        backend,
                        status,
                        "a backend does not take the gateway's own key"
                    );
                }
                self.trail.brought(AttemptOutcome::Answered { status });
                if !another_may_do_better(status) {
                    return Step::Answered(Box::new(exchange));
                }
                let after = attempt::retry_after(&exchange.head().headers);
                (self.answer, self.reached) = (Some(Box::new(exchange)), true);
                Step::missed(!attempt::says_the_same_again(status), after)
            }
            Err(missed) => {
                let after = missed.retry_after;
                let again = match missed.error {
                    UpstreamError::TooLarge { .. } => false,
                    UpstreamError::Status(status) => status >= 400,
                    _ => true,
                };
                match missed.error {
                    UpstreamError::Status(status) => {
                        totals.refused.fetch_add(1, Relaxed);
                        self.trail.brought(AttemptOutcome::Refused { status, retry_after: after });
                        // It is well, and busy.
                        if status == 429 {
                            permit.succeeded();
                        } else {
                            opened(permit.failed(), &backend.name, status);
                        }
                    }
                    ref error => {
                        totals.failed.fetch_add(1, Relaxed);
                        let message = error.to_string();
                        self.trail.brought(AttemptOutcome::Failed { kind: error.kind(), message });
                        opened(permit.failed(), &backend.name, error);
                    }
                }
                self.reached = missed.reached;
                self.missed = Some(missed);
                Step::missed(again, after)
            }
        }
    }

    /// The request as this candidate gets it.
    fn ready(&mut self, candidate: &Candidate) -> Result<Ready, UpstreamError> {
        let settings = &candidate.backend.settings;
        let key = (settings.kind, Arc::clone(&candidate.upstream_model), settings.inject_usage);
        if let Some(ready) = self.ready.get(&key) {
            return Ok(ready.clone());
        }
        let ready = attempt::prepare(self.outgoing, candidate)?;
        self.ready.insert(key, ready.clone());
        Ok(ready)
    }

    /// What there is to tell, if nobody has answered: the last one's error.
    fn ended(mut self) -> Result<Exchange, Failed> {
        match self.answer.take() {
            Some(answer) => Ok(*answer),
            None => Err(self.failed()),
        }
    }

    fn failed(self) -> Failed {
        let (kind, message) = match (&self.missed, &self.refused) {
            (Some(missed), _) => {
                (FailedKind::Upstream(missed.error.kind()), missed.error.to_string())
            }
            (None, Some(error)) => (FailedKind::Request, error.to_string()),
            (None, None) if self.full => {
                (FailedKind::Full, "all backends have as many requests as they take".to_owned())
            }
            (None, None) => {
                (FailedKind::Resting, "all backends rest after faults in a row".to_owned())
            }
        };
        let parameter = match (kind, self.refused) {
            (FailedKind::Request, Some(UpstreamError::Request { parameter, .. })) => parameter,
            _ => None,
        };
        let retry_after = match (&self.missed, kind) {
            (Some(missed), _) => missed.retry_after,
            (None, FailedKind::Resting) => self.resting,
            (None, _) => None,
        };
        let answer = self.missed.and_then(|missed| missed.answer).map(Box::new);
        Failed { kind, message, parameter, answer, retry_after }
    }
}

fn opened(opened: bool, backend: &str, why: impl std::fmt::Display) {
    if opened {
        tracing::warn!(backend, %why, "the backend fails, and rests");
    }
}

/// Between half and all of it.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}
