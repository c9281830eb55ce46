//! An export filter that drops or hashes attributes, and drops spans, by rule.
//!
//! `config.schema.json` beside this file describes the configuration, `rules` what a rule does. Without a configuration
//! everything leaves as it is.
//!
//! Which attributes the rules will name is not known when the plugin describes itself, so it asks for all of them. When in
//! doubt it removes: a value that was too long to be passed cannot be hashed, so it is dropped.

mod keyed_hash;
mod rules;
#[cfg(test)]
mod tests;

use rules::Rules;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Filter, Plugin, PluginInfo, SpanView, Verdict,
};

/// The plugin.
#[derive(Debug)]
struct FilterRedact(Rules);

impl Plugin for FilterRedact {
    fn describe() -> PluginInfo {
        PluginInfo::new("tollgate/filter-redact", env!("CARGO_PKG_VERSION"))
            .description(env!("CARGO_PKG_DESCRIPTION"))
            .read_prefix("")
            .write_prefix("")
            .config_schema(include_str!("config.schema.json"))
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        Rules::read(&config).map(Self)
    }
}

impl Filter for FilterRedact {
    fn batch<'a>(&self, ctx: &Context<'_>, _: impl Iterator<Item = SpanView<'a>>) -> Verdict {
        self.0.begin(ctx);
        Verdict::Keep
    }

    fn filter(&self, _: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) -> Verdict {
        self.0.apply(span, edits)
    }
}

tollgate_plugin::export_plugin!(FilterRedact: Filter);
