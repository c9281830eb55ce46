//! What is made once: the engine and its settings. There is one for a host.

use std::hash::{Hash, Hasher};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use sha2::{Digest, Sha256};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Strategy,
};

use crate::clock::Clock;
use crate::error::PluginHostError;
use crate::limits::{Compiler, Limits, MOST_MEMORY, PluginHostSettings};
use crate::manifest::Entry;
use crate::pool::Pools;
use crate::signature::TrustedKey;
use crate::state::State;

/// Stack of a guest. Calls run in place on the caller's thread, whose own stack must be larger: tokio's workers have 2 MiB.
const GUEST_STACK: usize = 512 << 10;

/// Elements of one table.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// The engine and what applies to every plugin in it.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub engine: Engine,
    pub clock: Clock,
    /// Engines with the same one take each other's machine code.
    pub fingerprint: String,
    pub limits: Arc<Limits>,
    pub compiler: Compiler,
    pub trusted_keys: Arc<[TrustedKey]>,
    /// What is kept, over a restart if there is a folder for it.
    pub state: Arc<State>,
    /// The warm instances of all plugins.
    pub pools: Arc<Pools>,
    /// Of an engine that counts instructions, what the last call used. Only the workshop has one: counting is slow.
    pub fuel: Option<Arc<AtomicU64>>,
}

impl Runtime {
    /// Starts an engine and its clock, and opens the folder for what is kept.
    pub fn start(settings: &PluginHostSettings) -> Result<Self, PluginHostError> {
        let limits = &settings.limits;
        let state = match &settings.state {
            Some(folder) if settings.peeks => State::peek(folder),
            Some(folder) => open(folder, &settings.folder)?,
            None => State::in_memory(),
        };
        let engine = Engine::new(&pooled(limits, settings.instances)).or_else(|error| {
            // The pool reserves address space up front, and some machines limit that.
            tracing::warn!(error = %format!("{error:#}"), "plugin instances are not pooled: starting one is slower");
            Engine::new(&base()).map_err(broken)
        })?;
        Self::ticking(engine, settings, state, None)
    }

    /// Starts an engine that counts instructions. Its machine code is another, so it is compiled in place and not kept.
    pub fn start_counting(settings: &PluginHostSettings) -> Result<Self, PluginHostError> {
        let engine = Engine::new(base().consume_fuel(true)).map_err(broken)?;
        let in_place = PluginHostSettings { compiler: Compiler::InProcess, ..settings.clone() };
        Self::ticking(engine, &in_place, State::in_memory(), Some(Arc::default()))
    }

    fn ticking(
        engine: Engine,
        settings: &PluginHostSettings,
        state: State,
        fuel: Option<Arc<AtomicU64>>,
    ) -> Result<Self, PluginHostError> {
        let clock = Clock::start(&engine);
        let clock = clock.map_err(|error| PluginHostError::Engine(Box::new(error)))?;
        Ok(Self {
            fingerprint: fingerprint(&engine),
            engine,
            clock,
            limits: Arc::new(settings.limits.clone()),
            compiler: settings.compiler.clone(),
            trusted_keys: settings.trusted_keys.clone().into(),
            state: Arc::new(state),
            pools: Arc::default(),
            fuel,
        })
    }

    /// The same engine with the limits of one plugin.
    pub fn limited(&self, entry: &Entry) -> Self {
        Self { limits: entry.limits(&self.limits), ..self.clone() }
    }
}

fn broken(error: wasmtime::Error) -> PluginHostError {
    PluginHostError::Engine(error.into_boxed_dyn_error())
}

/// Everything that components need and nothing else: each proposal that is off is a part of the engine that no guest reaches.
/// Where instances live is not settled here, since it changes nothing about their machine code.
pub(crate) fn base() -> Config {
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

/// What is kept does not lie where plugins arrive, and one host has it at a time.
fn open(folder: &Path, plugins: &Path) -> Result<State, PluginHostError> {
    let shown = || folder.display().to_string();
    let same = matches!((folder.canonicalize(), plugins.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let opened = if same {
        Err(io::Error::other("it is the plugin folder; name another one for either"))
    } else {
        State::open(folder)
    };
    opened
        .map_err(|source| PluginHostError::State { folder: shown(), source })?
        .ok_or_else(|| PluginHostError::StateInUse { folder: shown() })
}

/// What decides whether machine code fits: wasmtime's version, its settings and the processor.
fn fingerprint(engine: &Engine) -> String {
    let mut hasher = Fingerprint(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let mut text = const_hex::encode(hasher.0.finalize());
    text.truncate(32);
    text
}

/// A hash that is the same in every process, as the standard library's need not be.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Asked for by nobody who hashes into it.
        0
    }
}

fn pooled(limits: &Limits, instances: u32) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .max_memory_size(limits.memory_bytes.max(MOST_MEMORY))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_engine_makes_code_for_the_one_that_serves() {
        let settings = PluginHostSettings::new("unused");
        let serving = Runtime::start(&settings).unwrap();
        assert_eq!(serving.fingerprint.len(), 32);
        // What `child` makes its machine code with.
        assert_eq!(fingerprint(&Engine::new(&base()).unwrap()), serving.fingerprint);
        let mut with_fuel = base();
        with_fuel.consume_fuel(true);
        assert_ne!(fingerprint(&Engine::new(&with_fuel).unwrap()), serving.fingerprint);
    }
}
