//! From records to the spans that may leave: built, enriched, filtered for one exporter.
//!
//! Enrichers and filters are those that serve when a record is delivered, not those that it was
//! admitted under: what an operator redacts now is redacted in what still waits, too. Each record
//! is enriched once, whichever exporter comes first.
//!
//! The traces of one tenant are asked about together, since a call costs more than a span. Where a
//! plugin fails on such a company each trace is asked about alone, so that a trace suffers by its
//! own spans only.

mod whole;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_domain::received::{Origin, share_origins};
use tollgate_domain::{PluginFault, RequestId, Resource, Span, SpanId, TraceId};
use tollgate_ledger::{Outbound, Payload, Seq};
use tollgate_plugin_host::{Filters, PluginHost, Role};
use tollgate_telemetry::plugin_failed;

use crate::log;
pub(crate) use whole::{Fragment, Judged};

/// Enriched traces that are kept for the exporters that come after the first, and most spans of
/// them all: a batch of received spans has hundreds.
const KEPT: usize = 1024;
const KEPT_SPANS: usize = 16_384;

/// Most faults of one role that are marked on a trace; all are in the log.
const FAULTS_MARKED: usize = 8;

/// What turns records into spans.
pub(crate) struct Tracer {
    plugins: PluginHost,
    resource: Resource,
    address: SocketAddr,
    /// Whether several exporters want the same.
    keeps: bool,
    enriched: Mutex<Enriched>,
}

/// Enriched traces for the exporters that come after the first.
#[derive(Default)]
struct Enriched {
    traces: BTreeMap<Seq, Arc<Vec<Span>>>,
    /// Spans of them all.
    spans: usize,
}

/// Whose spans some are.
#[derive(Clone, Debug)]
struct Subject {
    tenant: Option<String>,
    /// The request that they tell of, if it is one of which there is a record.
    request: Option<Request>,
}

/// Where a request is in traces.
#[derive(Clone, Debug)]
struct Request {
    trace: TraceId,
    root: SpanId,
    id: RequestId,
}

impl Subject {
    fn of(payload: &Payload) -> Self {
        let request = payload.record().map(|record| Request {
            trace: record.trace.trace_id,
            root: record.trace.root,
            id: record.id.clone(),
        });
        Self { tenant: payload.tenant().map(str::to_owned), request }
    }
}

impl Tracer {
    pub(crate) fn new(
        plugins: PluginHost,
        resource: Resource,
        address: SocketAddr,
        exporters: usize,
    ) -> Self {
        Self { plugins, resource, address, keeps: exporters > 1, enriched: Mutex::default() }
    }

    /// The spans of each record that may leave through `exporter`; calls plugins, so it blocks.
    pub(crate) fn bound_for(&self, exporter: &str, records: &[Arc<Outbound>]) -> Vec<Vec<Span>> {
        let enriched = self.enriched(records).into_iter().map(Arc::unwrap_or_clone).collect();
        if !self.filters() {
            return enriched;
        }
        let subjects: Vec<Subject> =
            records.iter().map(|stored| Subject::of(&stored.what)).collect();
        let again = |place: usize| {
            let record = records.get(place).map(std::slice::from_ref).unwrap_or_default();
            let enriched = self.enriched(record).into_iter().next();
            enriched.map(Arc::unwrap_or_clone).unwrap_or_default()
        };
        self.filtered(exporter, &subjects, enriched, again, Filters::All)
    }

    /// Whether anybody is to be asked what may leave.
    fn filters(&self) -> bool {
        self.plugins.pin().plays(Role::ExportFilter)
    }

    /// Spans as these filters leave them; `again` gives those of a subject once more.
    fn filtered(
        &self,
        exporter: &str,
        subjects: &[Subject],
        spans: Vec<Vec<Span>>,
        again: impl Fn(usize) -> Vec<Span>,
        by: Filters,
    ) -> Vec<Vec<Span>> {
        if !self.filters() {
            return spans;
        }
        asked_about(subjects, spans, again, Role::ExportFilter, |tenant, spans| {
            let plugins = self.plugins.pin();
            by_process(&self.resource, spans, |resource, spans| {
                let asked = std::mem::take(spans);
                let filtered = plugins.filter_by(by, exporter, tenant, resource, asked);
                *spans = filtered.kept;
                filtered.faults
            })
        })
    }

    /// What all our spans share.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The spans of one record before any filter; calls plugins, so it blocks.
    pub(crate) fn whole(&self, record: &Arc<Outbound>) -> Vec<Span> {
        let enriched = self.enriched(std::slice::from_ref(record)).into_iter().next();
        enriched.map(|spans| spans.as_ref().clone()).unwrap_or_default()
    }

