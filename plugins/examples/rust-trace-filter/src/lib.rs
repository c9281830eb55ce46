//! rust-trace-filter: judges whole traces, here by whether a user complained about anything in them.

use serde::Deserialize;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Filter, Plugin, PluginInfo, Read, SpanView, Verdict,
};

const FEEDBACK: Read = Read(0);

/// The configuration; `config.schema.json` says the same to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Values of `app.feedback` that keep a trace.
    feedback: Vec<String>,
}

impl Plugin for Rules {
    fn describe() -> PluginInfo {
        PluginInfo::new("acme/rust-trace-filter", env!("CARGO_PKG_VERSION"))
            .description("Keeps traces with feedback")
            .config_schema(include_str!("../config.schema.json"))
            .read("app.feedback")
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.parse()
    }
}

impl Filter for Rules {
    fn batch<'a>(&self, _: &Context<'_>, mut spans: impl Iterator<Item = SpanView<'a>>) -> Verdict {
        let wanted = |said: &str| self.feedback.iter().any(|feedback| feedback == said);
        match spans.any(|span| span.text(FEEDBACK).is_some_and(wanted)) {
            true => Verdict::Keep,
            false => Verdict::Drop,
        }
    }

    fn filter(&self, _: &Context<'_>, _: &SpanView<'_>, _: &mut Edits<'_, '_>) -> Verdict {
        Verdict::Keep
    }
}

tollgate_plugin::export_plugin!(Rules: Filter);

#[cfg(test)]
mod tests {
    use super::Rules;
    use tollgate_plugin::testing::{Case, Configured};

    #[test]
    fn what_nobody_complains_about_stays() {
        let plugin = Configured::<Rules>::configure(r#"{ "feedback": ["bad"] }"#).unwrap();
        let span = || Case::span("inference.request");
        assert_eq!(plugin.filter(span()), None);
        assert_eq!(plugin.filter(span().attribute("app.feedback", "good")), None);
        assert!(plugin.filter(span().attribute("app.feedback", "bad")).is_some());
    }
}
