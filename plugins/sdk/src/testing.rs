//! Tests without WebAssembly: builds what the gateway would send and calls the plugin as it would.
//!
//! ```
//! # use tollgate_plugin::*; use tollgate_plugin::money::*;
//! # struct Free;
//! # impl Plugin for Free {
//! #   fn describe() -> PluginInfo { PluginInfo::new("x", "1.0.0") }
//! #   fn configure(_: Config) -> Result<Self, ConfigError> { Ok(Free) }
//! # }
//! # impl CostModel for Free {
//! #   fn price(&self, _: &Context, _: &Usage) -> Priced { Cost::new().finish() }
//! # }
//! use tollgate_plugin::testing::{Case, Configured};
//!
//! let plugin = Configured::<Free>::configure("{}").unwrap();
//! let priced = plugin.price(Case::usage("gpt-4o-mini").tokens(1200, 80).tenant("acme"));
//! assert_eq!(priced, Ok("0".into()));
//! ```
//!
//! Attributes are withheld just as the gateway withholds them: only what `describe` reads comes through, and only what
//! it writes comes back.

mod case;
mod pack;

pub use case::{Case, OnDevice, Used};

use crate::{
    Config, ConfigError, CostModel, Enricher, Filter, Plugin, PluginInfo, Priced, Verdict,
    bindings::{
        cost_model::exports::tollgate::plugin::cost_model::CostLine,
        lifecycle::exports::tollgate::plugin::lifecycle::HostInfo,
    },
    glue::Instance,
    money::Pico,
};

/// A configured plugin under test.
#[derive(Debug)]
pub struct Configured<P> {
    info: PluginInfo,
    instance: Instance<P>,
}

/// What a filter or an enricher did to one span: `set`, `default` or `remove`, the key, and the value as text.
pub type Changes = Vec<(&'static str, String, String)>;

impl<P: Plugin> Configured<P> {
    /// Configures a plugin.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn configure(json: &str) -> Result<Self, ConfigError> {
        let host =
            HostInfo { name: "testing".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let instance = Instance::configure(Config { json: json.to_owned(), host })?;
        Ok(Self { info: P::describe(), instance })
    }
}

impl<M: CostModel> Configured<M> {
    /// Prices one request: the total as an exact decimal, or the word of its status.
    ///
    /// # Errors
    /// `UnknownModel` and the like for what is unpriced, the message for what failed.
    pub fn price(&self, case: Case) -> Result<String, String> {
        let sum: i128 = self.lines(case)?.iter().map(|line| i128::from(line.amount)).sum();
        i64::try_from(sum)
            .map(|sum| Pico::new(sum).to_string())
            .map_err(|_| "the sum is out of range".to_owned())
    }

    /// Prices one request: its lines.
    ///
    /// # Errors
    /// As for [`Configured::price`].
    pub fn lines(&self, case: Case) -> Result<Vec<CostLine>, String> {
        let (ctx, usage, arena) = case.into_usage();
        match self.instance.price(&ctx, &usage, &arena) {
            Priced::Cost(lines) => Ok(lines),
            Priced::Unpriced(reason) => {
                Err(format!("{reason:?}").rsplit("::").next().unwrap_or_default().to_owned())
            }
            Priced::Failed(message) => Err(message),
        }
    }
}

impl<E: Enricher> Configured<E> {
    /// What it does to one span.
    pub fn enrich(&self, case: Case) -> Changes {
        let (ctx, batch) = case.into_span(&self.info);
        pack::changes(&self.info, &self.instance.enrich(&ctx, &batch))
    }
}

impl<F: Filter> Configured<F> {
    /// What it does to one span; `None` if the span is dropped.
    pub fn filter(&self, case: Case) -> Option<Changes> {
        let (ctx, batch) = case.into_span(&self.info);
        let filtered = self.instance.filter(&ctx, &batch);
        (filtered.verdicts == [Verdict::Keep]).then(|| pack::changes(&self.info, &filtered.edits))
    }
}
