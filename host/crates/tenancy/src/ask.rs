//! Which limits and budgets a request meets, and the names under which they are counted.
//!
//! All names of one tenant begin with the same tag in braces, which Redis Cluster takes for the
//! whole: `{acme}:t`, `{acme}:k:ID`, `{acme}:m:MODEL`, `{acme}:b:t:USD:day:2026-11-26`.

use std::borrow::Cow;
use std::fmt::Write as _;

use tollgate_domain::{Money, UnixNanos};

use crate::admission::{Ask, AskedBudget, AskedScope};
use crate::limiter::Draw;
use crate::limits::{Budget, LARGEST_LIMIT, Limits, Period, Scope};
use crate::principal::Principal;
use crate::rules::Rules;
use crate::secret::Digest;

/// Longest name that is written out.
const NAME_BYTES: usize = 96;
/// Largest cost that is counted: 4 * 10^15 of a currency.
const LARGEST_COST: i128 = 4_000 * 1_000_000_000_000 * 1_000_000_000_000;

/// All that a request asks for.
pub(crate) fn ask(principal: &Principal, model: &str, draw: Draw, now: UnixNanos) -> Ask {
    let tenant = principal.tenant.as_deref();
    let tag = tag(tenant);
    let rules = &principal.rules;
    let allotment = rules.tenant(tenant);
    let mut scopes = Vec::new();
    let mut add = |scope, name: &str, limits: Limits| {
        if !limits.is_empty() {
            scopes.push(AskedScope { scope, name: [&tag, ":", name].concat(), limits });
        }
    };
    if let Some(key) = &principal.key {
        add(Scope::Key, &key_name(&key.id), key.allotment.limits);
    }
    add(Scope::Tenant, "t", allotment.limits);
    let of_model = rules.model(model);
    if !of_model.is_empty() {
        add(Scope::Model, &["m:", &plain(model)].concat(), of_model);
    }
    let mut budgets = Vec::new();
    if let Some(key) = &principal.key {
        let name = key_name(&key.id);
        let of_key = key.allotment.budgets.iter();
        budgets.extend(of_key.map(|b| asked(&tag, Scope::Key, &name, b, now)));
    }
    budgets.extend(allotment.budgets.iter().map(|b| asked(&tag, Scope::Tenant, "t", b, now)));
    if let Some(cost) = draw.cost {
        let cost = Money::new(cost.pico.max(0), cost.currency);
        let costs = estimates(&budgets, cost);
        for (asked, cost) in budgets.iter_mut().zip(costs) {
            asked.estimate = cost;
        }
    }
    // One more than any limit, so that it is refused for ever and not forgotten.
    let tokens = draw.tokens.min(LARGEST_LIMIT + 1);
    Ask { tag, scopes, budgets, tokens, at: now }
}

/// What a cost is to each budget: nothing to those of another currency.
pub(crate) fn estimates(budgets: &[AskedBudget], cost: Money) -> Vec<i128> {
    let pico = cost.pico.clamp(-LARGEST_COST, LARGEST_COST);
    let counts = |asked: &AskedBudget| asked.budget.amount.currency == cost.currency;
    budgets.iter().map(|asked| if counts(asked) { pico } else { 0 }).collect()
}

/// The budgets of a tenant at `now`, each with its tag.
pub(crate) fn tenant_budgets(
    rules: &Rules,
    tenant: Option<&str>,
    now: UnixNanos,
) -> impl Iterator<Item = (String, AskedBudget)> {
    let tag = tag(tenant);
    let budgets = rules.tenant(tenant).budgets.iter();
    budgets.map(move |budget| (tag.clone(), asked(&tag, Scope::Tenant, "t", budget, now)))
}

/// The budgets of a key at `now`, each with its tag.
pub(crate) fn key_budgets<'a>(
    rules: &'a Rules,
    tenant: Option<&str>,
    id: Option<&str>,
    now: UnixNanos,
) -> impl Iterator<Item = (String, AskedBudget)> + use<'a> {
    let tag = tag(tenant);
    let key = id.and_then(|id| rules.key(id));
    let key = key.filter(|key| Some(key.tenant.as_str()) == tenant);
    key.into_iter().flat_map(move |key| {
        let (tag, name) = (tag.clone(), key_name(&key.id));
        let budgets = key.allotment.budgets.iter();
        budgets.map(move |budget| (tag.clone(), asked(&tag, Scope::Key, &name, budget, now)))
    })
}

fn asked(tag: &str, scope: Scope, name: &str, budget: &Budget, now: UnixNanos) -> AskedBudget {
    let period = Period::of(budget.per, now);
    let (currency, per) = (budget.amount.currency, budget.per.name());
    let name = [tag, ":b:", name, ":", currency.code(), ":", per, ":", &period.label()].concat();
    AskedBudget { scope, name, budget: *budget, period, estimate: 0 }
}

pub(crate) fn key_name(id: &str) -> String {
    ["k:", id].concat()
}

/// `{acme}`; of nobody `{~}`, which no name is written as.
pub(crate) fn tag(tenant: Option<&str>) -> String {
    match tenant {
        Some(tenant) => ["{", &plain(tenant), "}"].concat(),
        None => "{~}".to_owned(),
    }
}

/// A name of any characters as one of letters, digits and `-_.%` that no other name has: what is
/// something else is written in hex, and what is long is a digest.
fn plain(name: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() <= NAME_BYTES && name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes().take(NAME_BYTES + 1) {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    if name.len() > NAME_BYTES || text.len() > NAME_BYTES {
        // A percent sign alone is no hex, so no short name looks like it.
        return format!("%{}", Digest::of(name)).into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_plain_and_each_has_its_own() {
        let long = "x".repeat(200);
        let braces = "}{".repeat(40);
        let names =
            ["acme", "a b", "a%20b", "", "~", "a}b", "ä", "%", "x", &long, &long[1..], &braces];
        let mut tags: HashSet<String> = names.iter().map(|name| tag(Some(name))).collect();
        assert!(tags.insert(tag(None)));
        assert_eq!(tags.len(), names.len() + 1);
        for tag in &tags {
            let inner = tag.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            assert!(!inner.contains(['{', '}', ':']) && tag.len() < 128, "{tag}");
        }
    }
}
