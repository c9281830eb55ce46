//! One request under way: what is known of it so far, and the record it becomes.

use rand::random;
use tollgate_domain::admission::Admission;
use tollgate_domain::record::{
    Asked, Content, EngineFacts, FinishReason, HttpExchange, Operation, Phases, Record, ServedBy,
    TracePlace,
};
use tollgate_domain::time::Interval;
use tollgate_domain::upstream::UpstreamCall;
use tollgate_domain::usage::{Phase, UsageSource};
use tollgate_domain::{
    CostOutcome, Outcome, RequestId, SpanId, TokenUsage, TraceId, UnpricedReason, Usage,
};
use tollgate_telemetry::propagation;

use crate::call::{Arrival, Caller, Moment, Refusal};
use crate::log;

/// `gen_ai.provider.name` of models that run in this process.
pub(crate) const IN_PROCESS: &str = "tollgate";

/// What is known of a request from its arrival on.
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) trace: TracePlace,
    pub(crate) operation: Operation,
    pub(crate) asked: Asked,
    pub(crate) user: Option<String>,
    pub(crate) arrived: Moment,
    /// Who asks: with a key whoever has it, else the `user` field.
    pub(crate) caller: Caller,
    pub(crate) http: HttpExchange,
}

/// What is known at its end besides.
pub(crate) struct End {
    pub(crate) phases: Phases,
    pub(crate) outcome: Outcome,
    /// Of each choice, where there are several.
    pub(crate) finish_reasons: Vec<FinishReason>,
    pub(crate) usage: Usage,
    pub(crate) cost: CostOutcome,
    pub(crate) content: Option<Content>,
    pub(crate) admission: Admission,
    pub(crate) upstream: Option<UpstreamCall>,
    pub(crate) engine: Option<EngineFacts>,
    /// The model that has answered, by its own word.
    pub(crate) response_model: Option<String>,
    /// The status that the client is told, where it does not follow from the outcome.
    pub(crate) status: Option<u16>,
}

impl Request {
    /// Gives it an id and its place in the client's trace, or in a new one.
    pub(crate) fn begin(arrival: &Arrival, asked: Asked, user: Option<String>) -> Self {
        let parent =
            propagation::parse(arrival.traceparent.as_deref(), arrival.tracestate.as_deref());
        let mut caller = arrival.caller.clone();
        if caller.0.key_id.is_none() {
            caller.0.tenant.clone_from(&user);
        }
        let trace_id = parent.as_ref().map_or_else(|| TraceId(nonzero(random)), |p| p.trace_id);
        Self {
            id: RequestId(uuid::Uuid::now_v7().simple().to_string()),
            trace: TracePlace { trace_id, root: SpanId(nonzero(random)), parent },
            operation: arrival.operation,
            asked,
            user,
            arrived: arrival.at,
            caller,
            http: HttpExchange {
                method: arrival.method.clone(),
                route: arrival.route.clone(),
                status: 200,
            },
        }
    }

    /// What it is on record under.
    pub(crate) fn ids(&self) -> (RequestId, TraceId) {
        (self.id.clone(), self.trace.trace_id)
    }

    /// What its lines in the log are joined by.
    pub(crate) fn log_span(&self) -> tracing::Span {
        log::span(self.trace.trace_id, &self.id)
    }

    /// Usage with the counts still to be filled in.
    pub(crate) fn usage_base(&self, provider: &str, served: &str) -> Usage {
        Usage {
            provider: provider.to_owned(),
            request_model: self.asked.model.clone(),
            response_model: served.to_owned(),
            operation: self.operation.name().to_owned(),
            service_tier: None,
            phase: Phase::Final,
            source: UsageSource::Reported,
            start: self.arrived.wall(),
            tokens: TokenUsage::default(),
            compute: None,
            units: Vec::new(),
        }
    }

    /// Who pays.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.caller.0.tenant.as_deref()
    }

    /// The record of a request that was not served.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Record {
        let outcome = Outcome::Refused { kind: refusal.kind, message: refusal.message.clone() };
        let cost = CostOutcome::Unpriced { reason: UnpricedReason::NotServed };
        let mut record = self.record(self.no_phases(), outcome, None, cost);
        if let Some(limit) = &refusal.limit {
            record.admission.get_or_insert_default().limit = Some(limit.applied.clone());
        }
        record
    }

    /// The record of an admitted request if nothing more is heard of it. `upstream`: the call to another
    /// server, if that is to answer it.
    pub(crate) fn aborted(
        &self,
        usage: &Usage,
        tokenize: Option<Interval>,
        upstream: Option<UpstreamCall>,
    ) -> Record {
        let phases = Phases { tokenize, ..self.no_phases() };
        let usage = Usage { phase: Phase::Interrupted, ..usage.clone() };
        let cost = CostOutcome::Unpriced { reason: UnpricedReason::PluginsChanged };
        let record = self.record(phases, Outcome::Aborted, Some(usage), cost);
        Record { upstream, ..record }
    }

    /// The record of a request that was served, whole or in part.
    pub(crate) fn served(&self, end: End) -> Record {
        let mut record = self.record(end.phases, end.outcome, Some(end.usage), end.cost);
        if let Some(status) = end.status {
            record.http.status = status;
        }
        if let (Some(by), Some(model)) = (&mut record.served_by, end.response_model) {
            by.model = model;
        }
        record.admission = Some(end.admission).filter(|admission| !admission.is_empty());
        Record {
            finish_reasons: end.finish_reasons,
            content: end.content,
            engine: end.engine,
            upstream: end.upstream,
            ..record
        }
    }

    fn no_phases(&self) -> Phases {
        Phases {
            request: self.arrived.until_now(),
            tokenize: None,
            queue: None,
            prefill: None,
            decode: None,
            first_token: None,
        }
    }

    fn record(
        &self,
        phases: Phases,
        outcome: Outcome,
        usage: Option<Usage>,
        cost: CostOutcome,
    ) -> Record {
        let status = match &outcome {
            Outcome::Completed { .. } | Outcome::ClientGone | Outcome::Aborted => 200,
            Outcome::Refused { kind, .. } => kind.http_status(),
            // The status of a stream is out before it can fail.
            Outcome::Failed { kind, .. } if !self.asked.stream => kind.http_status(),
            Outcome::Failed { .. } => 200,
        };
        let key = self.caller.0.key_id.clone();
        Record {
            id: self.id.clone(),
            operation: self.operation,
            trace: self.trace.clone(),
            tenant: self.caller.0.tenant.clone(),
            user: self.user.clone(),
            served_by: usage.as_ref().map(|usage| ServedBy {
                provider: usage.provider.clone(),
                model: usage.response_model.clone(),
            }),
            asked: self.asked.clone(),
            http: HttpExchange { status, ..self.http.clone() },
            phases,
            outcome,
            finish_reasons: Vec::new(),
            usage,
            cost,
            admission: key.map(|key| Admission { key: Some(key), ..Admission::default() }),
            engine: None,
            upstream: None,
            content: None,
            received: None,
        }
    }
}

/// A random value that is not zero, which trace context forbids.
fn nonzero<T: Default + PartialEq>(next: impl Fn() -> T) -> T {
    loop {
        let value = next();
        if value != T::default() {
            return value;
        }
    }
}
