//! An enricher that labels spans: with fixed values, or with values made from other attributes.
//!
//! `config.schema.json` beside this file describes the configuration, `label` what one label does.
//!
//! What a plugin reads and writes is fixed before it is configured, so the labels have a place of their own: keys that
//! begin with `label.` or `app.`, and the few conventional ones of `WRITES`. Values can come from what `READS` lists,
//! of the span or else of its resource; prompts and answers are not among it.

mod label;
#[cfg(test)]
mod tests;

use label::Labels;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Enricher, Plugin, PluginInfo, Read, SpanView,
};

/// The model, under the conventional name and the one of the tutorial.
const MODELS: [(&str, Read); 2] = [("gen_ai.request.model", Read(0)), ("llm.model", Read(1))];

/// Prefixes that values may come from.
const READS: [&str; 14] = [
    "gen_ai.request.",
    "gen_ai.response.",
    "gen_ai.provider.",
    "gen_ai.operation.",
    "gen_ai.conversation.",
    "llm.",
    "tollgate.",
    "server.",
    "http.",
    "user.",
    "session.",
    "service.",
    "deployment.",
    "k8s.",
];

/// Prefixes that labels may have, beside single keys.
const WRITE_PREFIXES: [&str; 2] = ["label.", "app."];

/// Single keys that labels may have.
const WRITES: [&str; 2] = ["deployment.environment.name", "enduser.id"];

/// The plugin.
#[derive(Debug)]
struct EnrichLabels(Labels);

impl Plugin for EnrichLabels {
    fn describe() -> PluginInfo {
        let mut info = PluginInfo::new("tollgate/enrich-labels", env!("CARGO_PKG_VERSION"))
            .description(env!("CARGO_PKG_DESCRIPTION"))
            .config_schema(include_str!("config.schema.json"));
        for (key, _) in MODELS {
            info = info.read(key);
        }
        info = READS.into_iter().fold(info, PluginInfo::read_prefix);
        info = WRITE_PREFIXES.into_iter().fold(info, PluginInfo::write_prefix);
        WRITES.into_iter().fold(info, PluginInfo::write)
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        Labels::read(&config).map(Self)
    }
}

impl Enricher for EnrichLabels {
    fn enrich(&self, ctx: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) {
        let model = MODELS.iter().find_map(|&(_, key)| span.text(key));
        self.0.apply(ctx, span, model, edits);
    }
}

tollgate_plugin::export_plugin!(EnrichLabels: Enricher);
