//! MERGE: a stand-in for what an operator asks of the running host; the coordinator takes CONTAIN's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tollgate_domain::{CostOutcome, FaultKind, PluginIdentity, Usage};

use crate::error::CallFault;
use crate::loaded::Role;
use crate::registry::PluginStatus;
use crate::watch::Reminder;
use crate::{PluginHost, PluginHostError, price};

/// Whether calls of a plugin are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They are.
    Closed,
    /// They are answered at once, until then.
    Open {
        /// When a call is let through again.
        until: SystemTime,
    },
    /// One is, to see whether it goes well.
    HalfOpen,
}

impl BreakerState {
    /// Its name in metrics and in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// How instances are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Every call may meet every instance.
    Plugin,
    /// A tenant's calls meet its instances only.
    Tenant,
    /// Every call has an instance of its own.
    Batch,
}

impl Isolation {
    /// Its name in plugins.toml.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Tenant => "tenant",
            Self::Batch => "batch",
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No file or plugin of this name.
    #[error("there is no plugin {name:?}; `tollgate plugin list` shows what there is")]
    Unknown {
        /// What was named.
        name: String,
    },
    /// There is nothing to go back to.
    #[error("no other content of {file} has served before, so there is nothing to go back to")]
    NoPrevious {
        /// The file.
        file: String,
    },
    /// The content to go back to does not pass the gate any more.
    #[error("the content of {file} that served before cannot serve now")]
    PreviousRefused {
        /// The file.
        file: String,
        /// Why.
        source: PluginHostError,
    },
    /// A dry run of what does not price, or does not serve.
    #[error("{name:?} is no cost model that serves, so it cannot price anything")]
    NotACostModel {
        /// What was named.
        name: String,
    },
    /// Done, but it will not survive a restart.
    #[error("it is done, but could not be written down, so that it will not survive a restart")]
    NotKept(#[source] std::io::Error),
    /// The watcher's thread has too much to do, or is gone.
    #[error("the plugin host is busy or stopping; try again shortly")]
    Busy,
}

/// How long calls took.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyHistogram {
    /// Upper bounds in seconds, and how many calls took at most so long.
    pub buckets: Vec<(f64, u64)>,
    /// All calls.
    pub count: u64,
    /// Seconds of all calls together.
    pub sum: f64,
}

/// What one plugin did in one role.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "a stand-in")]
pub struct PluginMeter {
    pub plugin: String,
    pub version: String,
    pub digest: String,
    pub role: Role,
    pub shadow: bool,
    pub calls: u64,
    pub items: u64,
    pub faults: Vec<(FaultKind, u64)>,
    pub conflicts: u64,
    pub refused_edits: u64,
    pub latency: LatencyHistogram,
    pub memory_bytes: u64,
    pub instances: u64,
    pub instances_started: u64,
    pub in_flight: u64,
}

/// What a cost model marked shadow says.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowPrice {
    /// Its file, since two in the shadow may be of one plugin.
    pub file: std::sync::Arc<str>,
    /// Which one.
    pub plugin: PluginIdentity,
    /// What it says.
    pub outcome: CostOutcome,
}

/// Calls of one plugin.
#[derive(Default)]
pub(crate) struct Counted {
    calls: AtomicU64,
    nanos: AtomicU64,
    faults: Mutex<Vec<(FaultKind, u64)>>,
}

impl Counted {
    pub fn count(&self, took: Duration, fault: Option<&CallFault>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(tollgate_domain::time::nanos(took), Ordering::Relaxed);
        if let Some(fault) = fault {
            let mut faults = locked(&self.faults);
            match faults.iter_mut().find(|(kind, _)| *kind == fault.kind) {
                Some((_, count)) => *count = count.saturating_add(1),
                None => faults.push((fault.kind, 1)),
            }
        }
    }
}

impl PluginHost {
    /// One whole scan now, answered when done.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn rescan(&self) -> Result<(), PluginHostError> {
        let scans = &self.0.shared.scans;
        // Two, since one may be under way that has seen the folder already.
        let goal = scans.load(Ordering::Acquire).saturating_add(2);
        let patience = Instant::now();
        while scans.load(Ordering::Acquire) < goal && patience.elapsed() < Duration::from_secs(30) {
            let _ = self.0.reminders.try_send(Reminder);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Turns a file off.
    ///
    /// # Errors
    /// There is no such file.
    pub fn disable(&self, file: &str) -> Result<(), ControlError> {
        self.known(file)?;
        locked(&self.0.shared.disabled).insert(file.to_owned());
        let _ = self.rescan();
        Ok(())
    }

    /// Turns a file on again.
    ///
    /// # Errors
    /// There is no such file.
    pub fn enable(&self, file: &str) -> Result<(), ControlError> {
        self.known(file)?;
        locked(&self.0.shared.disabled).remove(file);
        let _ = self.rescan();
        Ok(())
    }

    /// Goes back to the last good content before the present one.
    ///
    /// # Errors
    /// There is none.
    pub fn roll_back(&self, file: &str) -> Result<PluginStatus, ControlError> {
        self.known(file)?;
        Err(ControlError::NoPrevious { file: file.to_owned() })
    }

    /// What every plugin did so far.
    #[must_use]
    pub fn meters(&self) -> Vec<PluginMeter> {
        let set = self.pin();
        let of = |plugin: &std::sync::Arc<crate::loaded::Loaded>| {
            let role = plugin.roles().first().copied().unwrap_or(Role::CostModel);
            let calls = plugin.counted.calls.load(Ordering::Relaxed);
            let sum = Duration::from_nanos(plugin.counted.nanos.load(Ordering::Relaxed));
            PluginMeter {
                plugin: plugin.identity.name.clone(),
                version: plugin.identity.version.clone(),
                digest: plugin.identity.digest.clone(),
                role,
                shadow: false,
                calls,
                items: calls,
                faults: locked(&plugin.counted.faults).clone(),
                conflicts: 0,
                refused_edits: 0,
                latency: LatencyHistogram {
                    buckets: vec![(1.0, calls)],
                    count: calls,
                    sum: sum.as_secs_f64(),
                },
                memory_bytes: 0,
                instances: 0,
                instances_started: 0,
                in_flight: 0,
            }
        };
        set.all().map(of).collect()
    }

    /// What a plugin would say of this usage; nothing is billed or recorded.
    ///
    /// # Errors
    /// There is no such plugin, or it prices nothing.
    pub fn try_price(
        &self,
        file_or_plugin: &str,
        tenant: Option<&str>,
        usage: &Usage,
    ) -> Result<CostOutcome, ControlError> {
        let unknown = || ControlError::Unknown { name: file_or_plugin.to_owned() };
        let set = self.pin();
        let name = self
            .status()
            .into_iter()
            .find(|status| status.file == file_or_plugin)
            .and_then(|status| status.identity)
            .map_or_else(|| file_or_plugin.to_owned(), |identity| identity.name);
        let plugin = set.all().find(|plugin| plugin.identity.name == name).ok_or_else(unknown)?;
        if !plugin.has(Role::CostModel) {
            return Err(ControlError::NotACostModel { name: file_or_plugin.to_owned() });
        }
        Ok(price::price(std::iter::once(plugin.as_ref()), tenant, usage, set.limits()))
    }

    fn known(&self, file: &str) -> Result<(), ControlError> {
        let known = self.status().iter().any(|status| status.file == file);
        known.then_some(()).ok_or_else(|| ControlError::Unknown { name: file.to_owned() })
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
