//! What there is to know of a span, and of whom.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tollgate_domain::{Span, SpanId, TraceId};
use tollgate_telemetry::genai::tenant_of_user;

/// Answers' ids that are shorter are no ids: some servers give all answers the same one.
const ANSWER_ID: std::ops::RangeInclusive<usize> = 16..=256;

/// Whose spans these are: what somebody else says of the same ids changes nothing for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Scope(u64);

impl Scope {
    /// Of requests that were served here, and of senders where nobody needs a key.
    pub(in super::super) const SERVED: Self = Self(0);
}

/// Tells senders, and texts of any length, apart by few bytes. What is made of a text is of this process
/// alone, so that nobody can choose two that are the same.
#[derive(Debug, Default)]
pub(in super::super) struct Scopes(RandomState, RandomState);

impl Scopes {
    /// The senders that show a key of this tenant; without a key all are one.
    pub(in super::super) fn of(&self, tenant: Option<&str>) -> Scope {
        tenant.map_or(Scope::SERVED, |tenant| Scope(self.0.hash_one(tenant) | 1))
    }

    /// An answer by its id, if that is one.
    pub(in super::super) fn answer(&self, naming: Naming, id: &str) -> Option<Answer> {
        let digest = [self.0.hash_one(id), self.1.hash_one(id)];
        ANSWER_ID.contains(&id.len()).then_some(Answer { naming, digest })
    }
}

/// A span's name for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Id {
    pub(in super::super) scope: Scope,
    pub(in super::super) trace: TraceId,
    pub(in super::super) span: SpanId,
}

impl Id {
    /// The id of a span that somebody sent.
    pub(in super::super) fn of(scope: Scope, span: &Span) -> Self {
        Self { scope, trace: span.context.trace_id, span: span.context.span_id }
    }

    /// The same of what was served here.
    pub(in super::super) fn served(self) -> Self {
        Self { scope: Scope::SERVED, ..self }
    }
}

/// What an answer's id is to who tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Naming {
    /// The id of the answer.
    Answer,
    /// The id that the server gave the request, of which the answer's is made. Clients can choose it, and
    /// some give several requests the same.
    Request,
}

/// An answer, as a span names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Answer {
    pub(in super::super) naming: Naming,
    pub(in super::super) digest: [u64; 2],
}

/// Who pays for a call, as far as a span says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Payer {
    pub(in super::super) tenant: Option<String>,
    pub(in super::super) user: Option<String>,
}

impl Payer {
    /// What this one does not say, that one does.
    pub(in super::super) fn complete(&mut self, other: &Self) {
        let Self { tenant, user } = other;
        self.tenant = self.tenant.take().or_else(|| tenant.clone());
        self.user = self.user.take().or_else(|| user.clone());
    }

    /// The tenant, else the user.
    pub(in super::super) fn name(&self) -> Option<String> {
        self.tenant.clone().or_else(|| tenant_of_user(self.user.as_deref()))
    }

    /// As it is kept: most say nothing.
    pub(in super::super) fn kept(&self) -> Option<Arc<Self>> {
        (*self != Self::default()).then(|| Arc::new(self.clone()))
    }
}

/// What is known of a span.
#[derive(Clone, Debug)]
pub(in super::super) struct Known {
    pub(in super::super) id: Id,
    pub(in super::super) parent: Option<SpanId>,
    /// Whether it tells of a call.
    pub(in super::super) call: bool,
    /// Whether it is on a bill.
    pub(in super::super) billed: bool,
    /// Whether it is not yet on record.
    pub(in super::super) pending: bool,
    /// The answer that it tells of.
    pub(in super::super) answer: Option<Answer>,
    /// Tokens of its prompt, if they are billed with it.
    pub(in super::super) prompt: Option<u64>,
    pub(in super::super) payer: Option<Arc<Payer>>,
}

impl Known {
    /// Of a span that tells of no call.
    pub(in super::super) fn plain(id: Id, parent: Option<SpanId>) -> Self {
        let (call, billed, pending) = (false, false, false);
        Self { id, parent, call, billed, pending, answer: None, prompt: None, payer: None }
    }
}

/// Whether a span is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Seen {
    /// It is about to be put on record.
    Pending,
    /// It is on record.
    Recorded,
}

/// Whether a call is billed by other spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// By none.
    New,
    /// It is another choice of one that is: its prompt is billed, what came out of it is not.
    Choice,
    /// It is.
    Counted,
}
