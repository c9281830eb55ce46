//! What the operator tells a running host to do, and what the breakers have it do.
//!
//! Commands go to the thread that owns the registry, by a bounded channel, and are answered when they are done. That
//! thread also looks after new versions: one whose breaker opens among its first calls is rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, SystemTime};

use crate::error::{PluginHostError, chain};
use crate::folder;
use crate::gate;
use crate::registry::{Known, Previous, Registry};
use crate::set::Member;
use crate::status::{PluginRefusal, PluginStatus};

/// Most commands that wait. Policy when it is full: *refuse*.
pub(crate) const WAITING: usize = 16;
/// How long to wait for the answer to a command: longer than compiling a few files takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A version is new for so many calls and for so long, whichever ends later.
const NEW_FOR_CALLS: u64 = 1_000;
const NEW_FOR: Duration = Duration::from_secs(60);

/// Most contents of one file that are remembered as rolled back from.
const REJECTED: usize = 64;

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
    #[error(
        "no other content of {file} has served before the present one, so there is nothing to go back to"
    )]
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
    /// Several files serve the plugin that was named.
    #[error("{name:?} serves from {files}; name one of the files")]
    Ambiguous {
        /// What was named.
        name: String,
        /// The files.
        files: String,
    },
    /// Done, but it will not survive a restart.
    #[error("it is done, but could not be written down, so that it will not survive a restart")]
    NotKept(#[source] std::io::Error),
    /// The watcher's thread has too much to do, or is gone. Nothing was done.
    #[error("the plugin host is busy or stopping, and nothing was done; try again shortly")]
    Busy,
    /// It was begun, and takes long.
    #[error("it was begun and takes long; `tollgate plugin list` shows what comes of it")]
    UnderWay,
}

impl ControlError {
    pub(crate) fn ambiguous(name: &str, found: &[&Member]) -> Self {
        let files: Vec<&str> = found.iter().map(|member| &*member.file).collect();
        Self::Ambiguous { name: name.to_owned(), files: files.join(", ") }
    }

    /// A short, stable name of what kind of error this is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "unknown_plugin",
            Self::NoPrevious { .. } => "no_previous",
            Self::PreviousRefused { .. } => "previous_refused",
            Self::NotACostModel { .. } => "not_a_cost_model",
            Self::Ambiguous { .. } => "ambiguous_plugin",
            Self::NotKept(_) => "not_kept",
            Self::Busy => "busy",
            Self::UnderWay => "under_way",
        }
    }
}

/// What the thread is told; each is answered when it is done.
pub(crate) enum Command {
    Rescan(SyncSender<Result<(), PluginHostError>>),
    Disable(String, SyncSender<Result<(), ControlError>>),
    Enable(String, SyncSender<Result<(), ControlError>>),
    RollBack(String, SyncSender<Result<PluginStatus, ControlError>>),
}

/// A command on its way. Whoever sent it may give it up, and then it is not carried out.
pub(crate) struct Order {
    pub command: Command,
    pub claim: Claim,
}

/// Held by the sender and by the thread: who takes it first decides whether the command is carried out.
#[derive(Clone, Default)]
pub(crate) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether nobody had taken it.
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// Waits for the answer to a command as long as its sender has patience; once it is begun, as long again.
pub(crate) fn answer<R>(
    answered: &Receiver<R>,
    claim: &Claim,
    patience: Duration,
) -> Result<R, ControlError> {
    answered.recv_timeout(patience).or_else(|_| {
        if claim.take() {
            return Err(ControlError::Busy);
        }
        answered.recv_timeout(patience).map_err(|_| ControlError::UnderWay)
    })
}

/// Who is told when the next scan is done.
pub(crate) enum Waiting {
    Rescan(SyncSender<Result<(), PluginHostError>>),
    Enable(Result<(), ControlError>, SyncSender<Result<(), ControlError>>),
}

impl Registry {
    /// Does what the breakers and the operator want. Whether somebody waits for a scan now.
    pub fn obey(&mut self) -> bool {
        self.watch_over_new_versions();
        // An answer that nobody waits for any more is no matter.
        while let Ok(Order { command, claim }) = self.commands.try_recv() {
            // Its sender was told that it is not done.
            if !claim.take() {
                continue;
            }
            match command {
                Command::Rescan(answer) => {
                    self.forget_refusals();
                    self.waiting.push(Waiting::Rescan(answer));
                }
                Command::Disable(file, answer) => drop(answer.try_send(self.disable(&file))),
                Command::Enable(file, answer) => match self.enable(&file) {
                    Err(error @ ControlError::Unknown { .. }) => drop(answer.try_send(Err(error))),
                    done => self.waiting.push(Waiting::Enable(done, answer)),
                },
                Command::RollBack(file, answer) => {
                    let why = "by command".to_owned();
                    drop(answer.try_send(self.roll_back(&file, &why)));
                }
            }
        }
        !self.waiting.is_empty()
    }

    /// Tells those who wait for a scan how it went.
    pub fn answer_waiting(&self, waiting: Vec<Waiting>, unreadable: Option<&std::io::Error>) {
        for waiting in waiting {
            match waiting {
                Waiting::Rescan(answer) => {
                    let done = unreadable.map_or(Ok(()), |error| {
                        Err(PluginHostError::Folder {
                            folder: self.settings.folder.display().to_string(),
                            source: std::io::Error::new(error.kind(), error.to_string()),
                        })
                    });
                    let _ = answer.try_send(done);
                }
                Waiting::Enable(done, answer) => drop(answer.try_send(done)),
            }
        }
    }

