//! What the last process left behind: requests that were in flight when it ended are priced by
//! what they had used and end as `aborted`, before the first new one is served.

use tollgate_domain::record::Operation;
use tollgate_domain::{CostOutcome, UnpricedReason};
use tollgate_ledger::{Interrupted, Ledger, LedgerError};
use tollgate_plugin_host::PluginHost;
use tracing::Instrument;

use crate::log;

/// Ends them all.
///
/// # Errors
/// If the ledger cannot record it: then nothing can be served either.
pub(crate) async fn end_interrupted(
    ledger: &Ledger,
    plugins: &PluginHost,
    interrupted: Vec<Interrupted>,
) -> Result<(), LedgerError> {
    let found = interrupted.len();
    let set = plugins.pin();
    for Interrupted { ticket, mut record, plugin_set } in interrupted {
        let log = log::span(record.trace.trace_id, &record.id);
        // Only by the prices that the request was admitted under.
        record.cost = match &record.usage {
            Some(_) if record.operation == Operation::Other => {
                CostOutcome::Unpriced { reason: UnpricedReason::UnknownOperation }
            }
            Some(usage) if plugin_set == set.fingerprint() => {
                let price = || set.price(record.tenant.as_deref(), usage);
                log.in_scope(|| tokio::task::block_in_place(price))
            }
            _ => CostOutcome::Unpriced { reason: UnpricedReason::PluginsChanged },
        };
        ledger.finish(ticket, record).instrument(log).await?;
    }
    if found > 0 {
        tracing::warn!(
            requests = found,
            "requests were in flight when the last process ended; they are on record as aborted"
        );
    }
    Ok(())
}
