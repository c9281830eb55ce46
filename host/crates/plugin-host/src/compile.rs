//! From a component to machine code: out of the cache, or by a compiler that can be killed.
//!
//! wasmtime does not protect its host from components that are made to be expensive to compile. So a process of its own
//! does it, with limits on address space and processor time that it sets itself and a limit on wall-clock time that is
//! kept from here. The first two are what stops a bad component; the third is for a child that hangs, and patient, for a
//! child that gives way to requests is slow on a busy machine. Every way in which it can end is an error that says which.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::component::Component;

use tollgate_domain::text::one_line;

use crate::engine::Runtime;
use crate::error::PluginHostError;
use crate::folder::Content;
use crate::limits::{Compiler, Limits};
use crate::{artefact, child};

/// Most machine code of one component.
const ARTEFACT: u64 = 256 << 20;
/// Most threads of a compiler, each of which takes its share of the address space.
const THREADS: usize = 4;
/// How many times its processor time a child may take by the clock.
const PATIENCE: u32 = 6;
/// How often a process that is about to end is asked whether it has.
const POLL: Duration = Duration::from_millis(2);

/// A component that may be instantiated, and where its machine code is from.
pub(crate) struct Compiled {
    pub component: Component,
    /// Size of the machine code.
    pub bytes: usize,
    /// Whether it was in the cache.
    pub cached: bool,
}

/// Compiles, unless these bytes were compiled for this engine before.
pub(crate) fn compile(runtime: &Runtime, content: &Content) -> Result<Compiled, PluginHostError> {
    let key = format!("{}-{}", content.digest, runtime.fingerprint);
    if let Some(found) = runtime.state.artefact(&key) {
        match artefact::load(&runtime.engine, &found) {
            Ok(component) => return Ok(Compiled { component, bytes: found.len(), cached: true }),
            Err(error) => {
                tracing::warn!(key, error = %format!("{error:#}"), "compiled code is not used; it is compiled again");
            }
        }
    }
    let limits = &runtime.limits;
    let made = match &runtime.compiler {
        Compiler::InProcess => in_process(runtime, &content.bytes)?,
        Compiler::Child(program) => in_child(program, &content.bytes, limits)?,
    };
    let component = artefact::load(&runtime.engine, &made)
        .map_err(|error| PluginHostError::Outsized(error.into_boxed_dyn_error()))?;
    runtime.state.put_artefact(&key, &made);
    Ok(Compiled { component, bytes: made.len(), cached: false })
}

fn in_process(runtime: &Runtime, bytes: &[u8]) -> Result<Vec<u8>, PluginHostError> {
    match catch_unwind(AssertUnwindSafe(|| runtime.engine.precompile_component(bytes))) {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(PluginHostError::Compile(error.into_boxed_dyn_error())),
        Err(_) => Err(PluginHostError::CompilerCrash("it panicked".to_owned())),
    }
}

fn in_child(program: &Path, bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, PluginHostError> {
    let unusable =
        |source| PluginHostError::Compiler { program: program.display().to_string(), source };
    let mut child = command(program, limits).spawn().map_err(unusable)?;
    let conversation = converse(&mut child, bytes, limits.child_time.saturating_mul(PATIENCE));
    // Whatever happened, nothing of it is left. Of a process that ended already this does nothing.
    let _ = child.kill();
    let _ = child.wait();
    let Conversation { status, artefact, said } = conversation.map_err(unusable)?;
    match status {
        Some(status) if status.success() => {
            artefact.ok_or(PluginHostError::CompileMemory { what: "machine code", limit: ARTEFACT })
        }
        status => Err(failure(status, &said, limits)),
    }
}

/// Nothing of this process reaches the other: no variables, no files, no terminal.
fn command(program: &Path, limits: &Limits) -> Command {
    let threads = thread::available_parallelism().map_or(1, usize::from).div_ceil(2).min(THREADS);
    // Whole seconds are all that the system counts.
    let seconds = limits.child_time.saturating_add(Duration::from_nanos(999_999_999)).as_secs();
    let mut command = Command::new(program);
    command
        .arg("plugin-compiler")
        .arg(format!("--memory-bytes={}", limits.child_memory_bytes))
        .arg(format!("--cpu-seconds={seconds}"))
        .env_clear()
        // Of wasmtime's own pool, and of the C library's allocator: it would give each thread address space by the 64 MiB.
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // What is typed at a terminal is not meant for it.
        command.process_group(0).arg0("tollgate");
    }
    command
}

/// What came of a child.
struct Conversation {
    /// None: it was still running at the end of its time.
    status: Option<ExitStatus>,
    /// None: there was more of it than is taken.
    artefact: Option<Vec<u8>>,
    said: Vec<u8>,
}

