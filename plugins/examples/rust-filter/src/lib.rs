//! rust-filter: decides what leaves, here without content and without health checks.

use serde::Deserialize;
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Filter, Plugin, PluginInfo, Read, SpanView, Verdict,
};

const ROUTE: Read = Read(0);

/// The configuration; `config.schema.json` says the same to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Spans of these routes stay.
    #[serde(default)]
    drop_routes: Vec<String>,
}

impl Plugin for Rules {
    fn describe() -> PluginInfo {
        PluginInfo::new("acme/rust-filter", env!("CARGO_PKG_VERSION"))
            .description("Removes content and drops spans by route")
            .config_schema(include_str!("../config.schema.json"))
            .read("http.route")
            .read_prefix("app.content.")
            .write_prefix("app.content.")
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.parse()
    }
}

impl Filter for Rules {
    fn filter(&self, _: &Context<'_>, span: &SpanView<'_>, edits: &mut Edits<'_, '_>) -> Verdict {
        if span.text(ROUTE).is_some_and(|route| self.drop_routes.iter().any(|r| r == route)) {
            return Verdict::Drop;
        }
        for attribute in span.attributes().iter() {
            if attribute.key.starts_with("app.content.") {
                edits.remove(attribute.key);
            }
        }
        Verdict::Keep
    }
}

tollgate_plugin::export_plugin!(Rules: Filter);

#[cfg(test)]
mod tests {
    use super::Rules;
    use tollgate_plugin::testing::{Case, Configured};

    #[test]
    fn content_stays_and_so_do_health_checks() {
        let plugin = Configured::<Rules>::configure(r#"{ "drop_routes": ["/health"] }"#).unwrap();
        let span = |route: &str| Case::span("inference.request").attribute("http.route", route);
        assert_eq!(plugin.filter(span("/health")), None);
        let changes = plugin.filter(span("/v1").attribute("app.content.prompt", "hush"));
        assert_eq!(changes, Some(vec![("remove", "app.content.prompt".to_owned(), String::new())]));
    }
}
