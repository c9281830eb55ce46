//! WASI as plugins see it: there, and empty.
//!
//! Toolchains make a component import `wasi:*` whether it uses it or not. What their start-up code calls is answered with
//! nothing: no arguments, no environment, no folders, a clock that stands still, random numbers that are the same in every
//! call, input that is closed, output that becomes log lines. Everything else traps. No function here can wait, and none
//! of this needs an async runtime, so a plugin may be called on any thread.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{
    Component, ComponentType, HasSelf, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use tollgate_domain::text::one_line;

use crate::bindings::log::{self, Level};
use crate::error::Denied;
use crate::instance::State;
use crate::log::PluginLog;

/// Longest line of output kept together.
const LINE_BYTES: usize = 4 << 10;
/// Most random bytes at once.
const RANDOM_BYTES: u64 = 4096;
/// What a guest may write at once.
const WRITE_BYTES: u64 = 64 << 10;
/// The two streams of output, as handles.
const STDOUT: u32 = 1;
pub(crate) const STDERR: u32 = 2;

/// Per instance: unfinished lines of output and where the sequence of random numbers stands.
#[derive(Default)]
pub(crate) struct Wasi {
    out: Vec<u8>,
    err: Vec<u8>,
    last_error: String,
    random: u64,
}

impl Wasi {
    /// Random numbers start again and the last words are forgotten: a call's answer does not depend on calls before it.
    pub fn begin_call(&mut self) {
        self.random = 0;
        self.last_error.clear();
    }

    /// The last line on standard error in this call: where a guest's panic says why.
    pub fn last_words(&self) -> &str {
        &self.last_error
    }

    fn next_random(&mut self) -> u64 {
        // SplitMix64 from a fixed seed.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        if length > RANDOM_BYTES {
            return Err(Denied("it asked for too many random bytes at once").into());
        }
        let length = usize::try_from(length).unwrap_or_default();
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next_random().to_le_bytes());
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Takes what a guest writes to one of its streams.
    pub fn write(&mut self, stream: u32, bytes: &[u8], log: &PluginLog) {
        let (buffer, level) = if stream == STDERR {
            (&mut self.err, Level::Warn)
        } else {
            (&mut self.out, Level::Info)
        };
        for &byte in bytes {
            if byte != b'\n' {
                buffer.push(byte);
            }
            if byte == b'\n' || buffer.len() >= LINE_BYTES {
                let line = String::from_utf8_lossy(buffer);
                if !line.trim().is_empty() {
                    if stream == STDERR && !line.starts_with("note: ") {
                        // A panic takes two lines: where, and why.
                        if !self.last_error.is_empty() {
                            self.last_error.push(' ');
                        }
                        self.last_error = one_line(&format!("{}{line}", self.last_error), 512);
                    }
                    log.write(level, &line, &[]);
                }
                buffer.clear();
            }
        }
    }
}

/// Resources that exist only as handles.
struct InputStream;
struct OutputStream;
struct IoError;
struct Pollable;
struct TerminalInput;
struct TerminalOutput;
struct Descriptor;

#[derive(Debug, ComponentType, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    #[expect(dead_code, reason = "a case of the contract; writing never fails here")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

/// A linker for `component`: the log, the empty WASI, and traps for whatever else it imports from WASI.
/// The gate has checked what it imports.
pub(crate) fn linker(component: &Component) -> wasmtime::Result<Linker<State>> {
    let engine = component.engine();
    let mut linker = Linker::new(engine);
    log::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    for (name, import) in component.component_type().imports(engine) {
        let interface = name.split('@').next().unwrap_or(name);
        if let ComponentItem::ComponentInstance(instance) = import.ty
            && interface.starts_with("wasi:")
        {
            // Under the very name that the component uses, whatever its patch version.
            let mut at = linker.instance(name)?;
            for (name, export) in instance.exports(engine) {
                if let ComponentItem::Resource(_) = export.ty {
                    resource(&mut at, name)?;
                }
            }
            define(interface, &mut at)?;
        }
    }
    linker.define_unknown_imports_as_traps(component)?;
    Ok(linker)
}

impl log::Host for State {
    fn enabled(&mut self, level: Level) -> bool {
        PluginLog::enabled(level)
    }

    fn emit(&mut self, level: Level, message: String, fields: Vec<(String, String)>) {
        self.log.write(level, &message, &fields);
    }
}

