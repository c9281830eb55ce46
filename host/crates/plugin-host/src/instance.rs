//! One running copy of a plugin: its store, what it may use, and one call.
//!
//! Invariants: a store holds one plugin's one instance; everything that limits it is set before it is instantiated; an
//! instance that failed in any way is never used again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tollgate_domain::FaultKind;
use wasmtime::component::InstancePre;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::calls::{Exports, Functions};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::engine::{Runtime, TABLE_ELEMENTS};
use crate::error::CallFault;
use crate::log::PluginLog;
use crate::meter::InstanceMeter;
use crate::stopwatch::Stopwatch;
use crate::wasi::Wasi;

/// Most resource handles of an instance.
const HANDLES: usize = 1_000;

/// What the store of an instance holds for the host.
pub(crate) struct State {
    pub log: Arc<PluginLog>,
    pub wasi: Wasi,
    pub memory: Memory,
    pub deadline: Deadline,
    pub clock: Clock,
}

/// One running copy.
pub(crate) struct Instance {
    pub store: Store<State>,
    pub functions: Functions,
    /// Calls it may still serve.
    pub calls_left: u32,
    /// The only tenant it may serve, where instances are kept apart by tenant.
    pub tenant: Option<Box<str>>,
    /// When its last call ended.
    pub last_used: Stopwatch,
    pub meter: InstanceMeter,
    /// Where to write what a call used, if the engine counts instructions.
    fuel: Option<Arc<AtomicU64>>,
}

impl Instance {
    /// Starts a copy, where no place is free in that of a warm one of whatever plugin. Only the component's own start code
    /// runs.
    pub fn start(
        runtime: &Runtime,
        pre: &InstancePre<State>,
        exports: &Exports,
        log: &Arc<PluginLog>,
        calls_left: u32,
    ) -> Result<Self, CallFault> {
        loop {
            match Self::start_in_place(runtime, pre, exports, log, calls_left) {
                Ok(instance) => return Ok(instance),
                Err(NotStarted::Failed(fault)) => return Err(fault),
                Err(NotStarted::Full) if runtime.pools.let_the_oldest_go() => {}
                Err(NotStarted::Full) => return Err(CallFault::full()),
            }
        }
    }

    fn start_in_place(
        runtime: &Runtime,
        pre: &InstancePre<State>,
        exports: &Exports,
        log: &Arc<PluginLog>,
        calls_left: u32,
    ) -> Result<Self, NotStarted> {
        let limits = &runtime.limits;
        let state = State {
            log: Arc::clone(log),
            wasi: Wasi::default(),
            memory: Memory::new(limits.memory_bytes),
            deadline: Deadline::default(),
            clock: runtime.clock.clone(),
        };
        let mut store = Store::new(&runtime.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.result_bytes);
        store.set_max_component_handles(HANDLES);
        store.epoch_deadline_callback(|mut store| {
            let state = store.data_mut();
            let answer = state.deadline.expired();
            if let UpdateDeadline::Continue(ticks) = answer {
                state.clock.run_for(ticks);
            }
            Ok(answer)
        });
        arm(&mut store, limits.deadline_start);
        let fuel = runtime.fuel.clone();
        if fuel.is_some() {
            // Refused only by an engine that does not count.
            let _ = store.set_fuel(u64::MAX);
        }

        let mut instantiated = false;
        let started = catch_unwind(AssertUnwindSafe(|| -> wasmtime::Result<_> {
            let instance = pre.instantiate(&mut store)?;
            instantiated = true;
            exports.load(&mut store, &instance)
        }));
        match started {
            Ok(Ok(functions)) => {
                let (tenant, last_used, meter) =
                    (None, Stopwatch::default(), InstanceMeter::default());
                Ok(Self { store, functions, calls_left, tenant, last_used, meter, fuel })
            }
            // The same for ever: its functions have other types than the contract's.
            Ok(Err(error)) if instantiated => Err(NotStarted::Failed(CallFault::invalid(format!(
                "it does not fit the contract: {error:#}"
            )))),
            Ok(Err(error)) if error.is::<wasmtime::PoolConcurrencyLimitError>() => {
                Err(NotStarted::Full)
            }
            Ok(Err(error)) => Err(NotStarted::Failed(fault_at_start(&store, &error))),
            Err(_) => Err(NotStarted::Failed(CallFault::new(
                FaultKind::Trap,
                "the host panicked while it started an instance",
            ))),
        }
    }

