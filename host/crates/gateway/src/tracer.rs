//! From a record to the spans that may leave: built, enriched, filtered for one exporter.
//!
//! Enrichers and filters are those that serve when a record is delivered, not those that it was
//! admitted under: what an operator redacts now is redacted in what still waits, too. Each record
//! is enriched once, whichever exporter comes first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tollgate_domain::{PluginFault, Resource, Span, SpanId};
use tollgate_ledger::{Seq, Stored};
use tollgate_plugin_host::{PluginHost, Role};
use tollgate_telemetry::plugin_failed;

use crate::log;

/// Enriched traces that are kept for the exporters that come after the first.
const KEPT: usize = 1024;

/// Most faults of one role that are marked on a trace; all are in the log.
const FAULTS_MARKED: usize = 8;

/// What turns records into spans.
pub(crate) struct Tracer {
    plugins: PluginHost,
    resource: Resource,
    address: SocketAddr,
    recent: Mutex<BTreeMap<Seq, Arc<OnceLock<Vec<Span>>>>>,
}

impl Tracer {
    pub(crate) fn new(plugins: PluginHost, resource: Resource, address: SocketAddr) -> Self {
        Self { plugins, resource, address, recent: Mutex::default() }
    }

    /// The spans of a record that may leave through `exporter`; calls plugins, so it blocks.
    pub(crate) fn bound_for(&self, exporter: &str, stored: &Stored) -> Vec<Span> {
        let record = &stored.record;
        let _log = log::span(record.trace.trace_id, &record.id).entered();
        let tenant = record.tenant.as_deref();
        let place = self.place(stored.seq);
        let enriched = place.get_or_init(|| self.enriched(stored)).clone();
        let filtered = self.plugins.pin().filter(exporter, tenant, &self.resource, enriched);
        report(&filtered.faults);
        let mut kept = filtered.kept;
        // Where the filter fails closed its spans are not there to be marked.
        mark(&mut kept, record.trace.root, &filtered.faults, Role::ExportFilter);
        kept
    }

    fn enriched(&self, stored: &Stored) -> Vec<Span> {
        let record = &stored.record;
        let tenant = record.tenant.as_deref();
        let mut spans = tollgate_telemetry::spans(record, Some(self.address));
        let faults = self.plugins.pin().enrich(tenant, &self.resource, &mut spans);
        report(&faults);
        mark(&mut spans, record.trace.root, &faults, Role::AttributeEnricher);
        spans
    }

    /// Where the enriched trace of an entry is kept, or will be.
    fn place(&self, seq: Seq) -> Arc<OnceLock<Vec<Span>>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Arc::clone(recent.entry(seq).or_default());
        if recent.len() > KEPT {
            recent.pop_first();
        }
        place
    }
}

/// Says on the root span, if it leaves at all, who failed on the trace.
fn mark(spans: &mut [Span], root: SpanId, faults: &[PluginFault], role: Role) {
    let Some(root) = spans.iter_mut().find(|span| span.context.span_id == root) else { return };
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
