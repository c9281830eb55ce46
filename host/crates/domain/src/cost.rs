//! What a request cost, always with a status: there is no silent zero.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::plugin::{PluginFault, PluginIdentity};

/// What a cost line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the contract's and say it all")]
pub enum CostKind {
    Input,
    InputCacheRead,
    InputCacheWrite,
    InputAudio,
    InputImage,
    Output,
    OutputReasoning,
    OutputAudio,
    OutputImage,
    Compute,
    Energy,
    Unit,
    Request,
    Discount,
    Markup,
    Other,
}

/// One line of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostLine {
    /// What for.
    pub kind: CostKind,
    /// How many of it.
    pub quantity: u64,
    /// Pico-units, negative for a credit.
    pub amount_pico: i64,
}

/// An amount, the lines it is the sum of, and the plugin that computed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Sum of the lines.
    pub total: Money,
    /// The lines.
    pub lines: Vec<CostLine>,
    /// Who computed it. Shared, since each request has a cost and few plugins compute them all.
    #[serde(with = "crate::shared")]
    pub plugin: Arc<PluginIdentity>,
    /// SHA-256 of the configuration it had, 64 hex digits; absent if that was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
}

/// Why there is no price although no plugin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnpricedReason {
    /// No price for this model.
    UnknownModel,
    /// The counts that a price needs are missing.
    MissingUsage,
    /// A plugin said that this is free of charge by design.
    NotBillable,
    /// No cost plugin is loaded.
    NoCostPlugin,
    /// The request was refused before it used anything.
    NotServed,
    /// What was asked for is passed through, and what it uses is not known.
    UnknownOperation,
    /// The process ended before the price was known, and the plugins that the request was
    /// admitted under serve no longer.
    PluginsChanged,
    /// Of a span that was sent to us: another one of the same call is billed.
    CountedElsewhere,
}

impl UnpricedReason {
    /// Its name on spans and in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::MissingUsage => "missing_usage",
            Self::NotBillable => "not_billable",
            Self::NoCostPlugin => "no_cost_plugin",
            Self::NotServed => "not_served",
            Self::UnknownOperation => "unknown_operation",
            Self::PluginsChanged => "plugins_changed",
            Self::CountedElsewhere => "counted_elsewhere",
        }
    }
}

/// What became of pricing a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum CostOutcome {
    /// Computed from counts that the server of the request reported.
    Priced(Cost),
    /// Computed from counts that are themselves an estimate.
    Estimated(Cost),
    /// Not priced, and why.
    Unpriced {
        /// Why.
        reason: UnpricedReason,
    },
    /// The cost plugin failed.
    PluginFailed(PluginFault),
}

impl CostOutcome {
    /// The amount, where there is one.
    #[must_use]
    pub fn cost(&self) -> Option<&Cost> {
        match self {
            Self::Priced(cost) | Self::Estimated(cost) => Some(cost),
            Self::Unpriced { .. } | Self::PluginFailed(_) => None,
        }
    }

    /// Name of the status on spans, in metrics and in answers.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match self {
            Self::Priced(_) => "priced",
            Self::Estimated(_) => "estimated",
            Self::Unpriced { .. } => "unpriced",
            Self::PluginFailed(_) => "plugin_failed",
        }
    }

    /// Why there is no amount: the unpriced reason or the kind of fault.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Priced(_) | Self::Estimated(_) => None,
            Self::Unpriced { reason } => Some(reason.name()),
            Self::PluginFailed(fault) => Some(fault.kind.name()),
        }
    }
}
