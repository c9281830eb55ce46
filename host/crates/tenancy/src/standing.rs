//! What keys, tenants and models may use and what is used of it now, for those who look on.
//!
//! Rates and places are those that this process counts: with Redis they are counted there, and
//! nothing is said of them here. Budgets are as this process last heard of them.

use tollgate_domain::{Money, UnixNanos};

use crate::admission::{AskedBudget, MINUTE};
use crate::allowance::BudgetStanding;
use crate::ask::{key_budgets, key_name, tag, tenant_budgets};
use crate::edit::KeyInfo;
use crate::limits::Limits;
use crate::local::Local;
use crate::rules::{Key, Rules};

/// How everybody stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standings {
    /// Keys, in the order of tenants and ids.
    pub keys: Vec<KeyStanding>,
    /// How many keys there are, with those that are left out.
    pub all_keys: usize,
    /// Tenants that are named, in the order of their names.
    pub tenants: Vec<(String, Standing)>,
    /// How many tenants are named, with those that are left out.
    pub all_tenants: usize,
    /// What each tenant may ask of models, by pattern; the first that matches holds.
    pub models: Vec<(String, Limits)>,
    /// What tenants may use that are not named.
    pub defaults: Limits,
}

/// How a key stands.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyStanding {
    /// The key.
    pub key: KeyInfo,
    /// How it stands.
    pub standing: Standing,
}

/// What somebody may use, and has used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The limits.
    pub limits: Limits,
    /// What is used of them now; none if another place counts.
    pub used: Option<Used>,
    /// The budgets.
    pub budgets: Vec<BudgetStanding>,
}

/// What is used of limits; zero of what has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests that have not flown out yet, rounded up.
    pub requests: u64,
    /// Tokens that have not flown out yet, rounded up.
    pub tokens: u64,
    /// Requests in flight.
    pub in_flight: u64,
}

/// All of it, with at most so many keys and tenants.
pub(crate) fn standings(
    local: &Local,
    rules: &Rules,
    redis: bool,
    most: usize,
    now: UnixNanos,
) -> Standings {
    let look = Look { local, rules, redis, now };
    let mut keys: Vec<&Key> = rules.keys.values().map(|key| &**key).collect();
    keys.sort_by(|a, b| (&a.tenant, &a.id).cmp(&(&b.tenant, &b.id)));
    let mut tenants: Vec<&String> = rules.tenants().map(|(name, _)| name).collect();
    tenants.sort();
    Standings {
        all_keys: keys.len(),
        keys: keys.into_iter().take(most).map(|key| look.key(key)).collect(),
        all_tenants: tenants.len(),
        tenants: tenants
            .into_iter()
            .take(most)
            .map(|name| (name.clone(), look.tenant(name)))
            .collect(),
        models: rules.models().collect(),
        defaults: rules.defaults(),
    }
}

struct Look<'a> {
    local: &'a Local,
    rules: &'a Rules,
    redis: bool,
    now: UnixNanos,
}

impl Look<'_> {
    fn key(&self, key: &Key) -> KeyStanding {
        let tenant = Some(key.tenant.as_str());
        let budgets = key_budgets(self.rules, tenant, Some(&key.id), self.now);
        let limits = key.allotment.limits;
        let standing = self.standing(tenant, &key_name(&key.id), limits, budgets);
        let key = KeyInfo {
            id: key.id.clone(),
            tenant: key.tenant.clone(),
            models: key.models.iter().map(|pattern| pattern.pattern()).collect(),
            created: key.created,
            expires: key.expires,
            revoked: key.revoked,
            note: key.note.clone(),
        };
        KeyStanding { key, standing }
    }

    fn tenant(&self, name: &str) -> Standing {
        let budgets = tenant_budgets(self.rules, Some(name), self.now);
        self.standing(Some(name), "t", self.rules.tenant(Some(name)).limits, budgets)
    }

    fn standing(
        &self,
        tenant: Option<&str>,
        name: &str,
        limits: Limits,
        budgets: impl Iterator<Item = (String, AskedBudget)>,
    ) -> Standing {
        let tag = tag(tenant);
        let used = (!self.redis && !limits.is_empty()).then(|| {
            let seen = self.local.used(&tag, &format!("{tag}:{name}"), &limits, self.now);
            Used {
                requests: seen.requests.div_ceil(MINUTE),
                tokens: seen.tokens.div_ceil(MINUTE),
                in_flight: seen.in_flight,
            }
        });
        let budgets = budgets.map(|(tag, asked)| {
            let spent = self.local.spend(&tag, &asked.name).total();
            BudgetStanding {
                scope: asked.scope,
                per: asked.budget.per,
                amount: asked.budget.amount,
                spent: Money::new(spent, asked.budget.amount.currency),
                soft_reached: spent >= asked.budget.soft.pico,
                reset_after: asked.period.remaining(self.now),
            }
        });
        Standing { limits, used, budgets: budgets.collect() }
    }
}