    /// The enriched trace of each record. Whoever comes meanwhile waits, and finds them done.
    fn enriched(&self, records: &[Arc<Outbound>]) -> Vec<Arc<Vec<Span>>> {
        let mut known = self.enriched.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<&Arc<Outbound>> =
            records.iter().filter(|stored| !known.traces.contains_key(&stored.seq)).collect();
        let built = |stored: &Arc<Outbound>| match &stored.what {
            Payload::Record(record) => tollgate_telemetry::spans(record, Some(self.address)),
            Payload::Spans(batch) => batch.spans(),
            Payload::Passed(_) => Vec::new(),
        };
        let mut enriched: Vec<Vec<Span>> = new.iter().map(|stored| built(stored)).collect();
        share_origins(enriched.iter_mut().flatten());
        if self.plugins.pin().plays(Role::AttributeEnricher) {
            let subjects: Vec<Subject> =
                new.iter().map(|stored| Subject::of(&stored.what)).collect();
            let again = |place: usize| new.get(place).map(|stored| built(stored));
            let again = |place| again(place).unwrap_or_default();
            let role = Role::AttributeEnricher;
            enriched = asked_about(&subjects, enriched, again, role, |tenant, spans| {
                let plugins = self.plugins.pin();
                by_process(&self.resource, spans, |resource, spans| {
                    plugins.enrich(tenant, resource, spans)
                })
            });
        }
        if !self.keeps {
            return enriched.into_iter().map(Arc::new).collect();
        }
        for (stored, spans) in new.iter().zip(enriched) {
            known.keep(stored.seq, spans);
        }
        let known_of = |stored: &Arc<Outbound>| known.traces.get(&stored.seq).cloned();
        let wanted = records.iter().filter_map(known_of).collect();
        known.forget_oldest();
        wanted
    }
}

impl Enriched {
    fn keep(&mut self, seq: Seq, spans: Vec<Span>) {
        self.spans = self.spans.saturating_add(spans.len());
        self.traces.insert(seq, Arc::new(spans));
    }

    /// Until there are no more than may be kept.
    fn forget_oldest(&mut self) {
        while self.traces.len() > KEPT || self.spans > KEPT_SPANS {
            let Some((_, oldest)) = self.traces.pop_first() else { break };
            self.spans = self.spans.saturating_sub(oldest.len());
        }
    }
}

/// The spans of each subject as plugins of one role leave them. Where one failed, `again` gives the
/// spans of a subject as they were.
fn asked_about(
    subjects: &[Subject],
    mut spans: Vec<Vec<Span>>,
    again: impl Fn(usize) -> Vec<Span>,
    role: Role,
    ask: impl Fn(Option<&str>, &mut Vec<Span>) -> Vec<PluginFault>,
) -> Vec<Vec<Span>> {
    let mut tenants: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (place, subject) in subjects.iter().enumerate() {
        tenants.entry(subject.tenant.as_deref()).or_default().push(place);
    }
    for (tenant, company) in tenants {
        if company.len() > 1 {
            if together(&company, &mut spans, |spans| ask(tenant, spans)) {
                continue;
            }
            for place in &company {
                if let Some(spans) = spans.get_mut(*place) {
                    *spans = again(*place);
                }
            }
        }
        for place in company {
            let request = subjects.get(place).and_then(|subject| subject.request.as_ref());
            let _log = request.map(|request| log::span(request.trace, &request.id).entered());
            let Some(answer) = spans.get_mut(place) else { continue };
            let faults = ask(tenant, answer);
            report(&faults);
            // Where the plugin fails closed its spans are not there to be marked.
            mark(answer, request.map(|request| request.root), &faults, role);
        }
    }
    spans
}

/// Asks about spans of several subjects of one tenant at once. False, and they are gone: somebody
/// failed.
fn together(
    company: &[usize],
    spans: &mut [Vec<Span>],
    ask: impl FnOnce(&mut Vec<Span>) -> Vec<PluginFault>,
) -> bool {
    let (mut all, mut order) = (Vec::new(), Vec::new());
    for place in company {
        let Some(own) = spans.get_mut(*place) else { continue };
        order.extend(own.iter().map(|span| (id(span), *place)));
        all.append(own);
    }
    if !ask(&mut all).is_empty() {
        return false;
    }
    // What is left is in the order that it was in. Requests of one client may be in one trace, so a
    // trace's id does not tell them apart.
    let mut order = order.into_iter();
    for span in all {
        let place = order.find(|(of, _)| *of == id(&span)).map(|(_, place)| place);
        if let Some(own) = place.and_then(|place| spans.get_mut(place)) {
            own.push(span);
        }
    }
    true
}

fn id(span: &Span) -> (TraceId, SpanId) {
    (span.context.trace_id, span.context.span_id)
}

