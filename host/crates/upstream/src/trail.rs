//! What is tried for a request, to be looked at while it is sent and after it was given up.
//!
//! Whoever drops [`Upstreams::send`](crate::Upstreams::send) in the middle, since nobody waits for the answer any more, still
//! knows from here who was asked last.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::error::UpstreamErrorKind;
use crate::route::Candidate;

/// The trail of one request. Its followers hear of each change, and of its end once it is dropped.
#[derive(Debug, Default)]
pub struct Trail(watch::Sender<Tried>);

/// What a trail shows.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// Attempts whose outcome is known, oldest first.
    pub attempts: Vec<Attempt>,
    /// The attempt under way, or the one that was when the request was given up.
    pub asking: Option<Asking>,
}

/// An attempt whose outcome is not known.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Who is asked.
    pub candidate: Candidate,
    /// When it began.
    pub began: Instant,
}

/// One attempt at one backend.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who was asked.
    pub candidate: Candidate,
    /// When it began.
    pub began: Instant,
    /// When its outcome was known.
    pub ended: Instant,
    /// What came of it.
    pub outcome: AttemptOutcome,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// An answer, if only an error.
    Answered {
        /// HTTP status.
        status: u16,
    },
    /// "Not now", or "not here".
    Refused {
        /// 429, 502, 503, 504, 529, or that of a redirect.
        status: u16,
        /// When to come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// No answer.
    Failed {
        /// What kind of failure.
        kind: UpstreamErrorKind,
        /// What happened.
        message: String,
    },
}

impl Trail {
    /// Hears of each change.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Tried> {
        self.0.subscribe()
    }

    /// Its end: what was tried.
    #[must_use]
    pub fn ended(self) -> Tried {
        self.0.borrow().clone()
    }

    pub(crate) fn asks(&self, candidate: &Candidate) {
        let asking = Asking { candidate: candidate.clone(), began: Instant::now() };
        self.0.send_modify(|tried| tried.asking = Some(asking));
    }

    /// The attempt under way has come to this.
    pub(crate) fn brought(&self, outcome: AttemptOutcome) {
        self.0.send_modify(|tried| {
            if let Some(Asking { candidate, began }) = tried.asking.take() {
                let ended = Instant::now();
                tried.attempts.push(Attempt { candidate, began, ended, outcome });
            }
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().attempts.is_empty()
    }
}

impl Tried {
    /// Who was asked last; none if nobody was.
    #[must_use]
    pub fn last(&self) -> Option<&Candidate> {
        let asking = self.asking.as_ref().map(|asking| &asking.candidate);
        asking.or_else(|| self.attempts.last().map(|attempt| &attempt.candidate))
    }

    /// When the first attempt began.
    #[must_use]
    pub fn began(&self) -> Option<Instant> {
        let first = self.attempts.first().map(|attempt| attempt.began);
        first.or_else(|| self.asking.as_ref().map(|asking| asking.began))
    }
}
