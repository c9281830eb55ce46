//! The one place where machine code is taken on trust.
#![expect(unsafe_code, reason = "wasmtime cannot check machine code")]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Makes a component of machine code. Code for another version or other settings of wasmtime is refused.
///
/// `bytes` must be what [`Engine::precompile_component`] made, unchanged: see the two callers in `compile`.
pub(crate) fn load(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: what is run later is these bytes, so they must be from the compiler. They come either from it directly,
    // in this process or over a pipe from the child that this process started from its own program, or from a file that
    // such bytes were written to: in a folder that only this user can enter, in a file that only this user can write,
    // and with a digest over name and content that was checked after the last byte was read.
    unsafe { Component::deserialize(engine, bytes) }
}
