//! Who has had how much: whoever had least is next.
//!
//! Each tenant that has a job here has an account of the tokens it was served ("Fairness in Serving Large Language Models",
//! Sheng et al., 2024). Among tenants that always have something waiting, accounts stay within what one step's running jobs can
//! add. `floor` is what a tenant would have had that had its equal share all along: nobody comes back with a credit below it, so
//! saving up does not pay, and it rises whoever is served, so an endless row of new names does not starve an old one.
//!
//! A tenant that leaves with more than the floor is remembered until the floor has caught up, so that going and coming does not
//! pay either. Only so many are remembered, and none once nothing waits or runs.

use std::collections::{BTreeSet, HashMap};

use crate::sequence::Tenant;

/// What a sampled token counts, in tokens of a prompt: each costs a pass through the whole model, which a prompt's tokens share.
pub(crate) const OUTPUT_WEIGHT: usize = 2;

/// Tenants without jobs that are remembered for what they had beyond their share; beyond as many the smallest is forgotten.
const MAX_DEBTORS: usize = 1024;

/// Parts of a token, so that a share of it is not rounded away.
const SCALE: u64 = 1 << 16;

#[derive(Debug, Default)]
pub(crate) struct Service {
    /// Looked up and never walked, so its order does not matter.
    accounts: HashMap<Tenant, Account>,
    /// Those without jobs, by what they had.
    debtors: BTreeSet<(u64, Tenant)>,
    /// How many have jobs.
    active: u64,
    floor: u64,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    served: u64,
    waiting: usize,
    running: usize,
}

impl Service {
    /// What a tenant with jobs has had.
    pub(crate) fn served(&self, tenant: &Tenant) -> u64 {
        self.accounts.get(tenant).map_or(self.floor, |account| account.served)
    }

    /// A new job of it waits.
    pub(crate) fn submitted(&mut self, tenant: &Tenant) {
        let new = Account { served: self.floor, waiting: 0, running: 0 };
        let account = self.accounts.entry(tenant.clone()).or_insert(new);
        if account.waiting + account.running == 0 {
            self.active += 1;
            self.debtors.remove(&(account.served, tenant.clone()));
        }
        if account.waiting == 0 {
            account.served = account.served.max(self.floor);
        }
        account.waiting += 1;
    }

    /// One that waited runs.
    pub(crate) fn admitted(&mut self, tenant: &Tenant) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.waiting = account.waiting.saturating_sub(1);
            account.running += 1;
        }
    }

    /// One that ran waits again.
    pub(crate) fn preempted(&mut self, tenant: &Tenant) {
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.running = account.running.saturating_sub(1);
            account.waiting += 1;
        }
    }

    /// One that ran, or waited, is gone.
    pub(crate) fn left(&mut self, tenant: &Tenant, ran: bool) {
        let Some(account) = self.accounts.get_mut(tenant) else { return };
        let count = if ran { &mut account.running } else { &mut account.waiting };
        *count = count.saturating_sub(1);
        if account.waiting + account.running > 0 {
            return;
        }
        let served = account.served;
        self.active = self.active.saturating_sub(1);
        if self.active == 0 {
            *self = Self::default();
            return;
        }
        self.debtors.insert((served, tenant.clone()));
        self.forget();
    }

    /// Tokens were computed for a tenant that has jobs.
    pub(crate) fn charge(&mut self, tenant: &Tenant, tokens: usize) {
        let amount = (tokens as u64).saturating_mul(SCALE);
        if let Some(account) = self.accounts.get_mut(tenant) {
            account.served = account.served.saturating_add(amount);
            self.floor = self.floor.saturating_add(amount / self.active.max(1));
            self.forget();
        }
    }

    /// Lets go of those that have no more than anybody who comes, and of the smallest if there are too many.
    fn forget(&mut self) {
        while let Some((served, _)) = self.debtors.first()
            && (*served <= self.floor || self.debtors.len() > MAX_DEBTORS)
            && let Some((_, tenant)) = self.debtors.pop_first()
        {
            self.accounts.remove(&tenant);
        }
    }

    /// Accounts that are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.accounts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: usize) -> Tenant {
        Some(name.to_string().into())
    }

    #[test]
    fn a_debt_is_remembered_until_others_have_caught_up() {
        let mut service = Service::default();
        let [heavy, light] = [tenant(0), tenant(1)];
        service.submitted(&heavy);
        service.submitted(&light);
        service.charge(&heavy, 100);
        service.left(&heavy, false);
        service.submitted(&heavy);
        assert!(service.served(&heavy) > service.served(&light));

        service.left(&heavy, false);
        assert_eq!(service.len(), 2);
        service.charge(&light, 100);
        assert_eq!(service.len(), 1, "the floor has passed what the heavy one had");
        service.submitted(&heavy);
        assert_eq!(service.served(&heavy), service.floor);
    }

    #[test]
    fn nobody_saves_up() {
        let mut service = Service::default();
        let [idle, busy] = [tenant(0), tenant(1)];
        service.submitted(&idle);
        service.admitted(&idle);
        service.submitted(&busy);
        service.charge(&busy, 1_000_000);
        service.submitted(&idle);
        assert_eq!(service.served(&idle), 500_000 * SCALE);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut service = Service::default();
        let stays = tenant(usize::MAX);
        service.submitted(&stays);
        for name in 0..3 * MAX_DEBTORS {
            service.submitted(&tenant(name));
            service.charge(&tenant(name), 1_000_000_000);
            service.left(&tenant(name), false);
            assert!(service.len() <= MAX_DEBTORS + 2);
        }
        service.left(&stays, false);
        assert_eq!(service.len(), 0);
    }
}
