//! What a plugin set answers to a case, as JSON that an author can read and keep.

use serde_json::{Map, Value as Json, json};
use tollgate_domain::span::Attributes;
use tollgate_domain::{CostLine, CostOutcome, Money, PluginFault, Span};

use super::Case;
use crate::role::Role;
use crate::set::PluginSet;

/// One answer for each usage; each span as enrichers and then as filters leave it.
pub(super) fn of(case: &Case, set: &PluginSet) -> Json {
    let mut answer = Map::new();
    let tenant = case.tenant.as_deref();
    if set.plays(Role::CostModel) {
        let prices = case.usages.iter().map(|usage| price(&set.price(tenant, usage)));
        answer.insert("prices".to_owned(), prices.collect());
    }
    let mut faults = Vec::new();
    if set.plays(Role::AttributeEnricher) {
        let mut spans = case.spans.clone();
        faults.extend(set.enrich(tenant, &case.resource, &mut spans));
        answer.insert(
            "enriched".to_owned(),
            spans.iter().map(|s| attributes(&s.attributes)).collect(),
        );
    }
    if set.plays(Role::ExportFilter) {
        let filtered = set.filter(&case.exporter, tenant, &case.resource, case.spans.clone());
        let left = |span: &Span| {
            let id = span.context.span_id;
            match filtered.kept.iter().find(|kept| kept.context.span_id == id) {
                Some(kept) => json!({ "kept": attributes(&kept.attributes) }),
                None => json!("dropped"),
            }
        };
        answer.insert("filtered".to_owned(), case.spans.iter().map(left).collect());
        faults.extend(filtered.faults);
    }
    if !faults.is_empty() {
        answer.insert("faults".to_owned(), faults.iter().map(fault).collect());
    }
    Json::Object(answer)
}

fn price(outcome: &CostOutcome) -> Json {
    let status = outcome.status();
    match outcome {
        CostOutcome::Priced(cost) | CostOutcome::Estimated(cost) => {
            let lines: Vec<Json> = cost.lines.iter().map(|l| line(l, &cost.total)).collect();
            json!({
                "status": status, "total": cost.total.decimal(),
                "currency": cost.total.currency.code(), "lines": lines,
            })
        }
        CostOutcome::Unpriced { reason } => json!({ "status": status, "reason": reason.name() }),
        CostOutcome::PluginFailed(failed) => {
            json!({ "status": status, "reason": failed.kind.name(), "message": failed.message })
        }
    }
}

fn line(line: &CostLine, total: &Money) -> Json {
    let amount = Money::new(i128::from(line.amount_pico), total.currency).decimal();
    json!({ "kind": line.kind, "quantity": line.quantity, "amount": amount })
}

fn fault(fault: &PluginFault) -> Json {
    json!({ "reason": fault.kind.name(), "message": fault.message })
}

fn attributes(attributes: &Attributes) -> Json {
    attributes.iter().map(|(key, value)| (key.to_string(), json!(value))).collect()
}
