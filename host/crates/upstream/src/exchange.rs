//! An answer under way: passes on what comes, and keeps the account of it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::account::Account;
use crate::backend::Slot;
use crate::error::{UpstreamError, chain};
use crate::reading::{Source, Taken};
use crate::route::Candidate;

/// How long an answer that is over may take to end its connection's message, so that the connection can be used again.
const DRAIN: Duration = Duration::from_secs(1);

/// Bytes for the client, to be written as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// At least one.
    pub bytes: Bytes,
    /// Whether they may go at once.
    pub kind: PieceKind,
}

/// When a piece may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// At once.
    Body,
    /// With it the client has all of the answer, or all but some more of this kind: usage, `[DONE]`, the reported error, a
    /// whole plain answer. No [`PieceKind::Body`] follows.
    Last,
}

/// How the pieces of an answer come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events, some in each piece.
    Events,
    /// All at once, when it is whole.
    Whole,
    /// As they arrive; what they are is not known.
    Opaque,
}

/// What is known of an answer from its start.
#[derive(Clone, Debug)]
pub struct Head {
    /// Who answers.
    pub candidate: Candidate,
    /// HTTP status; from 400 on the answer is the upstream's error. Of those that another may do better
    /// ([`another_may_do_better`](crate::another_may_do_better)) it is that of the last who was asked.
    pub status: u16,
    /// `content-type` for the client.
    pub content_type: Option<String>,
    /// What the client gets of the headers: the request's id, processing time, `retry-after`; never the upstream's rate
    /// limits, which are ours.
    pub headers: HeaderMap,
    /// When the first byte of the body came; of an empty one, when that was known.
    pub first_byte_at: Instant,
}

/// An answer under way. Dropping it before its end closes the connection, by which the upstream learns that nobody wants the
/// rest.
#[derive(Debug)]
pub struct Exchange {
    head: Box<Head>,
    account: Box<Account>,
    /// Given back when the answer has ended.
    slot: Option<Slot>,
    body: Option<Incoming>,
    first: Option<Bytes>,
    source: Source,
    ready: VecDeque<Piece>,
    failure: Option<UpstreamError>,
    finished: bool,
    /// Whether somebody is told what comes. What fails before is a failed attempt, and counted as one.
    begun: bool,
}

impl Exchange {
    pub(crate) fn new(
        head: Head,
        slot: Slot,
        body: Option<Incoming>,
        first: Option<Bytes>,
        source: Source,
        keep_output: bool,
    ) -> Self {
        Self {
            head: Box::new(head),
            account: Box::new(Account { keep_output, ..Account::default() }),
            slot: Some(slot),
            body,
            first,
            source,
            ready: VecDeque::new(),
            failure: None,
            finished: false,
            begun: false,
        }
    }

    /// Waits until there is something for the client: the first of a stream, all of a plain answer. What fails before is no
    /// answer, and somebody else may be asked.
    pub(crate) async fn begin(&mut self) -> Result<(), UpstreamError> {
        while self.ready.is_empty() && !self.finished {
            self.advance().await;
        }
        if self.ready.is_empty()
            && let Some(error) = self.failure.take()
        {
            return Err(error);
        }
        self.begun = true;
        if let Some(error) = &self.failure {
            self.broke(error);
        }
        Ok(())
    }

    /// The same, whatever comes.
    pub(crate) fn begun(mut self) -> Self {
        self.begun = true;
        self
    }

    /// What is known from its start.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How its pieces come.
    #[must_use]
    pub fn form(&self) -> Form {
        match self.source {
            Source::Events { .. } => Form::Events,
            Source::Whole { .. } => Form::Whole,
            Source::Opaque { .. } => Form::Opaque,
        }
    }

    /// What is known so far, of all that has come; also of what [`Self::next`] has not handed out yet.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The account, once nothing more is wanted; closes the connection if the answer is not over.
    #[must_use]
    pub fn into_account(mut self) -> Account {
        let ended = self.account.ended;
        let account = std::mem::take(&mut *self.account);
        // What is dropped is still an answer that has ended, whose connection can be used again.
        self.account.ended = ended;
        account
    }

    /// Tells the upstream that nobody wants the rest.
    pub fn cancel(self) {
        drop(self);
    }

    /// The next piece; an error ends the answer, and so does none. Whoever drops the future in between loses nothing.
    pub async fn next(&mut self) -> Option<Result<Piece, UpstreamError>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if let Some(error) = self.failure.take() {
                return Some(Err(error));
            }
            if self.finished {
                return None;
            }
            self.advance().await;
        }
    }

    /// Takes what comes next. Whoever drops the future in between loses nothing.
    async fn advance(&mut self) {
        if let Some(first) = self.first.take() {
            let at = self.head.first_byte_at;
            return self.take(&first, at);
        }
        match self.receive().await {
            Ok(Some(bytes)) => self.take(&bytes, Instant::now()),
            Ok(None) => self.end(),
            Err(error) => self.fail(error),
        }
    }

    /// The next bytes of the body, or none at its end.
    async fn receive(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        frame(body, self.head.candidate.backend.settings.idle_timeout).await
    }

    fn take(&mut self, bytes: &Bytes, at: Instant) {
        let taken = self.source.take(bytes, &mut self.account, at);
        self.took(taken);
    }

    fn end(&mut self) {
        self.body = None;
        let taken = self.source.end(&mut self.account, Instant::now());
        self.took(taken);
        self.finish();
    }

    /// What came before an error goes out before it.
    fn took(&mut self, taken: Taken) {
        self.ready.extend(taken.pieces);
        if let Some(error) = taken.error {
            self.fail(error);
        } else if self.account.is_over() {
            self.finish();
        }
    }

    fn fail(&mut self, error: UpstreamError) {
        if self.finished {
            return;
        }
        if self.begun {
            self.broke(&error);
        }
        self.failure = Some(error);
        // What comes after an error is nobody's; the connection goes.
        self.body = None;
        self.finish();
    }

    /// Counts an answer that broke off under the client's eyes.
    fn broke(&self, error: &UpstreamError) {
        let backend = &self.head.candidate.backend;
        backend.state.totals.broken.fetch_add(1, Relaxed);
        if backend.state.breaker.failed_later() {
            tracing::warn!(backend = %backend.name, %error, "answers break off; the backend rests");
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.slot = None;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        if !self.account.ended {
            return;
        }
        // All is there but the end of the message: read that, so that the connection can be used again.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let drain = async { while let Some(Ok(_)) = body.frame().await {} };
                let _ = tokio::time::timeout(DRAIN, drain).await;
            });
        }
    }
}

/// The next bytes of a body, or none at its end.
pub(crate) async fn frame(
    body: &mut Incoming,
    patience: Duration,
) -> Result<Option<Bytes>, UpstreamError> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        match frame.map_err(|_| UpstreamError::Idle(patience))? {
            None => return Ok(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                // Trailers.
                Err(_) => {}
            },
            Some(Err(error)) => return Err(UpstreamError::Lost { problem: chain(&error) }),
        }
    }
}
