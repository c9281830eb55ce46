//! Messages to the operator. The host truncates and rate-limits them; outside of a component they go nowhere.

use crate::bindings::lifecycle::tollgate::plugin::log as raw;

pub use raw::Level;

/// Whether a message of this level would be kept; ask before formatting an expensive one.
pub fn enabled(level: Level) -> bool {
    cfg!(target_family = "wasm") && raw::enabled(level)
}

/// Sends a message.
pub fn emit(level: Level, message: &str, fields: &[(String, String)]) {
    if cfg!(target_family = "wasm") {
        raw::emit(level, message, fields);
    }
}

/// Something the operator should look at.
pub fn warn(message: &str) {
    emit(Level::Warn, message, &[]);
}

/// Something worth knowing.
pub fn info(message: &str) {
    emit(Level::Info, message, &[]);
}
