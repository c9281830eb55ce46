//! What shadow plugins would have billed, as JSON:
//!
//! ```json
//! {"series": [{"file": "new.wasm", "plugin": {"name": "..", "version": "..", "digest": ".."},
//!   "other": false, "model": "m", "tenant": "t",
//!   "requests": {"same": 0, "cheaper": 2, "dearer": 0, "unpriced": 0, "failed": 0, "incomparable": 0},
//!   "amounts": [{"currency": "USD", "billed": "0.4", "shadow": "0.3", "difference": "-0.1"}]}]}
//! ```
//!
//! `tenant` is null where nobody is named. The series with `other` holds all requests that have no
//! series of their own; its `model` and `tenant` are null. All is counted since the gateway began;
//! what changed since is the difference of two readings.

use serde_json::{Map, Value, json};
use tollgate_gateway::{ShadowAmounts, ShadowGroup, ShadowResult, ShadowSeries};

/// The whole answer.
pub(super) fn view(series: &[ShadowSeries]) -> Value {
    json!({"series": series.iter().map(one).collect::<Vec<_>>()})
}

fn one(series: &ShadowSeries) -> Value {
    let (other, model, tenant) = match &series.group {
        ShadowGroup::Of { model, tenant } => (false, Some(model), tenant.as_ref()),
        ShadowGroup::Other => (true, None, None),
    };
    let requests: Map<String, Value> = ShadowResult::ALL
        .iter()
        .map(|result| {
            let count = series.requests.get(result).copied().unwrap_or_default();
            (result.name().to_owned(), count.into())
        })
        .collect();
    json!({
        "file": &*series.file,
        "plugin": *series.plugin,
        "other": other,
        "model": model,
        "tenant": tenant,
        "requests": requests,
        "amounts": series.amounts.iter().map(amounts).collect::<Vec<_>>(),
    })
}

fn amounts(amounts: &ShadowAmounts) -> Value {
    json!({
        "currency": amounts.billed.currency,
        "billed": amounts.billed.decimal(),
        "shadow": amounts.shadow.decimal(),
        "difference": amounts.difference().decimal(),
    })
}

#[cfg(test)]
mod tests {
    use tollgate_domain::{Currency, Money, PluginIdentity};

    use super::*;

    #[test]
    fn amounts_are_exact_strings() {
        let usd = |pico| Money::new(pico, Currency::USD);
        let plugin = PluginIdentity {
            name: "acme/flat".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "ab".to_owned(),
        };
        let series = ShadowSeries {
            file: "new.wasm".into(),
            plugin: plugin.into(),
            group: ShadowGroup::Of { model: "m".to_owned(), tenant: Some("t".to_owned()) },
            requests: [(ShadowResult::Cheaper, 2)].into(),
            amounts: vec![ShadowAmounts {
                // More digits than a double has.
                billed: usd(123_456_789_012_345_678_901_234),
                shadow: usd(123_456_789_012_345_678_901_233),
            }],
        };
        let other = ShadowSeries { group: ShadowGroup::Other, ..series.clone() };
        let view = view(&[series, other]);
        let one = &view["series"][0];
        assert_eq!((&one["model"], &one["tenant"]), (&json!("m"), &json!("t")));
        assert_eq!((&one["requests"]["cheaper"], &one["requests"]["same"]), (&json!(2), &json!(0)));
        assert_eq!(
            one["amounts"][0],
            json!({"currency": "USD", "billed": "123456789012.345678901234",
                   "shadow": "123456789012.345678901233", "difference": "-0.000000000001"})
        );
        let other = &view["series"][1];
        assert_eq!(
            (&other["other"], &other["model"], &other["tenant"]),
            (&json!(true), &Value::Null, &Value::Null)
        );
    }
}
