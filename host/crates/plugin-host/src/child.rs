//! The other side of a compiler's process: what `tollgate plugin-compiler` does.
//!
//! A component comes in on standard input, machine code goes out on standard output, and what is wrong with the component
//! goes to standard error. Before it reads a byte the process gives up all that it will not need, so that a component
//! made to break compilers takes this process with it and nothing else.

use std::io::{self, Read, Write};

use wasmtime::Engine;

use tollgate_domain::text::one_line;

use crate::engine;
use crate::error::Cause;

/// It compiled.
pub(crate) const DONE: u8 = 0;
/// The compiler refused the component.
pub(crate) const REFUSED: u8 = 65;
/// The process could not get ready.
pub(crate) const UNREADY: u8 = 70;

/// Longest reason given, in bytes.
pub(crate) const REASON: usize = 2048;

/// Compiles one component from standard input to standard output within these limits: address space in bytes, and
/// processor time in seconds. Answers the exit code of the process, which should end with it at once.
#[must_use]
pub fn run_compiler(memory_bytes: u64, cpu_seconds: u64) -> u8 {
    let (code, error) = match compile(memory_bytes, cpu_seconds) {
        Ok(()) => return DONE,
        Err(ended) => ended,
    };
    let reason = one_line(&crate::error::chain(&*error), REASON);
    // Nobody is there to hear of a failure to say it.
    let _ = writeln!(io::stderr(), "{reason}");
    code
}

fn compile(memory_bytes: u64, cpu_seconds: u64) -> Result<(), (u8, Cause)> {
    let unready = |error: io::Error| (UNREADY, Cause::from(error));
    confine(memory_bytes, cpu_seconds).map_err(unready)?;
    let mut component = Vec::new();
    io::stdin().lock().read_to_end(&mut component).map_err(unready)?;
    // Nothing runs here, so no pool is made: it would not fit into the address space.
    let engine = Engine::new(&engine::base()).map_err(|e| (UNREADY, e.into_boxed_dyn_error()))?;
    let machine_code = engine
        .precompile_component(&component)
        .map_err(|error| (REFUSED, error.into_boxed_dyn_error()))?;
    let mut out = io::stdout().lock();
    out.write_all(&machine_code).and_then(|()| out.flush()).map_err(unready)
}

#[cfg(unix)]
fn confine(memory_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};

    let limit =
        |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    #[cfg(target_os = "linux")]
    {
        // It is not to outlive who waits for it, and if memory runs out, it is to go first. Where that cannot be said
        // its limits must do.
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    limit(Resource::As, memory_bytes)?;
    // The soft limit ends it with a signal of its own, by which it is recognised.
    setrlimit(
        Resource::Cpu,
        Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) },
    )?;
    // No file is written, and no core.
    limit(Resource::Fsize, 0)?;
    limit(Resource::Core, 0)?;
    // Requests come first. A system that does not let a process be nice is no reason not to compile.
    // Nor may it starve for good on a machine that is always busy, so it is not as nice as can be.
    let _ = nice(10);
    Ok(())
}

#[cfg(not(unix))]
fn confine(_memory_bytes: u64, _cpu_seconds: u64) -> io::Result<()> {
    Ok(())
}
