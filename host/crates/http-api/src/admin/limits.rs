//! Limits and budgets: what keys, tenants and models may use, and have used.
//!
//! ```json
//! {"open": false, "trouble": null, "redis_away": false, "waiting_for_redis": 0,
//!  "keys": [{"id": "key-1", "tenant": "acme", "models": [], "expires": null, "revoked": false, "note": null,
//!    "limits": {"requests_per_minute": 60, "tokens_per_minute": null, "concurrent": null},
//!    "used": {"requests": 3, "tokens": 0, "in_flight": 0},
//!    "budgets": [{"per": "day", "currency": "USD", "amount": "12.5", "spent": "3", "soft_reached": false,
//!      "resets_in_seconds": 3600}]}],
//!  "all_keys": 1, "tenants": [{"name": "acme", "limits": {}, "used": null, "budgets": []}], "all_tenants": 1,
//!  "models": [{"pattern": "gpt-4o*", "limits": {}}], "defaults": {}}
//! ```
//!
//! `used` is null where there is no limit, or Redis counts. At most 1000 keys and tenants are
//! listed; `all_keys` and `all_tenants` say how many there are.

use serde_json::{Map, Value, json};
use tollgate_gateway::{BudgetStanding, KeyStanding, Limits, LimitsStanding, Standing};

use super::requests::time;

/// The whole answer.
pub(super) fn view(all: &LimitsStanding) -> Value {
    let standings = &all.standings;
    let tenant = |(name, standing): &(String, Standing)| with(json!({"name": name}), standing);
    let model = |(pattern, limits): &(String, Limits)| json!({"pattern": pattern, "limits": of_limits(limits)});
    json!({
        "open": all.open,
        "trouble": all.trouble,
        "redis_away": all.limiter.redis_away,
        "waiting_for_redis": all.limiter.waiting,
        "keys": standings.keys.iter().map(of_key).collect::<Vec<_>>(),
        "all_keys": standings.all_keys,
        "tenants": standings.tenants.iter().map(tenant).collect::<Vec<_>>(),
        "all_tenants": standings.all_tenants,
        "models": standings.models.iter().map(model).collect::<Vec<_>>(),
        "defaults": of_limits(&standings.defaults),
    })
}

fn of_key(KeyStanding { key, standing }: &KeyStanding) -> Value {
    let named = json!({
        "id": key.id,
        "tenant": key.tenant,
        "models": key.models,
        "created": key.created.map(time),
        "expires": key.expires.map(time),
        "revoked": key.revoked,
        "note": key.note,
    });
    with(named, standing)
}

fn with(named: Value, standing: &Standing) -> Value {
    let mut fields = match named {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let used = standing.used.map(|used| {
        json!({"requests": used.requests, "tokens": used.tokens, "in_flight": used.in_flight})
    });
    fields.insert("limits".to_owned(), of_limits(&standing.limits));
    fields.insert("used".to_owned(), json!(used));
    let budgets: Vec<Value> = standing.budgets.iter().map(of_budget).collect();
    fields.insert("budgets".to_owned(), json!(budgets));
    Value::Object(fields)
}

fn of_budget(budget: &BudgetStanding) -> Value {
    json!({
        "per": budget.per.name(),
        "currency": budget.amount.currency,
        "amount": budget.amount.decimal(),
        "spent": budget.spent.decimal(),
        "soft_reached": budget.soft_reached,
        "resets_in_seconds": budget.reset_after.map(|wait| wait.as_secs()),
    })
}

fn of_limits(limits: &Limits) -> Value {
    json!({
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
    })
}
