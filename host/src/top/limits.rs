//! What keys and tenants may use and have used, as `GET /admin/limits` tells it: those first that are nearest to an end.

use serde::Deserialize;

/// `GET /admin/limits`, as far as it is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Standings {
    keys: Vec<Standing>,
    tenants: Vec<Standing>,
}

#[derive(Clone, Debug, Deserialize)]
struct Standing {
    /// Of a tenant.
    name: Option<String>,
    /// Of a key.
    id: Option<String>,
    limits: Counts,
    /// None where Redis counts, or nothing does.
    used: Option<Used>,
    budgets: Vec<Budget>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Counts {
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Used {
    requests: u64,
    tokens: u64,
    in_flight: u64,
}

/// Amounts are exact decimal text, and shown as they are.
#[derive(Clone, Debug, Deserialize)]
struct Budget {
    per: String,
    currency: String,
    amount: String,
    spent: String,
}

impl Standings {
    /// Who, requests and tokens a minute, requests at once, and a budget; a row more for each further budget.
    pub(super) fn rows(&self) -> Vec<[String; 5]> {
        let mut rows: Vec<(f64, [String; 5])> =
            self.tenants.iter().chain(&self.keys).flat_map(Standing::rows).collect();
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

impl Standing {
    /// Each with the largest share that is used of what it tells; none of who has neither limits nor budgets.
    fn rows(&self) -> Vec<(f64, [String; 5])> {
        let who = match (&self.name, &self.id) {
            (Some(name), _) => format!("tenant {name}"),
            (None, id) => format!("key {}", id.as_deref().unwrap_or("-")),
        };
        let used = |of: fn(&Used) -> u64| self.used.as_ref().map(of);
        let counts = [
            (used(|used| used.requests), self.limits.requests_per_minute),
            (used(|used| used.tokens), self.limits.tokens_per_minute),
            (used(|used| used.in_flight), self.limits.concurrent),
        ];
        let share_of_counts = counts.iter().map(|(used, limit)| count_share(*used, *limit));
        let share_of_counts = share_of_counts.fold(0.0, f64::max);
        let [requests, tokens, at_once] = counts.map(|(used, limit)| count(used, limit));
        let mut budgets = self.budgets.iter().map(|budget| (budget.share(), budget.text()));
        let first = budgets.next();
        if first.is_none() && counts.iter().all(|(_, limit)| limit.is_none()) {
            return Vec::new();
        }
        let (share, budget) = first.unwrap_or((0.0, "-".to_owned()));
        let mut rows =
            vec![(share.max(share_of_counts), [who.clone(), requests, tokens, at_once, budget])];
        let none = || "-".to_owned();
        rows.extend(
            budgets.map(|(share, budget)| (share, [who.clone(), none(), none(), none(), budget])),
        );
        rows
    }
}

impl Budget {
    fn text(&self) -> String {
        format!("{} of {} {} ({})", self.spent, self.amount, self.currency, self.per)
    }

    /// For the order of rows only.
    fn share(&self) -> f64 {
        let number = |text: &str| text.parse::<f64>().ok();
        match (number(&self.spent), number(&self.amount)) {
            (Some(spent), Some(amount)) if amount > 0.0 => spent / amount,
            // A budget of nothing is spent.
            _ => 1.0,
        }
    }
}

fn count(used: Option<u64>, limit: Option<u64>) -> String {
    match (used, limit) {
        (_, None) => "-".to_owned(),
        (None, Some(limit)) => format!("? of {limit}"),
        (Some(used), Some(limit)) => format!("{used} of {limit}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for the order of rows only")]
fn count_share(used: Option<u64>, limit: Option<u64>) -> f64 {
    match (used, limit) {
        (Some(used), Some(limit)) => used as f64 / limit.max(1) as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn those_nearest_to_an_end_come_first() {
        let budget = |spent: &str| json!({"per": "day", "currency": "USD", "amount": "12.5", "spent": spent});
        let standings: Standings = serde_json::from_value(json!({
            "open": false,
            "tenants": [
                {"name": "idle", "limits": {}, "used": null, "budgets": []},
                {"name": "acme", "limits": {"requests_per_minute": 600, "concurrent": 8},
                 "used": {"requests": 3, "tokens": 0, "in_flight": 1}, "budgets": [budget("1"), budget("12")]},
            ],
            "keys": [
                {"id": "key-1", "tenant": "acme", "limits": {"tokens_per_minute": 100},
                 "used": {"requests": 0, "tokens": 50, "in_flight": 0}, "budgets": []},
                {"id": "key-2", "tenant": "acme", "limits": {"requests_per_minute": 60}, "used": null, "budgets": []},
            ],
        }))
        .unwrap();
        assert_eq!(
            standings.rows(),
            [
                ["tenant acme", "-", "-", "-", "12 of 12.5 USD (day)"],
                ["key key-1", "-", "50 of 100", "-", "-"],
                ["tenant acme", "3 of 600", "-", "1 of 8", "1 of 12.5 USD (day)"],
                ["key key-2", "? of 60", "-", "-", "-"],
            ]
        );
    }
}
