//! Afterwards: price in the shadow, enrich, build spans, filter for each exporter, hand over. Each
//! exporter goes on at its own pace from there.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tollgate_domain::{PluginFault, Record, Resource, Span, SpanId};
use tollgate_plugin_host::{PluginSet, Role};
use tollgate_telemetry::{ExporterHandle, plugin_failed};

use crate::shadow::Shadow;

/// Most faults of one role that are marked on a trace; all are in the log.
const FAULTS_MARKED: usize = 8;

/// A record and the plugin set its request was admitted under.
pub(crate) struct Finished {
    pub(crate) record: Record,
    pub(crate) plugins: Arc<PluginSet>,
}

/// Delivers records in the order they ended until there can be no more.
pub(crate) async fn run(
    mut queue: mpsc::Receiver<Finished>,
    exporters: Vec<ExporterHandle>,
    resource: Resource,
    address: SocketAddr,
    shadow: Arc<Shadow>,
) -> Vec<ExporterHandle> {
    while let Some(finished) = queue.recv().await {
        price_in_the_shadow(&finished, &shadow);
        deliver(finished, &exporters, &resource, address).await;
    }
    exporters
}

/// Asks the plugins marked shadow what they would have billed, and counts the difference.
fn price_in_the_shadow(Finished { record, plugins }: &Finished, shadow: &Shadow) {
    if let Some(usage) = &record.usage {
        let tenant = record.tenant.as_deref();
        let prices = block_in_place(|| plugins.shadow(tenant, usage));
        shadow.compare(tenant, usage, &record.cost, prices);
    }
}

/// What happens to a request after its answer.
async fn deliver(
    Finished { record, plugins }: Finished,
    exporters: &[ExporterHandle],
    resource: &Resource,
    address: SocketAddr,
) {
    let tenant = record.tenant.as_deref();
    let mut spans = tollgate_telemetry::spans(&record, Some(address));
    let faults = block_in_place(|| plugins.enrich(tenant, resource, &mut spans));
    report(&faults);
    mark(&mut spans, record.trace.root, &faults, Role::AttributeEnricher);
    // All at once: an exporter whose queue is full holds up the next trace, not the other exporters.
    join_all(exporters.iter().map(async |exporter| {
        let bound = spans.clone();
        let filtered = block_in_place(|| plugins.filter(exporter.name(), tenant, resource, bound));
        report(&filtered.faults);
        let mut kept = filtered.kept;
        // Where the filter fails closed its spans are not there to be marked.
        mark(&mut kept, record.trace.root, &filtered.faults, Role::ExportFilter);
        if !kept.is_empty() {
            exporter.deliver(kept).await;
        }
    }))
    .await;
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
