//! A summary as JSON, the same from the command and from the API. Amounts are decimal strings.
//!
//! ```json
//! {"by": ["tenant", "model"], "since": "2026-11-26T00:00:00Z", "until": null,
//!  "groups": [{"tenant": "acme", "model": "m", "requests": 2, "outcomes": {"completed": 2}, "errors": {},
//!    "amounts": [{"currency": "USD", "amount": "0.3", "estimated": "0"}],
//!    "cost_status": {"priced": 2, "estimated": 0, "unpriced": {}, "plugin_failed": {}, "unknown": 0},
//!    "tokens": {"input": 20, "input_cache_read": 0, "input_cache_write": 0, "output": 40, "output_reasoning": 0},
//!    "without_usage": 0, "duration_ms": {"p50": 1.0, "p90": 2.0, "p99": 2.0}, "first_token_ms": null}],
//!  "total": {}}
//! ```
//!
//! `total` is a group without a name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::group::{Dimension, Group, Part, Summary};
use crate::latency::Percentiles;
use crate::request::Tokens;
use crate::time::{Period, shown};

#[derive(Serialize)]
struct WrittenAmount {
    currency: String,
    amount: String,
    /// The part of it that comes from estimated counts.
    estimated: String,
}

#[derive(Serialize)]
struct WrittenGroup<'a> {
    requests: u64,
    outcomes: &'a BTreeMap<String, u64>,
    errors: &'a BTreeMap<String, u64>,
    amounts: Vec<WrittenAmount>,
    cost_status: Value,
    tokens: Tokens,
    without_usage: u64,
    duration_ms: Option<Percentiles>,
    first_token_ms: Option<Percentiles>,
}

impl Summary {
    /// All of it as JSON: `by`, `since`, `until`, `groups` and `total`.
    #[must_use]
    pub fn json(&self, period: Period) -> Value {
        let groups = self.groups.iter().map(|(key, group)| {
            let mut object = Map::new();
            for (by, part) in self.by.iter().zip(key) {
                object.insert(by.name().to_owned(), part.as_ref().map_or(Value::Null, part_json));
            }
            if let Value::Object(figures) = group_json(group) {
                object.extend(figures);
            }
            Value::Object(object)
        });
        json!({
            "by": self.by.iter().map(|by| by.name()).collect::<Vec<_>>(),
            "since": period.since.map(shown),
            "until": period.until.map(shown),
            "groups": groups.collect::<Vec<_>>(),
            "total": group_json(&self.total),
        })
    }
}

impl Dimension {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Model => "model",
            Self::Plugin => "plugin",
            Self::Day => "day",
            Self::Time(_) => "time",
        }
    }
}

fn group_json(group: &Group) -> Value {
    let amounts = group.amounts.iter().map(|money| {
        let estimated = group.estimates.get(money.currency);
        WrittenAmount {
            currency: money.currency.code().to_owned(),
            amount: money.decimal(),
            estimated: estimated.map_or_else(|| "0".to_owned(), |money| money.decimal()),
        }
    });
    json!(WrittenGroup {
        requests: group.requests,
        outcomes: &group.outcomes.0,
        errors: &group.errors.0,
        amounts: amounts.collect(),
        cost_status: json!({
            "priced": group.priced,
            "estimated": group.estimated,
            "unpriced": group.unpriced.0,
            "plugin_failed": group.plugin_failed.0,
            "unknown": group.cost_unknown,
        }),
        tokens: group.tokens,
        without_usage: group.without_usage,
        duration_ms: group.duration.percentiles(),
        first_token_ms: group.first_token.percentiles(),
    })
}

fn part_json(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!(text),
        Part::Day(day) => json!(day),
        Part::Time(time) => json!(shown(*time)),
        Part::Plugin { name, version, digest } => {
            json!({ "name": name, "version": version, "digest": digest })
        }
    }
}
