//! Requests that have ended, counted once each, from their record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate_domain::Record;
use tollgate_telemetry::metrics::names::tollgate::{
    GATEWAY_OVERHEAD, NAMES_LEFT_OUT, REQUESTS, REQUESTS_UNAUTHORIZED, REQUESTS_UNPRICED,
};
use tollgate_telemetry::metrics::{Distribution, Family, Snapshot};

use super::bounded::{Bounded, Names, lock};
use super::conventions::Conventions;
use super::engine::Engines;
use super::received::ReceivedMeters;
use super::spending::Spending;
use crate::request::IN_PROCESS;

/// Models that have series of their own.
pub(super) const MODELS: usize = 100;
/// Tenants that have series of their own.
pub(super) const TENANTS: usize = 1000;
/// Providers that have series of their own.
pub(super) const PROVIDERS: usize = 20;
/// Series of requests without a price.
const UNPRICED: usize = 500;

/// Everything that is counted of requests. Counting one takes a few microseconds.
#[derive(Debug)]
pub(crate) struct RequestMeters {
    models: Names,
    tenants: Names,
    providers: Names,
    /// By outcome and status of the cost; both are of a few words only.
    ended: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    unpriced: Bounded<Unpriced, u64>,
    /// By operation and whether the answer was streamed.
    overhead: Mutex<BTreeMap<(&'static str, bool), Distribution>>,
    /// Requests without a key that holds, by what was wrong with it.
    unauthorized: Mutex<BTreeMap<&'static str, u64>>,
    spending: Spending,
    conventions: Conventions,
    engines: Engines,
    /// Spans of other programs.
    pub(crate) received: ReceivedMeters,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Unpriced {
    model: Arc<str>,
    status: &'static str,
    reason: &'static str,
}

/// A request that has ended, and what its names are called here.
pub(super) struct Ended<'a> {
    pub(super) record: &'a Record,
    /// The model as the client named it.
    pub(super) asked: Arc<str>,
    /// Set if it was served, whole or in part.
    pub(super) served: Option<Served>,
}

/// What its names are called of a request that was served.
pub(super) struct Served {
    pub(super) provider: Arc<str>,
    /// The model that answered.
    pub(super) model: Arc<str>,
    /// Who pays; empty if that is not known.
    pub(super) tenant: Arc<str>,
}

impl Default for RequestMeters {
    fn default() -> Self {
        Self {
            models: Names::new(MODELS),
            tenants: Names::new(TENANTS),
            providers: Names::new(PROVIDERS),
            ended: Mutex::default(),
            unpriced: Bounded::new(UNPRICED),
            overhead: Mutex::default(),
            unauthorized: Mutex::default(),
            spending: Spending::default(),
            conventions: Conventions::default(),
            engines: Engines::default(),
            received: ReceivedMeters::default(),
        }
    }
}

impl RequestMeters {
    /// Counts a request that has ended.
    ///
    /// `overhead` is what the gateway took for itself: from the last byte of the request to its
    /// hand-over to the backend, and from the backend's end to the last byte of the answer,
    /// pricing and the commit of the record included. None for a request that no backend saw.
    ///
    /// Only a request that was served takes places of the names in it: nobody who is turned away
    /// can use them up.
    pub(crate) fn count(&self, record: &Record, overhead: Option<Duration>) {
        let ended = self.named(record);
        let key = (record.outcome.name(), record.cost.status());
        *lock(&self.ended).entry(key).or_default() += 1;
        if let Some(overhead) = overhead {
            self.count_overhead(record, overhead);
        }
        if ended.served.is_some() {
            self.count_unpriced(&ended);
        }
        self.spending.count(&ended);
        self.conventions.count(&ended);
        if record.served_by.as_ref().is_some_and(|by| by.provider == IN_PROCESS) {
            self.engines.count(&ended);
        }
    }

    /// Counts a request that another program served: in what was used and spent, not among our own.
    pub(crate) fn count_received(&self, record: &Record) {
        let ended = self.named(record);
        self.count_unpriced(&ended);
        self.spending.count(&ended);
    }

    /// Counts a request without a key that holds, of which nothing else is kept.
    pub(crate) fn unauthorized(&self, reason: &'static str) {
        *lock(&self.unauthorized).entry(reason).or_default() += 1;
    }

    /// All families.
    pub(super) fn families(&self, to: &mut Snapshot) {
        let mut requests = Family::of(&REQUESTS);
        for ((outcome, status), count) in &*lock(&self.ended) {
            requests.add([("outcome", outcome), ("cost_status", status)], *count);
        }
        let mut unpriced = Family::of(&REQUESTS_UNPRICED);
        self.unpriced.each(|Unpriced { model, status, reason }, count| {
            unpriced.add([("model", model), ("cost_status", status), ("reason", reason)], *count);
        });
        let mut overheads = Family::of(&GATEWAY_OVERHEAD);
        for ((operation, stream), overhead) in &*lock(&self.overhead) {
            let stream = if *stream { "true" } else { "false" };
            let labels = [("operation", *operation), ("stream", stream)];
            overheads.add(labels, overhead.histogram());
        }
        let mut left_out = Family::of(&NAMES_LEFT_OUT);
        for (of, names) in [("model", &self.models), ("tenant", &self.tenants)] {
            left_out.add([("of", of)], names.left_out());
        }
        left_out.add([("of", "provider")], self.providers.left_out());
        let mut unauthorized = Family::of(&REQUESTS_UNAUTHORIZED);
        for (reason, count) in &*lock(&self.unauthorized) {
            unauthorized.add([("reason", *reason)], *count);
        }
        to.counters.extend([requests, unpriced, unauthorized, left_out]);
        to.histograms.push(overheads);
        self.spending.families(to);
        self.conventions.families(to);
        self.engines.families(to);
        self.received.families(to);
    }

    fn named<'a>(&self, record: &'a Record) -> Ended<'a> {
        let served = record.served_by.as_ref().map(|by| Served {
            provider: self.providers.admit(&by.provider),
            model: self.models.admit(&by.model),
            tenant: match record.tenant.as_deref() {
                None | Some("") => Arc::default(),
                Some(tenant) => self.tenants.admit(tenant),
            },
        });
        let asked = match served {
            Some(_) => self.models.admit(&record.asked.model),
            None => self.models.find(&record.asked.model),
        };
        Ended { record, asked, served }
    }

    fn count_overhead(&self, record: &Record, overhead: Duration) {
        let key = (record.operation.name(), record.asked.stream);
        let mut all = lock(&self.overhead);
        let seen = all.entry(key).or_insert_with(|| Distribution::new(GATEWAY_OVERHEAD.bounds));
        seen.observe_in(overhead.as_secs_f64(), &record.trace, record.phases.request.end);
    }

    fn count_unpriced(&self, ended: &Ended<'_>) {
        let cost = &ended.record.cost;
        let Some(reason) = cost.reason() else { return };
        let key = Unpriced { model: Arc::clone(&ended.asked), status: cost.status(), reason };
        let other = |key| Unpriced { model: self.models.other(), ..key };
        self.unpriced.update(key, other, || 0, |count| *count += 1);
    }
}
