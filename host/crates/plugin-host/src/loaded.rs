//! What is made once for each file and configuration: the compiled component, what it says about itself, and a few warm
//! instances.
//!
//! Policy of the pool: a call takes a warm instance or starts one, and never waits for another call; an instance goes back
//! unless it failed, served its number of calls, has grown too much, or there are enough.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate_domain::{Currency, FaultKind, PluginIdentity};
use wasmtime::component::InstancePre;

use crate::bindings::lifecycle::{ConfigError, HostInfo};
use crate::describe::Described;
use crate::engine::Runtime;
use crate::error::{CallFault, PluginHostError, one_line};
use crate::instance::{Exports, Instance, State};
use crate::log::PluginLog;

/// What a plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Says what a request cost.
    CostModel,
    /// Adds attributes to spans.
    AttributeEnricher,
    /// Says which spans leave, and with what removed.
    ExportFilter,
}

impl Role {
    /// Its name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CostModel => "cost-model",
            Self::AttributeEnricher => "attribute-enricher",
            Self::ExportFilter => "export-filter",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The parts that exist before the plugin has said anything: what a file makes, whatever its configuration.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub runtime: Runtime,
    pub pre: InstancePre<State>,
    pub exports: Exports,
    pub log: Arc<PluginLog>,
}

/// A plugin that may be called.
pub(crate) struct Loaded {
    prepared: Prepared,
    pub identity: PluginIdentity,
    pub described: Described,
    /// Of a cost model.
    pub currency: Currency,
    config: String,
    warm: Mutex<Vec<Instance>>,
    started: AtomicU64,
}

impl Prepared {
    /// A fresh instance that is not configured yet.
    pub fn instance(&self, calls: u32) -> Result<Instance, CallFault> {
        Instance::start(&self.runtime, &self.pre, &self.exports, &self.log, calls)
    }
}

impl Loaded {
    /// Configures a first instance and asks it for its currency.
    pub fn new(
        prepared: Prepared,
        identity: PluginIdentity,
        described: Described,
        config: String,
    ) -> Result<Self, PluginHostError> {
        let mut instance = prepared.instance(1).map_err(PluginHostError::Configure)?;
        let currency = configure(&prepared, &mut instance, &config)?;
        Ok(Self {
            prepared,
            identity,
            described,
            currency,
            config,
            warm: Mutex::new(Vec::new()),
            started: AtomicU64::new(0),
        })
    }

    /// The same file with another configuration: nothing is compiled again.
    pub fn configured(&self, config: &str) -> Result<Self, PluginHostError> {
        let (prepared, identity) = (self.prepared.clone(), self.identity.clone());
        Self::new(prepared, identity, self.described.clone(), config.to_owned())
    }

    /// The configuration, JSON.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// What it does.
    pub fn roles(&self) -> Vec<Role> {
        let exports = &self.prepared.exports;
        let roles = [
            (exports.cost_model.is_some(), Role::CostModel),
            (exports.enricher.is_some(), Role::AttributeEnricher),
            (exports.filter.is_some(), Role::ExportFilter),
        ];
        roles.into_iter().filter_map(|(has, role)| has.then_some(role)).collect()
    }

    /// Whether it does this.
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::CostModel => self.prepared.exports.cost_model.is_some(),
            Role::AttributeEnricher => self.prepared.exports.enricher.is_some(),
            Role::ExportFilter => self.prepared.exports.filter.is_some(),
        }
    }

    /// Most items in one batch of its.
    pub fn max_batch(&self) -> usize {
        let host = self.prepared.runtime.limits.batch_items;
        if self.described.max_batch == 0 { host } else { self.described.max_batch.min(host) }.max(1)
    }

    /// One call with a batch of `items`, on a warm instance or a fresh one. An answer that `lift` refuses costs the
    /// instance like a trap does; an error that the plugin reports in due form does not.
    pub fn call<R, T>(
        &self,
        items: usize,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<R>,
        lift: impl FnOnce(R) -> Result<T, CallFault>,
    ) -> Result<T, CallFault> {
        let limits = &self.prepared.runtime.limits;
        let mut instance = match self.take() {
            Some(instance) => instance,
            None => self.start()?,
        };
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let budget =
            limits.deadline_call.saturating_add(limits.deadline_per_item.saturating_mul(items));
        let answer = instance.call(budget, call).and_then(lift);
        if answer.as_ref().err().is_none_or(|fault| fault.kind == FaultKind::Reported) {
            self.put_back(instance);
        }
        answer
    }

    fn take(&self) -> Option<Instance> {
        self.warm.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop()
    }

    fn put_back(&self, mut instance: Instance) {
        instance.calls_left = instance.calls_left.saturating_sub(1);
        if instance.calls_left == 0 || instance.is_swollen() {
            return;
        }
        let mut warm = self.warm.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if warm.len() < self.prepared.runtime.limits.warm_instances {
            warm.push(instance);
        }
    }

    fn start(&self) -> Result<Instance, CallFault> {
        let unavailable = |why: String| CallFault::new(FaultKind::Unavailable, why);
        let mut instance = self
            .prepared
            .instance(self.lifetime())
            .map_err(|fault| unavailable(format!("no instance of it could be started: {fault}")))?;
        let currency = configure(&self.prepared, &mut instance, &self.config)
            .map_err(|error| unavailable(crate::error::chain(&error)))?;
        if currency != self.currency {
            return Err(unavailable(format!(
                "its currency changed from {} to {currency}",
                self.currency
            )));
        }
        Ok(instance)
    }

    /// Spread over the allowed range, so that instances do not retire together.
    fn lifetime(&self) -> u32 {
        let (least, most) = self.prepared.runtime.limits.calls_per_instance;
        let range = u64::from(most.saturating_sub(least)).saturating_add(1);
        let n =
            self.started.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        least.saturating_add(u32::try_from(n % range).unwrap_or(0)).max(1)
    }
}

/// Time for the calls of a start.
fn configure(
    prepared: &Prepared,
    instance: &mut Instance,
    config: &str,
) -> Result<Currency, PluginHostError> {
    let budget: Duration = prepared.runtime.limits.deadline_start;
    let host = HostInfo { name: "tollgate", version: env!("CARGO_PKG_VERSION") };
    let configured = instance
        .call(budget, |i| i.lifecycle.call_configure(&mut i.store, host, config))
        .map_err(PluginHostError::Configure)?;
    configured.map_err(|error| refused(&error))?;
    let Some(cost_model) = instance.cost_model.clone() else {
        return Ok(Currency::USD);
    };
    let code = instance
        .call(budget, |i| cost_model.call_currency(&mut i.store))
        .map_err(PluginHostError::Configure)?;
    currency(&code)
}

/// What a plugin said against its configuration.
pub(crate) fn refused(error: &ConfigError) -> PluginHostError {
    PluginHostError::Configuration(match error {
        ConfigError::Invalid((at, what)) => {
            format!("at {:?}: {}", one_line(at, 256), one_line(what, 1024))
        }
        ConfigError::Failed(what) => one_line(what, 1024),
    })
}

/// What a plugin said its currency is.
pub(crate) fn currency(code: &str) -> Result<Currency, PluginHostError> {
    Currency::parse(code).ok_or_else(|| PluginHostError::Currency(one_line(code, 32)))
}
