//! What is spent of budgets, by who has them.

use tollgate_telemetry::metrics::{Family, Snapshot};
use tollgate_tenancy::{Standing, Standings};

/// Those of tenants have no key among their labels. Amounts are in units of their currency, as doubles, which is what a
/// gauge is; exact ones are in the ledger. At most as many keys and tenants are told of as `standings` has.
pub(super) fn of_budgets(standings: &Standings, to: &mut Snapshot) {
    let mut amount = Family::new("tollgate.budget.amount", "How much a budget is, for its period.");
    let mut spent = Family::new(
        "tollgate.budget.spent",
        "What is spent of a budget in the present period, with what requests in flight have reserved.",
    );
    // No two of one holder have the same period and currency: the file of keys may not have them.
    let mut add = |tenant: &str, key: &str, standing: &Standing| {
        for budget in &standing.budgets {
            let (per, currency) = (budget.per.name(), budget.amount.currency.to_string());
            let labels = [("tenant", tenant), ("key", key), ("per", per), ("currency", &currency)];
            amount.add(labels, budget.amount.to_f64());
            spent.add(labels, budget.spent.to_f64());
        }
    };
    for (name, standing) in &standings.tenants {
        add(name, "", standing);
    }
    for one in &standings.keys {
        add(&one.key.tenant, &one.key.id, &one.standing);
    }
    to.gauges.extend([amount, spent]);
}
