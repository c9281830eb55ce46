//! Whether a gateway could run with some settings, asked before it is started: each part that a start needs,
//! and each server that requests or spans go to.
//!
//! It leaves nothing behind but one probe span at each receiver, and changes nothing that a running gateway
//! uses. What it finds are values; how they look is the command's affair.

mod clock;
mod model;
mod people;
mod plugins;
mod ports;
mod receivers;
mod storage;

use std::time::Duration;

use tollgate_settings::Settings;

/// Longest that a server is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How good or bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing is in the way.
    Ok,
    /// A gateway starts, and does not do all that was probably meant.
    Warning,
    /// A gateway does not start, or does not do what it was set up for.
    Failed,
}

impl Verdict {
    /// Its name for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// What was seen of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `port`, `certificate`, `data`, `disk`, `plugins`, `model`, `keys`, `backends`, `redis`,
    /// `exporter` or `clock`.
    pub check: &'static str,
    /// How that is.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to do about it, where something is to be done.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, seen: seen.into(), mend: None }
    }

    fn warning(check: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, seen: seen.into(), mend: Some(mend.into()) }
    }

    fn failed(check: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Failed, seen: seen.into(), mend: Some(mend.into()) }
    }
}

/// Looks at everything, and waits a few seconds at most for each server. Needs a runtime of several threads.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = ports::look(settings);
    findings.extend(storage::look(settings));
    findings.extend(tokio::task::block_in_place(|| plugins::look(settings)));
    findings.extend(tokio::task::block_in_place(|| model::look(settings)));
    let people = people::look(settings).await;
    findings.extend(people.findings);
    findings.extend(receivers::look(settings).await);
    findings.extend(clock::look(&people.clocks));
    findings
}
