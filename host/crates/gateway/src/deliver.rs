//! Afterwards: price in the shadow, enrich, build spans, filter for each exporter, hand over. Each
//! exporter goes on at its own pace from there.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::block_in_place;
use tollgate_domain::{PluginFault, Record, Resource};
use tollgate_plugin_host::PluginSet;
use tollgate_telemetry::ExporterHandle;

use crate::shadow::Shadow;

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
    report(block_in_place(|| plugins.enrich(tenant, resource, &mut spans)));
    // All at once: an exporter whose queue is full holds up the next trace, not the other exporters.
    join_all(exporters.iter().map(async |exporter| {
        let bound = spans.clone();
        let filtered = block_in_place(|| plugins.filter(exporter.name(), tenant, resource, bound));
        report(filtered.faults);
        if !filtered.kept.is_empty() {
            exporter.deliver(filtered.kept).await;
        }
    }))
    .await;
}

fn report(faults: Vec<PluginFault>) {
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
