//! Tokens and money by model and tenant: the tutorial's counters, and ours for every currency.
//!
//! Sums are whole pico-units in 128 bits and become doubles when they are written. A counter only
//! grows, so what is below zero, a credit, is summed in a counter of its own.

use std::sync::Arc;

use tollgate_domain::{Currency, Money};
use tollgate_telemetry::metrics::names::{llm, tollgate};
use tollgate_telemetry::metrics::{Family, Snapshot};

use super::OTHER;
use super::bounded::Bounded;
use super::requests::Ended;

/// Most series; models and tenants are bounded before.
pub(super) const PAYERS: usize = 4000;
/// Most currencies of one series; amounts in a further one are on the records only.
const CURRENCIES: usize = 4;

/// By model and tenant.
#[derive(Debug)]
pub(super) struct Spending(Bounded<Payer, Spent>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Payer {
    /// As the client named it.
    model: Arc<str>,
    /// Empty if nobody is known to pay.
    tenant: Arc<str>,
}

#[derive(Debug, Default)]
struct Spent {
    prompt_tokens: u64,
    completion_tokens: u64,
    amounts: Vec<Amount>,
}

/// Of one currency and status.
#[derive(Debug)]
struct Amount {
    currency: Currency,
    status: &'static str,
    charged: i128,
    credited: i128,
}

impl Default for Spending {
    fn default() -> Self {
        Self(Bounded::new(PAYERS))
    }
}

impl Spending {
    pub(super) fn count(&self, ended: &Ended<'_>) {
        let (Some(served), Some(usage)) = (&ended.served, &ended.record.usage) else { return };
        let payer = Payer { model: Arc::clone(&ended.asked), tenant: Arc::clone(&served.tenant) };
        let other = |_| Payer { model: OTHER.into(), tenant: OTHER.into() };
        self.0.update(payer, other, Spent::default, |spent| {
            spent.prompt_tokens = spent.prompt_tokens.saturating_add(usage.tokens.input);
            spent.completion_tokens = spent.completion_tokens.saturating_add(usage.tokens.output);
            if let Some(cost) = ended.record.cost.cost() {
                spent.pay(cost.total, ended.record.cost.status());
            }
        });
    }

    pub(super) fn families(&self, to: &mut Snapshot) {
        let mut prompt = Family::of(&llm::PROMPT_TOKENS);
        let mut completion = Family::of(&llm::COMPLETION_TOKENS);
        let mut total = Family::of(&llm::TOTAL_TOKENS);
        let mut dollars = Family::of(&llm::ESTIMATED_COST_USD);
        let mut charged = Family::of(&tollgate::COST);
        let mut credited = Family::of(&tollgate::COST_CREDIT);
        self.0.each(|Payer { model, tenant }, spent| {
            let labels = [(llm::MODEL, &**model), (llm::USER, &**tenant)];
            prompt.add(labels, spent.prompt_tokens);
            completion.add(labels, spent.completion_tokens);
            total.add(labels, spent.prompt_tokens.saturating_add(spent.completion_tokens));
            if let Some(sum) = spent.charged_in(Currency::USD) {
                dollars.add(labels, sum.to_f64());
            }
            for amount in &spent.amounts {
                let labels = [
                    ("model", &**model),
                    ("tenant", &**tenant),
                    ("currency", amount.currency.code()),
                    ("cost_status", amount.status),
                ];
                charged.add(labels, Money::new(amount.charged, amount.currency).to_f64());
                if amount.credited > 0 {
                    credited.add(labels, Money::new(amount.credited, amount.currency).to_f64());
                }
            }
        });
        to.counters.extend([prompt, completion, total]);
        to.amounts.extend([dollars, charged, credited]);
    }
}

impl Spent {
    fn pay(&mut self, cost: Money, status: &'static str) {
        let same =
            |amount: &&mut Amount| amount.currency == cost.currency && amount.status == status;
        let (charged, credited) = (cost.pico.max(0), cost.pico.min(0).saturating_neg());
        if let Some(amount) = self.amounts.iter_mut().find(same) {
            amount.charged = amount.charged.saturating_add(charged);
            amount.credited = amount.credited.saturating_add(credited);
        } else if self.amounts.len() < CURRENCIES * 2 {
            self.amounts.push(Amount { currency: cost.currency, status, charged, credited });
        }
    }

    /// What has a price in `currency`, if anything has.
    fn charged_in(&self, currency: Currency) -> Option<Money> {
        let mut amounts = self.amounts.iter().filter(|amount| amount.currency == currency);
        let first = amounts.next()?.charged;
        let sum = amounts.fold(first, |sum, amount| sum.saturating_add(amount.charged));
        Some(Money::new(sum, currency))
    }
}