    fn disable(&mut self, file: &str) -> Result<(), ControlError> {
        self.must_be_there(file)?;
        self.holds.files.entry(file.to_owned()).or_default().disabled = true;
        tracing::warn!(file, "plugin disabled by command");
        if let Some(known) = self.files.get_mut(file) {
            known.switch_off();
            known.held = Some(Known::DISABLED.to_owned());
        }
        self.publish();
        self.keep_holds()
    }

    /// Also allows what was rolled back from.
    fn enable(&mut self, file: &str) -> Result<(), ControlError> {
        self.must_be_there(file)?;
        if let Some(hold) = self.holds.files.get_mut(file) {
            hold.disabled = false;
            hold.rejected.clear();
        }
        tracing::info!(file, "plugin enabled by command");
        self.forget_refusals();
        self.keep_holds()
    }

    fn must_be_there(&self, file: &str) -> Result<(), ControlError> {
        let is_known = self.files.contains_key(file)
            || self.holds.files.contains_key(file)
            || (folder::is_plugin_name(file) && self.settings.folder.join(file).is_file());
        if is_known { Ok(()) } else { Err(ControlError::Unknown { name: file.to_owned() }) }
    }

    /// Has the content serve that served before the present one, which is not used again.
    fn roll_back(&mut self, file: &str, why: &str) -> Result<PluginStatus, ControlError> {
        let named = || file.to_owned();
        let Some(mut known) = self.files.remove(file) else {
            return Err(ControlError::Unknown { name: named() });
        };
        let target = self.previous(file, &known);
        let outcome = match (target, known.loaded.take()) {
            (Ok(Previous { loaded: target, in_force }), Some(bad)) => {
                (known.in_force, known.unfit) = (in_force, None);
                let target = match self.fitted(&target, &known.entry) {
                    Ok(fitted) => {
                        known.in_force = known.entry.clone();
                        fitted
                    }
                    Err(error) => {
                        let entry = known.entry.clone();
                        known.unfit = Some(self.does_not_fit(file, &target, &entry, &error));
                        target
                    }
                };
                tracing::error!(
                    file,
                    plugin = bad.identity.name,
                    from_version = bad.identity.version,
                    from_digest = bad.identity.digest,
                    to_version = target.identity.version,
                    to_digest = target.identity.digest,
                    why,
                    "plugin rolled back"
                );
                let hold = self.holds.files.entry(named()).or_default();
                if hold.rejected.len() >= REJECTED {
                    hold.rejected.pop_first();
                }
                hold.rejected.insert(bad.identity.digest.clone());
                hold.serving = Some(target.identity.digest.clone());
                hold.previous = None;
                bad.rest();
                known.loaded = Some(target);
                known.previous = None;
                known.since = Some(SystemTime::now());
                known.newcomer = None;
                known.held = Some(format!(
                    "version {} ({}) was rolled back {why}",
                    bad.identity.version, bad.identity.digest
                ));
                let rejected = PluginHostError::Rejected { file: named(), why: why.to_owned() };
                known.error = Some(PluginRefusal::of(&rejected));
                Ok(())
            }
            (Err(error), loaded) => {
                known.loaded = loaded;
                Err(error)
            }
            (Ok(_), None) => Err(ControlError::NoPrevious { file: named() }),
        };
        self.files.insert(named(), known);
        outcome?;
        self.publish();
        self.keep_holds()?;
        let status = self.shared.status.load();
        let reported = status.iter().find(|reported| reported.status.file == file);
        reported.map(crate::status::Reported::now).ok_or(ControlError::Unknown { name: named() })
    }

    /// What served before what serves now: still in memory, or from what is kept.
    fn previous(&self, file: &str, known: &Known) -> Result<Previous, ControlError> {
        let none = || ControlError::NoPrevious { file: file.to_owned() };
        let refused = |source| ControlError::PreviousRefused { file: file.to_owned(), source };
        if known.loaded.is_none() {
            return Err(none());
        }
        if let Some(previous) = &known.previous {
            gate::check_pin(&previous.loaded.identity.digest, &known.entry).map_err(refused)?;
            return Ok(previous.clone());
        }
        let digest = self.holds.files.get(file).and_then(|hold| hold.previous.as_deref());
        let digest = digest.ok_or_else(none)?;
        let loaded = self.load_kept(file, digest, &known.entry).ok_or_else(none)?;
        Ok(Previous { loaded: loaded.map_err(refused)?, in_force: known.entry.clone() })
    }

    /// Rolls back what has turned out bad soon after it came.
    fn watch_over_new_versions(&mut self) {
        let mut bad = Vec::new();
        for (file, known) in &mut self.files {
            let (Some(loaded), Some(came)) = (&known.loaded, known.newcomer) else { continue };
            let age = known.since.and_then(|since| since.elapsed().ok()).unwrap_or_default();
            let calls = loaded.tally.calls().saturating_sub(came.calls);
            if loaded.breaker.openings() > came.openings {
                known.newcomer = None;
                bad.push((file.clone(), loaded.breaker.last_fault()));
            } else if age >= NEW_FOR && calls >= NEW_FOR_CALLS {
                known.newcomer = None;
            }
        }
        for (file, fault) in bad {
            let why = format!("because its breaker opened soon after it came: {fault}");
            if let Err(error) = self.roll_back(&file, &why) {
                tracing::error!(
                    file,
                    error = chain(&error),
                    "a bad new version cannot be rolled back"
                );
            }
        }
    }

    pub(crate) fn keep_holds(&mut self) -> Result<(), ControlError> {
        self.holds.files.retain(|_, hold| *hold != crate::state::Hold::default());
        if self.runtime.state.holds() == self.holds {
            return Ok(());
        }
        self.runtime.state.set_holds(&self.holds).map_err(|error| {
            tracing::error!(%error, "what is held back could not be written down");
            ControlError::NotKept(error)
        })
    }
}

#[cfg(test)]
mod tests;
