//! Write a Tollgate plugin: a type, a trait for each role, one macro.
//!
//! A plugin is a sandboxed WebAssembly component that the gateway asks for one or more of three things:
//!
//! | role | trait |
//! |---|---|
//! | what a request cost | [`CostModel`] |
//! | attributes to add to spans | [`Enricher`] |
//! | which spans leave, and with what removed | [`Filter`] |
//!
//! ```
//! use tollgate_plugin::{Config, ConfigError, Context, Cost, CostKind, CostModel, Plugin, PluginInfo, Priced, Usage};
//! use tollgate_plugin::money::Price;
//!
//! struct Flat { input: Price, output: Price }
//!
//! impl Plugin for Flat {
//!     fn describe() -> PluginInfo {
//!         PluginInfo::new("acme/flat", "1.0.0").description("One price for everything")
//!     }
//!     fn configure(_: Config) -> Result<Self, ConfigError> {
//!         let price = |text: &str| text.parse().map_err(|e| ConfigError::Failed(format!("{e}")));
//!         Ok(Flat { input: price("$0.15/M")?, output: price("$0.60/M")? })
//!     }
//! }
//!
//! impl CostModel for Flat {
//!     fn price(&self, _: &Context, usage: &Usage) -> Priced {
//!         let mut cost = Cost::new();
//!         cost.line(CostKind::Input, usage.tokens.input, self.input);
//!         cost.line(CostKind::Output, usage.tokens.output, self.output);
//!         cost.finish()
//!     }
//! }
//!
//! tollgate_plugin::export_plugin!(Flat: CostModel);
//! # fn main() {}
//! ```
//!
//! The crate compiles to `wasm32-wasip2` as a component, and to any other target as a library, so that `cargo test`
//! needs no WebAssembly: [`testing`] builds what the gateway would send and calls the plugin as it would.

// The code that wit-bindgen generates names this crate, inside it as well as in the crates of authors.
extern crate self as tollgate_plugin;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod glue;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod in_place;
pub mod log;
pub mod money;
pub mod testing;

mod arena;
mod attributes;
mod config;
mod context;
mod cost;
mod describe;
mod edits;
mod pattern;
mod span;
mod usage;

use money::Currency;

pub use attributes::{Attribute, Attributes, ByKey, Key, Place, Read, Value};
pub use bindings::cost_model::exports::tollgate::plugin::cost_model::{
    CostKind, CostLine, Phase, Priced, TokenUsage, UnpricedReason, UsageSource,
};
pub use bindings::filter::exports::tollgate::plugin::export_filter::Verdict;
pub use bindings::lifecycle::tollgate::plugin::{
    edits::EditOp,
    types::{SpanContext, SpanKind, Status, TraceId},
};
pub use config::{Config, ConfigError};
pub use context::Context;
pub use cost::Cost;
pub use describe::PluginInfo;
pub use edits::{EditKey, Edits, Write};
pub use pattern::Pattern;
pub use span::SpanView;
pub use usage::{ComputeUsage, UnitUsage, Usage};
#[doc(hidden)]
pub use wit_bindgen;

/// What every plugin says and does, whatever its roles.
pub trait Plugin: Sized + 'static {
    /// Name, version, and the attributes to read and write, for all its roles together.
    fn describe() -> PluginInfo;

    /// Makes the plugin from the operator's configuration, once per instance.
    ///
    /// # Errors
    /// If the configuration is wrong; the plugin is not loaded then and the operator sees the message.
    fn configure(config: Config) -> Result<Self, ConfigError>;
}

/// Usage in, money out.
///
/// The same usage must cost the same for ever: the gateway re-prices its ledger and compares. There is no clock but
/// [`Context::now`], and nothing to remember between calls, since an instance may serve many calls or one.
pub trait CostModel: Plugin {
    /// The currency of every amount, US dollars unless said otherwise. One per instance; the gateway converts.
    fn currency(&self) -> Currency {
        Currency::USD
    }

    /// What one request cost. Say `unpriced` rather than zero for what is not known.
    fn price(&self, ctx: &Context<'_>, usage: &Usage<'_>) -> Priced;
}

/// Adds attributes to spans.
pub trait Enricher: Plugin {
    /// Looks at one span and says what to change.
    fn enrich(&self, ctx: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>);
}

/// Decides what leaves the gateway.
pub trait Filter: Plugin {
    /// Looks at all spans of a batch before it is asked about each; `Drop` drops them all.
    ///
    /// Where `plugins.toml` says `whole-traces = true` and the exporter waits for traces, a batch is one whole trace (in
    /// parts if it has more spans than the plugin's `max-batch`). Otherwise it is any spans of one tenant.
    fn batch<'a>(&self, _ctx: &Context<'_>, _spans: impl Iterator<Item = SpanView<'a>>) -> Verdict {
        Verdict::Keep
    }

    /// Keeps or drops one span; the edits redact a span that is kept.
    fn filter(&self, ctx: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) -> Verdict;
}