/// Asks about spans of one process after the other: ours are of the resource `own`.
fn by_process(
    own: &Resource,
    spans: &mut Vec<Span>,
    mut ask: impl FnMut(&Resource, &mut Vec<Span>) -> Vec<PluginFault>,
) -> Vec<PluginFault> {
    let origin = |span: &Span| span.origin().cloned();
    let of_one = |origin: Option<&Arc<Origin>>, span: &Span| Origin::is_same(origin, span.origin());
    let first = spans.first().and_then(origin);
    if spans.iter().all(|span| of_one(first.as_ref(), span)) {
        return ask(first.as_ref().map_or(own, |origin| &origin.resource), spans);
    }
    let (mut faults, mut done) = (Vec::new(), Vec::with_capacity(spans.len()));
    let mut left = std::mem::take(spans).into_iter().peekable();
    while let Some(first) = left.next() {
        let of = origin(&first);
        let mut company = vec![first];
        while let Some(next) = left.next_if(|next| of_one(of.as_ref(), next)) {
            company.push(next);
        }
        let resource = of.as_ref().map_or(own, |origin| &origin.resource);
        faults.extend(ask(resource, &mut company));
        done.append(&mut company);
    }
    *spans = done;
    faults
}

/// Says on the root span, if it leaves at all, who failed on the trace; of a batch on its first.
fn mark(spans: &mut [Span], root: Option<SpanId>, faults: &[PluginFault], role: Role) {
    let is_root = |span: &&mut Span| root.is_none_or(|root| span.context.span_id == root);
    let Some(root) = spans.iter_mut().find(is_root) else { return };
    let ended = root.interval.end;
    let events = faults.iter().take(FAULTS_MARKED);
    root.events.extend(events.map(|fault| plugin_failed(fault, role.name(), ended)));
}

fn report(faults: &[PluginFault]) {
    for fault in faults {
        tracing::warn!(
            plugin = fault.plugin.name,
            version = fault.plugin.version,
            kind = fault.kind.name(),
            message = fault.message,
            "plugin failed on a delivered trace"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tollgate_domain::{FaultKind, PluginIdentity};

    use super::*;
    use crate::metrics::tests::record;

    fn records(tenants: &[&str]) -> Vec<Payload> {
        let numbered = (1..).zip(tenants);
        numbered
            .map(|(number, tenant)| {
                let mut record = record();
                record.tenant = Some((*tenant).to_owned());
                // All in one trace of the client's.
                (record.trace.trace_id, record.trace.root) = (TraceId(7), SpanId(number));
                Payload::Record(Arc::new(record))
            })
            .collect()
    }

    fn spans(records: &[Payload]) -> Vec<Vec<Span>> {
        let records = records.iter().filter_map(Payload::record);
        records.map(|record| tollgate_telemetry::spans(record, None)).collect()
    }

    fn subjects(records: &[Payload]) -> Vec<Subject> {
        records.iter().map(Subject::of).collect()
    }

    fn asked(
        subjects: &[Subject],
        before: &[Vec<Span>],
        role: Role,
        ask: impl Fn(Option<&str>, &mut Vec<Span>) -> Vec<PluginFault>,
    ) -> Vec<Vec<Span>> {
        asked_about(subjects, before.to_vec(), |place| before[place].clone(), role, ask)
    }

    fn fault() -> PluginFault {
        let [name, version, digest] = ["p", "1.0.0", "d"].map(str::to_owned);
        let plugin = PluginIdentity { name, version, digest };
        PluginFault { plugin, kind: FaultKind::Trap, message: "it trapped".to_owned() }
    }

    #[test]
    fn traces_of_a_tenant_are_asked_about_together_and_keep_their_own_spans() {
        let records = records(&["a", "b", "a"]);
        let (before, subjects) = (spans(&records), subjects(&records));
        let calls = RefCell::new(Vec::new());
        let after = asked(&subjects, &before, Role::ExportFilter, |tenant, spans| {
            calls.borrow_mut().push((tenant.map(str::to_owned), spans.len()));
            spans.retain(|span| span.context.span_id != SpanId(3));
            Vec::new()
        });
        let each = before[0].len();
        let calls = calls.into_inner();
        assert_eq!(calls, [(Some("a".to_owned()), 2 * each), (Some("b".to_owned()), each)]);
        for (after, before) in after.iter().zip(&before) {
            let left = before.iter().filter(|span| span.context.span_id != SpanId(3)).cloned();
            assert_eq!(*after, left.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_trace_suffers_by_its_own_spans_only() {
        let records = records(&["a", "a", "a"]);
        let (before, subjects) = (spans(&records), subjects(&records));
        let after = asked(&subjects, &before, Role::AttributeEnricher, |_, spans| {
            let poisoned = spans.iter().any(|span| span.context.span_id == SpanId(2));
            if !poisoned {
                spans.iter_mut().for_each(|span| span.attributes.set("seen", true));
                return Vec::new();
            }
            spans.pop();
            vec![fault()]
        });
        for (place, (after, before)) in after.iter().zip(&before).enumerate() {
            let failed = place == 1;
            assert_eq!(after.len(), before.len() - usize::from(failed));
            let seen = after.iter().filter(|span| span.attributes.get("seen").is_some());
            assert_eq!(seen.count(), if failed { 0 } else { before.len() });
            assert_eq!(after[0].events.len() - before[0].events.len(), usize::from(failed));
        }
    }
}