fn define(interface: &str, at: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    match interface {
        "wasi:cli/environment" => {
            at.func_wrap("get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
            at.func_wrap("get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
            at.func_wrap("initial-cwd", |_, (): ()| Ok((None::<String>,)))
        }
        "wasi:cli/exit" => at.func_wrap("exit", |_, (_status,): (Result<(), ()>,)| {
            Err::<(), _>(Denied("it called exit").into())
        }),
        "wasi:cli/stdin" => {
            at.func_wrap("get-stdin", |_, (): ()| Ok((Resource::<InputStream>::new_own(0),)))
        }
        "wasi:cli/stdout" => {
            at.func_wrap("get-stdout", |_, (): ()| Ok((Resource::<OutputStream>::new_own(STDOUT),)))
        }
        "wasi:cli/stderr" => {
            at.func_wrap("get-stderr", |_, (): ()| Ok((Resource::<OutputStream>::new_own(STDERR),)))
        }
        "wasi:cli/terminal-stdin" => {
            at.func_wrap("get-terminal-stdin", |_, (): ()| Ok((None::<Resource<TerminalInput>>,)))
        }
        "wasi:cli/terminal-stdout" => {
            at.func_wrap("get-terminal-stdout", |_, (): ()| Ok((None::<Resource<TerminalOutput>>,)))
        }
        "wasi:cli/terminal-stderr" => {
            at.func_wrap("get-terminal-stderr", |_, (): ()| Ok((None::<Resource<TerminalOutput>>,)))
        }
        "wasi:clocks/monotonic-clock" => {
            at.func_wrap("now", |_, (): ()| Ok((0_u64,)))?;
            at.func_wrap("resolution", |_, (): ()| Ok((1_000_000_u64,)))?;
            at.func_wrap("subscribe-instant", |_, (_when,): (u64,)| Ok((ready(),)))?;
            at.func_wrap("subscribe-duration", |_, (_length,): (u64,)| Ok((ready(),)))
        }
        "wasi:clocks/wall-clock" => {
            at.func_wrap("now", |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 0 },)))?;
            at.func_wrap("resolution", |_, (): ()| {
                Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },))
            })
        }
        "wasi:filesystem/preopens" => at.func_wrap("get-directories", |_, (): ()| {
            Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
        }),
        "wasi:io/poll" => poll(at),
        "wasi:io/streams" => streams(at),
        "wasi:random/random" => {
            at.func_wrap("get-random-bytes", random_bytes)?;
            at.func_wrap("get-random-u64", random_number)
        }
        "wasi:random/insecure" => {
            at.func_wrap("get-insecure-random-bytes", random_bytes)?;
            at.func_wrap("get-insecure-random-u64", random_number)
        }
        "wasi:random/insecure-seed" => {
            at.func_wrap("insecure-seed", |_, (): ()| Ok(((0_u64, 0_u64),)))
        }
        _ => Ok(()),
    }
}

/// An interface has the resources that it uses from another one as well, and both must be the same type.
fn resource(at: &mut LinkerInstance<'_, State>, name: &str) -> wasmtime::Result<()> {
    let own = match name {
        "input-stream" => ResourceType::host::<InputStream>(),
        "output-stream" => ResourceType::host::<OutputStream>(),
        "error" | "io-error" => ResourceType::host::<IoError>(),
        "pollable" => ResourceType::host::<Pollable>(),
        "terminal-input" => ResourceType::host::<TerminalInput>(),
        "terminal-output" => ResourceType::host::<TerminalOutput>(),
        "descriptor" => ResourceType::host::<Descriptor>(),
        // Nothing ever makes one.
        _ => ResourceType::host::<()>(),
    };
    at.resource(name, own, |_, _| Ok(()))
}

/// Something to wait for that is there already.
fn ready() -> Resource<Pollable> {
    Resource::new_own(0)
}

fn poll(at: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    at.func_wrap("[method]pollable.ready", |_, (_own,): (Resource<Pollable>,)| Ok((true,)))?;
    at.func_wrap("[method]pollable.block", |_, (_own,): (Resource<Pollable>,)| Ok(()))?;
    at.func_wrap("poll", |_, (all,): (Vec<Resource<Pollable>>,)| {
        let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(Denied("it polled nothing").into());
        }
        Ok(((0..count).collect::<Vec<u32>>(),))
    })
}

fn streams(at: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    type Written = (Result<(), StreamError>,);
    type Out = (Resource<OutputStream>,);
    for read in ["[method]input-stream.read", "[method]input-stream.blocking-read"] {
        at.func_wrap(read, |_, (_own, _length): (Resource<InputStream>, u64)| {
            Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
        })?;
    }
    at.func_wrap("[method]input-stream.subscribe", |_, (_own,): (Resource<InputStream>,)| {
        Ok((ready(),))
    })?;
    at.func_wrap("[method]output-stream.subscribe", |_, (_own,): Out| Ok((ready(),)))?;
    at.func_wrap("[method]output-stream.check-write", |_, (_own,): Out| {
        Ok((Ok::<u64, StreamError>(WRITE_BYTES),))
    })?;
    for write in ["[method]output-stream.write", "[method]output-stream.blocking-write-and-flush"] {
        at.func_wrap(
            write,
            |mut store: StoreContextMut<'_, State>,
             (stream, bytes): (Resource<OutputStream>, Vec<u8>)| {
                let state = store.data_mut();
                let log = Arc::clone(&state.log);
                state.wasi.write(stream.rep(), &bytes, &log);
                Ok::<Written, _>((Ok(()),))
            },
        )?;
    }
    for flush in ["[method]output-stream.flush", "[method]output-stream.blocking-flush"] {
        at.func_wrap(flush, |_, (_own,): Out| Ok::<Written, _>((Ok(()),)))?;
    }
    Ok(())
}

fn random_bytes(
    mut store: StoreContextMut<'_, State>,
    (length,): (u64,),
) -> wasmtime::Result<(Vec<u8>,)> {
    Ok((store.data_mut().wasi.random_bytes(length)?,))
}

fn random_number(mut store: StoreContextMut<'_, State>, (): ()) -> wasmtime::Result<(u64,)> {
    Ok((store.data_mut().wasi.next_random(),))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_the_same_in_every_call() {
        let mut wasi = Wasi::default();
        let first = wasi.random_bytes(20).unwrap();
        assert_ne!(wasi.random_bytes(20).unwrap(), first);
        wasi.begin_call();
        assert_eq!(wasi.random_bytes(20).unwrap(), first);
        assert!(wasi.random_bytes(1 << 40).is_err());
    }

    #[test]
    fn output_without_end_is_cut_into_lines() {
        let (mut wasi, log) = (Wasi::default(), PluginLog::new("x", 10));
        wasi.write(STDERR, b"note: ignore this\nthread panicked\nwhy\n", &log);
        assert_eq!(wasi.last_words(), "thread panicked why");
        wasi.write(STDOUT, &vec![b'x'; 100_000], &log);
        assert!(wasi.out.len() < LINE_BYTES);
    }
}
