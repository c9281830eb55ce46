//! rust-trace-filter: judges whole traces, here by errors, feedback and cost, and a share of the rest by their ids.

use serde::Deserialize;
use tollgate_plugin::money::{Currency, Pico};
use tollgate_plugin::{
    Config, ConfigError, Context, Edits, Filter, Plugin, PluginInfo, Read, SpanView, Status,
    Verdict,
};

const FEEDBACK: Read = Read(0);
const AMOUNT: Read = Read(1);
const CURRENCY: Read = Read(2);

/// As many bits of a trace's id are random.
const ALL: u64 = 1 << 56;

/// The configuration; `config.schema.json` says the same to the gateway.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rules {
    /// Values of `app.feedback` that keep a trace.
    feedback: Vec<String>,
    /// Traces that cost as much are kept.
    keep_cost: Option<Pico>,
    /// Of `keep_cost`; other costs are not looked at.
    currency: Currency,
    /// Of all other traces, between 0 and 1.
    share: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { feedback: Vec::new(), keep_cost: None, currency: Currency::USD, share: 0.0 }
    }
}

impl Plugin for Rules {
    fn describe() -> PluginInfo {
        PluginInfo::new("acme/rust-trace-filter", env!("CARGO_PKG_VERSION"))
            .description("Keeps traces that failed, that were rated or that cost much, and a share of the others")
            .config_schema(include_str!("../config.schema.json"))
            .read("app.feedback")
            .read("tollgate.cost.amount")
            .read("tollgate.cost.currency")
    }

    fn configure(config: Config) -> Result<Self, ConfigError> {
        config.parse()
    }
}

impl Filter for Rules {
    fn batch<'a>(&self, _: &Context<'_>, spans: impl Iterator<Item = SpanView<'a>>) -> Verdict {
        let (mut sum, mut share) = (0_i128, false);
        for (number, span) in spans.enumerate() {
            let rated = |said: &str| self.feedback.iter().any(|feedback| feedback == said);
            if span.status == Status::Error || span.text(FEEDBACK).is_some_and(rated) {
                return Verdict::Keep;
            }
            if number == 0 {
                share = self.shares(&span);
            }
            sum += self.cost(&span);
        }
        let costly = self.keep_cost.is_some_and(|least| sum >= i128::from(least.get()));
        if share || costly { Verdict::Keep } else { Verdict::Drop }
    }

    fn filter(&self, _: &Context<'_>, _: &SpanView<'_>, _: &mut Edits<'_, '_>) -> Verdict {
        Verdict::Keep
    }
}

impl Rules {
    /// In picos.
    fn cost(&self, span: &SpanView<'_>) -> i128 {
        let ours = span.text(CURRENCY) == Some(self.currency.code());
        let amount = span.text(AMOUNT).filter(|_| ours).and_then(|text| text.parse::<Pico>().ok());
        i128::from(amount.unwrap_or_default().get())
    }

    /// As the gateway's own `sample`: the highest ids are kept, so that everybody keeps the same traces.
    fn shares(&self, span: &SpanView<'_>) -> bool {
        let share = (self.share * ALL as f64) as u64;
        span.context.trace_id.low % ALL >= ALL.saturating_sub(share)
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
