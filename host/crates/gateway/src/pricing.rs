//! Asking the cost models of the set that a request was admitted under, from async code.
//!
//! A price takes a microsecond or two, less than it takes to hand a thread's other tasks over. So models are asked in
//! place as long as they are that quick. One that goes bad holds a thread up once, for its deadline at most; from then on
//! it is asked where it holds up nobody.

use tokio::task::block_in_place;
use tollgate_domain::record::{Operation, Record};
use tollgate_domain::{CostOutcome, Money, TokenUsage, UnpricedReason, Usage, usage::Phase};
use tollgate_plugin_host::PluginSet;

use crate::Inner;
use crate::request::Request;

/// What a request cost, or why that is not known.
pub(crate) fn price(
    request: &Request,
    plugins: &PluginSet,
    served: bool,
    usage: &Usage,
) -> CostOutcome {
    let unpriced = |reason| CostOutcome::Unpriced { reason };
    match request.operation {
        _ if !served => unpriced(UnpricedReason::NotServed),
        Operation::Other => unpriced(UnpricedReason::UnknownOperation),
        _ => ask(plugins, || plugins.price(request.tenant(), usage)),
    }
}

/// What a request of so many tokens would cost, if that is known.
pub(crate) fn estimate(
    request: &Request,
    plugins: &PluginSet,
    usage: &Usage,
    (input, output): (u64, u64),
) -> Option<Money> {
    let tokens = TokenUsage { input, output, ..TokenUsage::default() };
    let usage = Usage { phase: Phase::Interim, tokens, ..usage.clone() };
    let price = ask(plugins, || plugins.price(request.tenant(), &usage));
    price.cost().map(|cost| cost.total)
}

impl Inner {
    /// Asks the plugins marked shadow what they would have billed, and counts the difference.
    pub(crate) fn price_in_the_shadow(&self, record: &Record, plugins: &PluginSet) {
        if let Some(usage) = &record.usage {
            let tenant = record.tenant.as_deref();
            let prices = ask(plugins, || plugins.shadow(tenant, usage));
            self.shadow.compare(tenant, usage, &record.cost, prices);
        }
    }
}

fn ask<T>(plugins: &PluginSet, question: impl FnOnce() -> T) -> T {
    match plugins.prices_quickly() {
        true => question(),
        false => block_in_place(question),
    }
}