    /// Runs one call. After an error the instance is of no use.
    pub fn call<R>(
        &mut self,
        budget: Duration,
        call: impl FnOnce(&mut Self) -> wasmtime::Result<R>,
    ) -> Result<R, CallFault> {
        arm(&mut self.store, budget);
        let answered = catch_unwind(AssertUnwindSafe(|| call(self)));
        if let Some(fuel) = &self.fuel {
            let left = self.store.get_fuel().unwrap_or(u64::MAX);
            fuel.store(u64::MAX - left, Ordering::Relaxed);
            let _ = self.store.set_fuel(u64::MAX);
        }
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let state = self.store.data();
                Err(CallFault::classify(&error, state.memory.refused, state.wasi.last_words()))
            }
            Err(_) => Err(CallFault::new(FaultKind::Trap, "the host panicked in a call of it")),
        }
    }

    /// Bytes of its memories and tables.
    pub fn memory(&self) -> usize {
        self.store.data().memory.used
    }

    /// Whether it has grown so much that a fresh one should take its place.
    pub fn is_swollen(&self) -> bool {
        let memory = &self.store.data().memory;
        memory.used > memory.limit / 4 * 3
    }
}

/// Why there is no instance.
enum NotStarted {
    /// There is no place for another one.
    Full,
    /// The plugin's own fault.
    Failed(CallFault),
}

/// Nothing of what an earlier call left behind may be seen by the next: deadline, random numbers, marks.
fn arm(store: &mut Store<State>, budget: Duration) {
    let state = store.data_mut();
    state.memory.refused = false;
    state.wasi.begin_call();
    let ticks = state.deadline.begin(budget);
    state.clock.run_for(ticks);
    store.set_epoch_deadline(ticks);
}

fn fault_at_start(store: &Store<State>, error: &wasmtime::Error) -> CallFault {
    let state = store.data();
    let fault = CallFault::classify(error, state.memory.refused, state.wasi.last_words());
    match fault.kind {
        // Nothing has answered yet, so this is an error of instantiation itself.
        FaultKind::InvalidAnswer => CallFault::new(FaultKind::Unavailable, format!("{error:#}")),
        _ => fault,
    }
}

/// Counts the bytes of a whole store: wasmtime's own limiter counts each memory by itself.
pub(crate) struct Memory {
    pub used: usize,
    pub limit: usize,
    /// Whether something was refused during this call.
    pub refused: bool,
}

impl Memory {
    fn new(limit: usize) -> Self {
        Self { used: 0, limit, refused: false }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let used = self.used.saturating_add(bytes);
        if used > self.limit {
            self.refused = true;
            return false;
        }
        self.used = used;
        true
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.refused = true;
            return Ok(false);
        }
        let elements = desired.saturating_sub(current);
        Ok(self.grow(elements.saturating_mul(size_of::<usize>())))
    }

    fn instances(&self) -> usize {
        200
    }

    fn tables(&self) -> usize {
        16
    }

    fn memories(&self) -> usize {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let mut memory = Memory::new(1000);
        assert!(memory.memory_growing(0, 600, None).unwrap());
        assert!(!memory.memory_growing(0, 600, None).unwrap());
        assert!(memory.refused);
        assert!(memory.table_growing(0, 50, None).unwrap());
        assert!(!memory.table_growing(50, 60, None).unwrap());
    }
}
