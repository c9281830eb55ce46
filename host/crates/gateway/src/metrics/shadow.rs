//! What plugins marked shadow would have billed, beside what was billed.

use tollgate_telemetry::metrics::{Family, Snapshot};

use super::OTHER;
use crate::shadow::{ShadowGroup, ShadowSeries};

pub(super) fn of_shadow(shadow: &[ShadowSeries], to: &mut Snapshot) {
    let mut requests = Family::new(
        "tollgate.shadow.requests",
        "Requests that a shadow plugin priced too, by how its price stands to the bill.",
    );
    let mut billed = Family::new(
        "tollgate.shadow.billed_cost",
        "What was billed for the requests that a shadow plugin's price can be compared with.",
    );
    let mut cost = Family::new(
        "tollgate.shadow.cost",
        "What a shadow plugin would have billed for those requests.",
    );
    let mut difference = Family::new(
        "tollgate.shadow.cost_difference",
        "What a shadow plugin would have billed less what was billed; in major units.",
    );
    for series in shadow {
        let (model, tenant) = match &series.group {
            ShadowGroup::Of { model, tenant } => {
                (model.as_str(), tenant.as_deref().unwrap_or_default())
            }
            ShadowGroup::Other => (OTHER, OTHER),
        };
        let plugin = ("plugin", series.plugin.name.as_str());
        let version = ("version", series.plugin.version.as_str());
        let file = ("file", &*series.file);
        let (model, tenant) = (("model", model), ("tenant", tenant));
        for (result, count) in &series.requests {
            requests.add([plugin, version, file, model, tenant, ("result", result.name())], *count);
        }
        for amounts in &series.amounts {
            let currency = ("currency", amounts.billed.currency.code());
            let labels = [plugin, version, file, model, tenant, currency];
            billed.add(labels, amounts.billed.to_f64());
            cost.add(labels, amounts.shadow.to_f64());
            difference.add(labels, amounts.difference().to_f64());
        }
    }
    to.counters.push(requests);
    to.gauges.extend([billed, cost, difference]);
}
