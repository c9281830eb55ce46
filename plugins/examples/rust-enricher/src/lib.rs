//! rust-enricher: adds attributes to spans, here the team of a model and a class by size.

use serde::Deserialize;
use std::collections::BTreeMap;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Enricher, Plugin, PluginInfo, Read, SpanView, Write,
};

const MODEL: Read = Read(0);
const INPUT: Read = Read(1);
const TEAM: Write = Write(0);
const CLASS: Write = Write(1);

/// The configuration; `config.schema.json` says the same to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    /// Teams by model.
    #[serde(default)]
    teams: BTreeMap<String, String>,
}

impl Plugin for Labels {
    fn describe() -> PluginInfo {
        PluginInfo::new("acme/rust-enricher", env!("CARGO_PKG_VERSION"))
            .description("Labels requests with team and size")
            .config_schema(include_str!("../config.schema.json"))
            .read("gen_ai.request.model")
            .read("gen_ai.usage.input_tokens")
            .write("app.team")
            .write("app.class")
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.parse()
    }
}

impl Enricher for Labels {
    fn enrich(&self, _: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) {
        if let Some(team) = span.text(MODEL).and_then(|model| self.teams.get(model)) {
            edits.set(TEAM, team);
        }
        if let Some(tokens) = span.int(INPUT) {
            edits.set_default(CLASS, if tokens > 1000 { "long" } else { "short" });
        }
    }
}

tollgate_plugin::export_plugin!(Labels: Enricher);

#[cfg(test)]
mod tests {
    use super::Labels;
    use tollgate_plugin::testing::{Case, Configured};

    #[test]
    fn labels_what_it_knows() {
        let plugin = Configured::<Labels>::configure(r#"{ "teams": { "m": "search" } }"#).unwrap();
        let span = Case::span("inference.request").attribute("gen_ai.request.model", "m");
        let changes = plugin.enrich(span.attribute("gen_ai.usage.input_tokens", 2000));
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let changes: Vec<_> = changes.into_iter().map(|(_, key, value)| (key, value)).collect();
        assert_eq!(changes, [set("app.team", "search"), set("app.class", "long")]);
    }
}
