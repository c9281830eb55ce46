//! What is made once: the engine, its settings, and the thread that moves its clock.
//!
//! Invariants: one engine for a host; the epoch thread is a plain thread, since a runtime that a guest can block must
//! not police the guest, and it holds the engine weakly, so that it ends when the last plugin set is gone.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
};

use crate::error::PluginHostError;
use crate::limits::Limits;

/// Length of one epoch.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Stack of a guest. Calls run in place on the caller's thread, whose own stack must be larger: tokio's workers have 2 MiB.
const GUEST_STACK: usize = 512 << 10;

/// Elements of one table.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// The engine and what applies to every plugin in it.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub engine: Engine,
    pub limits: Arc<Limits>,
    /// Of an engine that counts instructions, what the last call used. Only the workshop has one: counting is slow.
    pub fuel: Option<Arc<AtomicU64>>,
}

impl Runtime {
    /// Starts an engine and its clock.
    pub fn start(limits: &Limits) -> Result<Self, PluginHostError> {
        let engine = Engine::new(&pooled(limits)).or_else(|error| {
            // The pool reserves address space up front, and some machines limit that.
            tracing::warn!(error = %format!("{error:#}"), "plugin instances are not pooled: starting one is slower");
            Engine::new(&base()).map_err(broken)
        })?;
        Self::ticking(engine, limits, None)
    }

    /// Starts an engine that counts instructions.
    pub fn start_counting(limits: &Limits) -> Result<Self, PluginHostError> {
        let engine = Engine::new(base().consume_fuel(true)).map_err(broken)?;
        Self::ticking(engine, limits, Some(Arc::default()))
    }

    fn ticking(
        engine: Engine,
        limits: &Limits,
        fuel: Option<Arc<AtomicU64>>,
    ) -> Result<Self, PluginHostError> {
        let weak = engine.weak();
        std::thread::Builder::new()
            .name("tollgate-epoch".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(TICK);
                    match weak.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => break,
                    }
                }
            })
            .map_err(|error| PluginHostError::Engine(Box::new(error)))?;
        Ok(Self { engine, limits: Arc::new(limits.clone()), fuel })
    }
}

fn broken(error: wasmtime::Error) -> PluginHostError {
    PluginHostError::Engine(error.into_boxed_dyn_error())
}

/// Everything that components need and nothing else: each proposal that is off is a part of the engine that no guest reaches.
fn base() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_component_model(true)
        .epoch_interruption(true)
        .concurrency_support(false)
        .gc_support(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        // The same input gives the same answer on every processor.
        .cranelift_nan_canonicalization(true)
        .max_wasm_stack(GUEST_STACK)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config
}

fn pooled(limits: &Limits) -> Config {
    // Instances live at the same time: the warm ones of a few plugins, and one for each thread and plugin in a call. Each
    // memory takes 4 GiB of address space and its guards, so the number is bounded: 6 TiB of the usual 128.
    let threads = std::thread::available_parallelism().map_or(4, usize::from);
    let instances = u32::try_from(threads.saturating_mul(64)).unwrap_or(u32::MAX).clamp(128, 1024);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .max_memory_size(limits.memory_bytes)
        .table_elements(TABLE_ELEMENTS)
        .max_core_instances_per_component(200)
        .max_memories_per_component(4)
        .max_tables_per_component(16)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = base();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
