//! The memory of one call.
//!
//! A call allocates little and gives all of it back: a string for each argument, then the answer. The C library's allocator
//! takes longer over that than pricing a request does, so a part of memory is kept for it where to allocate is to move a
//! cursor on, and the cursor goes back to the start whenever nothing in there is in use. What outlives its call, as a cache
//! does, is safe: the cursor stays where it is while that lives, and what finds no room goes to the C library.
//!
//! Nothing goes there before the plugin is configured, since that is what lives long. Nor does what the host hands over as
//! the result of an import while a call is in the plugin's hands: C code may own it, and would free it as its own.

// Any target tests the arithmetic; only a component has the memory.
#[cfg(any(test, all(target_family = "wasm", feature = "arena")))]
mod cursor;
#[cfg(all(target_family = "wasm", feature = "arena"))]
#[expect(unsafe_code, reason = "an allocator hands out addresses")]
mod global;

/// Whose turn it is, which decides where memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The plugin is not configured, or is being configured.
    Starting,
    /// What the host asks for now is room for arguments.
    Waiting,
    /// The plugin works on a call.
    Working,
}

/// From now on it is this one's turn.
#[inline]
pub(crate) fn enter(phase: Phase) {
    #[cfg(all(target_family = "wasm", feature = "arena"))]
    global::ALLOCATOR.enter(phase);
    #[cfg(not(all(target_family = "wasm", feature = "arena")))]
    let _ = phase;
}