/// Writes, reads and waits at the same time, since either side may be full.
fn converse(child: &mut Child, bytes: &[u8], time: Duration) -> io::Result<Conversation> {
    let deadline = Instant::now().checked_add(time);
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("it has no pipes"));
    };
    let (done, ended) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        let spawned = (|| {
            let builder = || thread::Builder::new().name("tollgate-compile".to_owned());
            builder().spawn_scoped(scope, move || {
                // A child that ended early says why by itself.
                let _ = stdin.write_all(bytes);
            })?;
            let artefact = builder().spawn_scoped(scope, move || read_artefact(stdout, &done))?;
            let said = builder().spawn_scoped(scope, move || read_reason(stderr))?;
            Ok::<_, io::Error>((artefact, said))
        })();
        let status = match &spawned {
            Ok(_) => wait(child, &ended, deadline),
            Err(_) => Ok(None),
        };
        // The threads end when the pipes do.
        if !matches!(status, Ok(Some(_))) {
            let _ = child.kill();
        }
        let (artefact, said) = spawned?;
        let lost = || io::Error::other("a thread that reads from it was lost");
        Ok(Conversation {
            artefact: artefact.join().map_err(|_| lost())?,
            said: said.join().map_err(|_| lost())?,
            status: status?,
        })
    })
}

fn read_artefact(from: impl Read, done: &SyncSender<()>) -> Option<Vec<u8>> {
    let mut artefact = Vec::new();
    let read = from.take(ARTEFACT + 1).read_to_end(&mut artefact);
    // Nobody waits any more if its time is over.
    let _ = done.send(());
    let fits = u64::try_from(artefact.len()).is_ok_and(|length| length <= ARTEFACT);
    (read.is_ok() && fits).then_some(artefact)
}

/// The end of what it said is read too, or it would wait for somebody to read it.
fn read_reason(mut from: impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    let most = u64::try_from(2 * child::REASON).unwrap_or(u64::MAX);
    let _ = from.by_ref().take(most).read_to_end(&mut said);
    let _ = io::copy(&mut from, &mut io::sink());
    said
}

/// Until it ends, or its time does: then the answer is none.
fn wait(
    child: &mut Child,
    ended: &mpsc::Receiver<()>,
    deadline: Option<Instant>,
) -> io::Result<Option<ExitStatus>> {
    let left = || deadline.map_or(Duration::MAX, |d| d.saturating_duration_since(Instant::now()));
    // Its output ends when it does.
    let _ = ended.recv_timeout(left());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if left().is_zero() {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// What the end of a child means.
fn failure(status: Option<ExitStatus>, said: &[u8], limits: &Limits) -> PluginHostError {
    let said = one_line(&String::from_utf8_lossy(said), child::REASON);
    let too_slow = PluginHostError::CompileTime { limit: limits.child_time };
    let Some(status) = status else { return too_slow };
    // How the allocator, the system and the thread pool say it.
    let out_of_memory = ["memory allocation of", "Cannot allocate memory", "out of memory"];
    if out_of_memory.iter().any(|words| said.contains(words)) {
        return PluginHostError::CompileMemory { what: "memory", limit: limits.child_memory_bytes };
    }
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&status)
        == Some(rustix::process::Signal::XCPU.as_raw())
    {
        return too_slow;
    }
    if status.code() == Some(i32::from(child::REFUSED)) {
        return PluginHostError::Compile(said.into());
    }
    let how = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    PluginHostError::CompilerCrash(how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn each_end_of_a_child_has_its_name() {
        use std::os::unix::process::ExitStatusExt;

        let exited = |code: u8| Some(ExitStatus::from_raw(i32::from(code) << 8));
        let signalled = |signal: i32| Some(ExitStatus::from_raw(signal));
        let cases: [(Option<ExitStatus>, &str, &str); 8] = [
            (None, "", "more than 10s of processor time"),
            (signalled(24), "", "more than 10s of processor time"),
            (
                signalled(6),
                "memory allocation of 64 bytes failed",
                "more than 1073741824 bytes of memory",
            ),
            (
                exited(65),
                "Cannot allocate memory (os error 12)",
                "more than 1073741824 bytes of memory",
            ),
            (exited(65), "type mismatch\nat offset 5", "does not compile"),
            (signalled(11), "", "signal: 11"),
            (exited(101), "thread 'main' panicked", "panicked"),
            (exited(2), "", "exit status: 2"),
        ];
        for (status, said, expected) in cases {
            let error = failure(status, said.as_bytes(), &Limits::default());
            assert!(error.to_string().contains(expected), "{status:?} {said}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn programs_that_do_something_else_are_errors_and_leave_nothing_behind() {
        let run = |program: &str, child_time| {
            let limits = Limits { child_time, ..Limits::default() };
            in_child(Path::new(program), &vec![0; 1 << 20], &limits).map_err(|error| error.kind())
        };
        let patient = Duration::from_secs(10);
        // It takes no input and gives no output.
        assert_eq!(run("/bin/true", patient), Ok(Vec::new()));
        assert_eq!(run("/bin/false", patient), Err("compile_crash"));
        assert_eq!(run("/nowhere/to/be/found", patient), Err("compiler"));
        // It writes without end.
        let script = tempfile::tempdir().unwrap();
        let program = script.path().join("endless");
        std::fs::write(&program, "#!/bin/sh\nwhile :; do echo x; echo y >&2; done\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, mode).unwrap();
        assert_eq!(run(program.to_str().unwrap(), Duration::from_millis(50)), Err("compile_time"));
    }
}
