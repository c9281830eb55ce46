//! What plugins say, on its way into the gateway's own log: truncated, escaped, limited in rate, under the plugin's name.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tollgate_domain::text::one_line;

use crate::bindings::log::Level;
/// Longest message kept.
const MESSAGE_BYTES: usize = 8 << 10;
/// Most fields of a message kept, and how much of each.
const FIELDS: usize = 16;
const FIELD_BYTES: usize = 1 << 10;

/// Where the lines of one plugin go, whatever instance of it writes them.
pub(crate) struct PluginLog {
    name: Mutex<String>,
    allowed: u32,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl PluginLog {
    /// A log under `name`: the file's name until the plugin has said its own.
    pub fn new(name: &str, lines_per_second: u32) -> Self {
        Self {
            name: Mutex::new(one_line(name, 128)),
            allowed: lines_per_second,
            window: Mutex::new(Window { began: Instant::now(), lines: 0, suppressed: 0 }),
        }
    }

    /// From now on under `name`.
    pub fn rename(&self, name: &str) {
        if let Ok(mut own) = self.name.lock() {
            name.clone_into(&mut own);
        }
    }

    /// Whether a line of this level would be kept, the limit of the rate aside.
    pub fn enabled(level: Level) -> bool {
        match level {
            Level::Trace => tracing::enabled!(target: "plugin", tracing::Level::TRACE),
            Level::Debug => tracing::enabled!(target: "plugin", tracing::Level::DEBUG),
            Level::Info => tracing::enabled!(target: "plugin", tracing::Level::INFO),
            Level::Warn => tracing::enabled!(target: "plugin", tracing::Level::WARN),
            Level::Error => tracing::enabled!(target: "plugin", tracing::Level::ERROR),
        }
    }

    /// Writes one line, or counts it as suppressed.
    pub fn write(&self, level: Level, message: &str, fields: &[(String, String)]) {
        if !Self::enabled(level) || !self.admit() {
            return;
        }
        let line = line(message, fields);
        let plugin = self.name.lock().map(|name| name.clone()).unwrap_or_default();
        match level {
            Level::Trace => tracing::trace!(target: "plugin", plugin, "{line}"),
            Level::Debug => tracing::debug!(target: "plugin", plugin, "{line}"),
            Level::Info => tracing::info!(target: "plugin", plugin, "{line}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, "{line}"),
            Level::Error => tracing::error!(target: "plugin", plugin, "{line}"),
        }
    }

    fn admit(&self) -> bool {
        let Ok(mut window) = self.window.lock() else { return false };
        if window.began.elapsed() >= Duration::from_secs(1) {
            if window.suppressed > 0 {
                let plugin = self.name.lock().map(|name| name.clone()).unwrap_or_default();
                tracing::warn!(target: "plugin", plugin, suppressed = window.suppressed, "log lines suppressed");
            }
            *window = Window { began: Instant::now(), lines: 0, suppressed: 0 };
        }
        if window.lines < self.allowed {
            window.lines += 1;
            true
        } else {
            window.suppressed = window.suppressed.saturating_add(1);
            false
        }
    }
}

/// Message and fields as one line.
pub(crate) fn line(message: &str, fields: &[(String, String)]) -> String {
    let mut line = one_line(message, MESSAGE_BYTES);
    for (key, value) in fields.iter().take(FIELDS) {
        line.push(' ');
        line.push_str(&one_line(key, 64));
        line.push('=');
        line.push_str(&one_line(value, FIELD_BYTES));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off() {
        let log = PluginLog::new("x", 3);
        let admitted = (0..1000).filter(|_| log.admit()).count();
        assert_eq!(admitted, 3);
    }
}
