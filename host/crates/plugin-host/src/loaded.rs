//! What is made once for each file and configuration: the compiled component, what it says about itself, its warm
//! instances, its breaker and its figures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tollgate_domain::text::one_line;
use tollgate_domain::{Currency, FaultKind, PluginIdentity};
use wasmtime::component::InstancePre;

use crate::bindings::lifecycle::{ConfigError, HostInfo};
use crate::breaker::{Breaker, Pass};
use crate::calls::Exports;
use crate::describe::Described;
use crate::engine::Runtime;
use crate::error::{CallFault, PluginHostError};
use crate::folder::digest_of;
use crate::instance::{Instance, State};
use crate::limits::Limits;
use crate::log::PluginLog;
use crate::manifest::{Entry, Isolation};
use crate::meter::{InstanceMeter, Tally};
use crate::pool::Pool;
use crate::role::Role;
use crate::stopwatch::Stopwatch;
use crate::watch::Reminder;

/// How long a plugin that is to serve waits for room for its first instances: calls end by their deadlines.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call that takes longer is one to make where it holds nobody up.
const QUICK: Duration = Duration::from_micros(250);

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
    pub identity: Arc<PluginIdentity>,
    pub described: Described,
    /// Of a cost model.
    pub currency: Currency,
    config: String,
    /// Of the configuration, if it is not empty.
    pub config_digest: Option<String>,
    pub isolation: Isolation,
    shadow: bool,
    pool: Arc<Pool>,
    pub breaker: Breaker,
    pub tally: Arc<Tally>,
    /// Wakes whoever decides about a rollback when the breaker opens.
    alarm: OnceLock<SyncSender<Reminder>>,
    started: AtomicU64,
    /// Whether its last call took long.
    slow: AtomicBool,
}

/// For whom a call is.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub role: Role,
    pub tenant: Option<&'a str>,
    pub items: usize,
    /// A trial is counted nowhere and asks no breaker.
    pub trial: bool,
}

impl Prepared {
    /// Whether the component does this.
    pub fn has(&self, role: Role) -> bool {
        self.exports.has(role)
    }

    /// What the component does.
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.has(*role)).collect()
    }

    /// A fresh instance that is not configured yet.
    pub fn instance(&self, calls: u32) -> Result<Instance, CallFault> {
        Instance::start(&self.runtime, &self.pre, &self.exports, &self.log, calls)
    }

    /// The same for one that no request waits for: it has patience until a call makes room.
    pub fn instance_in_time(&self, calls: u32) -> Result<Instance, CallFault> {
        let since = Instant::now();
        loop {
            match self.instance(calls) {
                Err(fault) if fault.is_full() && since.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                started => return started,
            }
        }
    }
}

impl Loaded {
    /// Configures a first instance and asks it for its currency.
    pub fn new(
        prepared: Prepared,
        identity: Arc<PluginIdentity>,
        described: Described,
        entry: &Entry,
    ) -> Result<Self, PluginHostError> {
        let mut instance = prepared.instance_in_time(1).map_err(PluginHostError::Configure)?;
        let currency = configure(&prepared, &mut instance, &entry.config)?;
        let pool = Arc::new(Pool::new(entry.isolation, &prepared.runtime.limits));
        prepared.runtime.pools.add(&pool);
        Ok(Self {
            pool,
            prepared,
            identity,
            described,
            currency,
            config: entry.config.clone(),
            config_digest: config_digest(&entry.config),
            isolation: entry.isolation,
            shadow: entry.shadow,
            breaker: Breaker::new(),
            tally: Arc::default(),
            alarm: OnceLock::new(),
            started: AtomicU64::new(0),
            slow: AtomicBool::new(false),
        })
    }

    /// The same file with another configuration or other limits: nothing is compiled again.
    pub fn configured(&self, runtime: &Runtime, entry: &Entry) -> Result<Self, PluginHostError> {
        let prepared = Prepared { runtime: runtime.clone(), ..self.prepared.clone() };
        Self::new(prepared, Arc::clone(&self.identity), self.described.clone(), entry)
    }

    /// Whether it was made with these settings. What runs in the shadow is never the same as what does not, so that each
    /// has figures and a breaker of its own.
    pub fn is_set_up_as(&self, entry: &Entry, host: &Arc<Limits>) -> bool {
        self.config == entry.config
            && self.isolation == entry.isolation
            && self.shadow == entry.shadow
            && *self.limits() == *entry.limits(host)
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.prepared.runtime.limits
    }

    /// The configuration it was given, as JSON.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// What it does.
    pub fn roles(&self) -> Vec<Role> {
        self.prepared.roles()
    }

    /// Whether it does this.
    pub fn has(&self, role: Role) -> bool {
        self.prepared.has(role)
    }

    /// Whether its last call was a matter of microseconds, trials before it served included.
    pub fn is_quick(&self) -> bool {
        !self.slow.load(Ordering::Relaxed)
    }

    /// Most items in one batch of its.
    pub fn max_batch(&self) -> usize {
        let host = self.limits().batch_items;
        if self.described.max_batch == 0 { host } else { self.described.max_batch.min(host) }.max(1)
    }

    /// From now on `alarm` hears when the breaker opens.
    pub fn raise(&self, alarm: &SyncSender<Reminder>) {
        self.alarm.get_or_init(|| alarm.clone());
    }

