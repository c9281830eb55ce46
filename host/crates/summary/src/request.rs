//! One request as reports see it, whether its record tells of it or only its root span.

use tollgate_domain::{CostOutcome, Money, Outcome, Record, UnixNanos};

/// One request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// When it began.
    pub began: UnixNanos,
    /// Who pays, where that is known.
    pub tenant: Option<&'a str>,
    /// The model as the client named it.
    pub model: &'a str,
    /// The model that answered.
    pub served_model: Option<&'a str>,
    /// `completed`, `client_gone`, `refused`, `failed` or `aborted`.
    pub outcome: &'a str,
    /// The kind of error, where there was one.
    pub error: Option<&'a str>,
    /// What became of its price.
    pub cost: Cost<'a>,
    /// None: it is not known to have used any.
    pub tokens: Option<Tokens>,
    /// Nanoseconds.
    pub duration: u64,
    /// Nanoseconds to the first token, if there was one.
    pub first_token: Option<u64>,
}

/// What became of its price.
#[derive(Clone, Debug)]
pub enum Cost<'a> {
    /// It has one.
    Amount {
        /// How much.
        money: Money,
        /// Whether it comes from estimated counts.
        estimated: bool,
        /// Who computed it.
        plugin: Plugin<'a>,
    },
    /// No plugin had a price.
    Unpriced {
        /// Why.
        reason: &'a str,
    },
    /// The plugin failed.
    PluginFailed {
        /// How.
        kind: &'a str,
        /// Which.
        plugin: Plugin<'a>,
    },
    /// It is not on the span: a plugin removed it, or it is another's span.
    Unknown,
}

/// One build of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plugin<'a> {
    /// Its name for itself.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// SHA-256 of its file.
    pub digest: &'a str,
}

/// Tokens; the parts are in the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tokens {
    /// All that went in.
    pub input: u64,
    /// Part of `input`.
    pub input_cache_read: u64,
    /// Part of `input`.
    pub input_cache_write: u64,
    /// All that came out.
    pub output: u64,
    /// Part of `output`.
    pub output_reasoning: u64,
}

impl Tokens {
    /// Adds, up to the most that can be counted.
    pub fn add(&mut self, other: &Self) {
        let Self { input, input_cache_read, input_cache_write, output, output_reasoning } = other;
        for (sum, more) in [
            (&mut self.input, input),
            (&mut self.input_cache_read, input_cache_read),
            (&mut self.input_cache_write, input_cache_write),
            (&mut self.output, output),
            (&mut self.output_reasoning, output_reasoning),
        ] {
            *sum = sum.saturating_add(*more);
        }
    }
}

impl<'a> From<&'a tollgate_domain::PluginIdentity> for Plugin<'a> {
    fn from(plugin: &'a tollgate_domain::PluginIdentity) -> Self {
        Self { name: &plugin.name, version: &plugin.version, digest: &plugin.digest }
    }
}

impl<'a> From<&'a Record> for Request<'a> {
    fn from(record: &'a Record) -> Self {
        let phases = &record.phases;
        let nanos = tollgate_domain::time::nanos;
        Self {
            began: phases.request.start,
            tenant: record.tenant.as_deref(),
            model: &record.asked.model,
            served_model: record.served_by.as_ref().map(|by| by.model.as_str()),
            outcome: record.outcome.name(),
            error: error(&record.outcome),
            cost: Cost::from(&record.cost),
            tokens: record.usage.as_ref().map(|usage| Tokens {
                input: usage.tokens.input,
                input_cache_read: usage.tokens.input_cache_read,
                input_cache_write: usage.tokens.input_cache_write,
                output: usage.tokens.output,
                output_reasoning: usage.tokens.output_reasoning,
            }),
            duration: nanos(phases.request.length()),
            first_token: phases.first_token.map(|first| nanos(first.since(phases.request.start))),
        }
    }
}

impl<'a> From<&'a CostOutcome> for Cost<'a> {
    fn from(outcome: &'a CostOutcome) -> Self {
        let amount = |cost: &'a tollgate_domain::Cost, estimated| Self::Amount {
            money: cost.total,
            estimated,
            plugin: Plugin::from(&*cost.plugin),
        };
        match outcome {
            CostOutcome::Priced(cost) => amount(cost, false),
            CostOutcome::Estimated(cost) => amount(cost, true),
            CostOutcome::Unpriced { reason } => Self::Unpriced { reason: reason.name() },
            CostOutcome::PluginFailed(fault) => {
                Self::PluginFailed { kind: fault.kind.name(), plugin: Plugin::from(&fault.plugin) }
            }
        }
    }
}

/// As `error.type` on its span has it.
fn error(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Completed { .. } => None,
        Outcome::ClientGone => Some("client_gone"),
        Outcome::Aborted => Some("aborted"),
        Outcome::Refused { kind, .. } | Outcome::Failed { kind, .. } => Some(kind.name()),
    }
}