    /// Lets its warm instances go. It can still be called.
    pub fn rest(&self) {
        self.pool.clear();
    }

    /// One call, on a warm instance or a fresh one, unless the breaker is open. An answer that `lift` refuses costs the
    /// instance like a trap does; an error that the plugin reports in due form does not.
    pub fn call<R, T>(
        &self,
        caller: Caller<'_>,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<R>,
        lift: impl FnOnce(R) -> Result<T, CallFault>,
    ) -> Result<T, CallFault> {
        if caller.trial {
            return self.run(caller, call, lift);
        }
        let pass = self.breaker.admit().map_err(|refused| {
            self.tally.fault(caller.role, FaultKind::BreakerOpen);
            refused.fault
        })?;
        let answer = self.run(caller, call, lift);
        match &answer {
            Ok(_) => self.breaker.succeeded(pass),
            Err(fault) => self.failed(caller.role, pass, fault),
        }
        answer
    }

    fn run<R, T>(
        &self,
        caller: Caller<'_>,
        call: impl FnOnce(&mut Instance) -> wasmtime::Result<R>,
        lift: impl FnOnce(R) -> Result<T, CallFault>,
    ) -> Result<T, CallFault> {
        let Caller { role, tenant, items, trial } = caller;
        let watch = Stopwatch::start();
        let taken = self.pool.take(tenant).map_or_else(|| self.start(tenant, trial), Ok);
        let mut instance = taken.inspect_err(|_| {
            if !trial {
                self.tally.ended_without_instance(role, items, watch.nanos());
            }
        })?;
        instance.meter.at_work(true);
        let limits = self.limits();
        let factor = u32::try_from(items).unwrap_or(u32::MAX);
        let budget =
            limits.deadline_call.saturating_add(limits.deadline_per_item.saturating_mul(factor));
        let answer = instance.call(budget, call).and_then(lift);
        let now = Stopwatch::start();
        let nanos = watch.nanos_until(now);
        if !trial {
            instance.meter.ended(role, items, nanos);
        }
        self.took(nanos);
        instance.meter.memory(instance.memory());
        instance.meter.at_work(false);
        if answer.as_ref().err().is_none_or(|fault| fault.kind == FaultKind::Reported) {
            self.pool.put_back(instance, now);
        }
        answer
    }

    /// Written only when it changes, so that processors do not take the line from one another with each call.
    fn took(&self, nanos: u64) {
        let slow = u128::from(nanos) > QUICK.as_nanos();
        if self.slow.load(Ordering::Relaxed) != slow {
            self.slow.store(slow, Ordering::Relaxed);
        }
    }

    #[cold]
    fn failed(&self, role: Role, pass: Pass, fault: &CallFault) {
        self.tally.fault(role, fault.kind);
        if fault.kind == FaultKind::Reported && !fault.blames_plugin {
            // It answered, if only that it cannot price this one.
            self.breaker.succeeded(pass);
        } else if fault.blames_plugin && self.breaker.failed(pass, fault) {
            tracing::error!(
                plugin = self.identity.name,
                version = self.identity.version,
                digest = self.identity.digest,
                role = role.name(),
                fault = %fault,
                "plugin failed too often; it is not asked for a while"
            );
            if let Some(alarm) = self.alarm.get() {
                // A reminder that waits already will do.
                let _ = alarm.try_send(Reminder);
            }
        }
    }

    fn start(&self, tenant: Option<&str>, trial: bool) -> Result<Box<Instance>, CallFault> {
        let unavailable = |why: String| CallFault::new(FaultKind::Unavailable, why);
        let calls = self.lifetime();
        let started = match trial {
            true => self.prepared.instance_in_time(calls),
            false => self.prepared.instance(calls),
        };
        let mut instance = started.map_err(|fault| {
            let blames_plugin = fault.blames_plugin;
            let why = format!("no instance of it could be started: {fault}");
            CallFault { blames_plugin, ..unavailable(why) }
        })?;
        instance.meter = InstanceMeter::new(&self.tally);
        let currency = configure(&self.prepared, &mut instance, &self.config)
            .map_err(|error| unavailable(crate::error::chain(&error)))?;
        if currency != self.currency {
            return Err(unavailable(format!(
                "its currency changed from {} to {currency}",
                self.currency
            )));
        }
        self.pool.bind(&mut instance, tenant);
        Ok(Box::new(instance))
    }

    /// Spread over the allowed range, so that instances do not retire together.
    fn lifetime(&self) -> u32 {
        let (least, most) = self.limits().calls_per_instance;
        let range = u64::from(most.saturating_sub(least)).saturating_add(1);
        let n =
            self.started.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        least.saturating_add(u32::try_from(n % range).unwrap_or(0)).max(1)
    }
}

/// SHA-256 of a configuration that is not empty.
pub(crate) fn config_digest(config: &str) -> Option<String> {
    (config != Entry::default().config).then(|| digest_of(config.as_bytes()))
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
        .call(budget, |i| i.functions.lifecycle.call_configure(&mut i.store, host, config))
        .map_err(PluginHostError::Configure)?;
    configured.map_err(|error| refused(&error))?;
    let Some(cost_model) = instance.functions.cost_model else {
        return Ok(Currency::USD);
    };
    let (code,) = instance
        .call(budget, |i| cost_model.currency.call(&mut i.store, ()))
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
