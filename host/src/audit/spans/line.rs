//! One line: a span of which as much is read as a report needs.

use std::borrow::Cow;

use serde::Deserialize;
use tollgate_domain::{Currency, Money, SpanId, TraceId, UnixNanos};
use tollgate_telemetry::names;

use tollgate_summary::{Cost, Plugin, Request, Tokens};

/// A root span.
pub(super) struct RootSpan<'a> {
    pub(super) id: (TraceId, SpanId),
    line: Line<'a>,
}

/// The root span that a line holds, or none if it holds another span.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<RootSpan<'_>>, String> {
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| {
        if bytes.windows(15).any(|window| window == b"\"resourceSpans\"") {
            "it is OTLP/JSON; give the NDJSON span file, spans.ndjson in the data folder".to_owned()
        } else {
            format!("it is no span: {error}")
        }
    })?;
    if line.name != names::span::REQUEST {
        return Ok(None);
    }
    let no_id = |what: &str, id: &str| format!("its {what} is {id:?}, which is no id");
    let trace = TraceId::try_from(line.trace_id.clone().into_owned());
    let span = SpanId::try_from(line.span_id.clone().into_owned());
    let id = (
        trace.map_err(|_| no_id("trace_id", &line.trace_id))?,
        span.map_err(|_| no_id("span_id", &line.span_id))?,
    );
    Ok(Some(RootSpan { id, line }))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    trace_id: Cow<'a, str>,
    #[serde(borrow)]
    span_id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    start_time_ns: u64,
    end_time_ns: u64,
    #[serde(borrow, default)]
    attributes: Attributes<'a>,
    #[serde(borrow, default)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    time_ns: u64,
}

/// Those that are read. A test holds these names against `tollgate_telemetry::names`.
#[derive(Default, Deserialize)]
struct Attributes<'a> {
    #[serde(borrow, rename = "tollgate.tenant")]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "llm.model")]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "gen_ai.request.model")]
    request_model: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "gen_ai.response.model")]
    response_model: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.outcome")]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "error.type")]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.status")]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.amount")]
    amount: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.currency")]
    currency: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.reason")]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.plugin.name")]
    plugin_name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.plugin.version")]
    plugin_version: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "tollgate.cost.plugin.digest")]
    plugin_digest: Option<Cow<'a, str>>,
    #[serde(rename = "gen_ai.usage.input_tokens")]
    input: Option<u64>,
    #[serde(rename = "gen_ai.usage.cache_read.input_tokens")]
    input_cache_read: Option<u64>,
    #[serde(rename = "gen_ai.usage.cache_creation.input_tokens")]
    input_cache_write: Option<u64>,
    #[serde(rename = "gen_ai.usage.output_tokens")]
    output: Option<u64>,
    #[serde(rename = "gen_ai.usage.reasoning.output_tokens")]
    output_reasoning: Option<u64>,
}

/// What stands for what was removed from a span.
const UNKNOWN: &str = "unknown";

impl RootSpan<'_> {
    /// The request that it is of.
    pub(super) fn request(&self) -> Result<Request<'_>, String> {
        let (line, has) = (&self.line, &self.line.attributes);
        let first_token = line.events.iter().find(|event| event.name == names::event::FIRST_TOKEN);
        Ok(Request {
            began: UnixNanos(line.start_time_ns),
            tenant: has.tenant.as_deref(),
            model: has.model.as_deref().or(has.request_model.as_deref()).unwrap_or(UNKNOWN),
            served_model: has.response_model.as_deref(),
            outcome: has.outcome.as_deref().unwrap_or(UNKNOWN),
            error: has.error.as_deref(),
            cost: has.cost()?,
            tokens: has.tokens(),
            duration: line.end_time_ns.saturating_sub(line.start_time_ns),
            first_token: first_token.map(|event| event.time_ns.saturating_sub(line.start_time_ns)),
        })
    }
}

impl Attributes<'_> {
    fn cost(&self) -> Result<Cost<'_>, String> {
        let reason = self.reason.as_deref().unwrap_or(UNKNOWN);
        let plugin = self.plugin();
        Ok(match (self.status.as_deref(), self.money()?) {
            (Some(status @ ("priced" | "estimated")), Some(money)) => {
                Cost::Amount { money, estimated: status == "estimated", plugin }
            }
            (Some("unpriced"), _) => Cost::Unpriced { reason },
            (Some("plugin_failed"), _) => Cost::PluginFailed { kind: reason, plugin },
            _ => Cost::Unknown,
        })
    }

    fn money(&self) -> Result<Option<Money>, String> {
        let (Some(amount), Some(currency)) = (&self.amount, &self.currency) else {
            return Ok(None);
        };
        let currency = Currency::parse(currency)
            .ok_or_else(|| format!("its currency {currency:?} is no ISO 4217 code"))?;
        let money = Money::parse_decimal(amount, currency)
            .ok_or_else(|| format!("its amount {amount:?} is no decimal number"))?;
        Ok(Some(money))
    }

    fn plugin(&self) -> Plugin<'_> {
        let text = |value| Option::<&Cow<'_, str>>::map_or(value, UNKNOWN, AsRef::as_ref);
        Plugin {
            name: text(self.plugin_name.as_ref()),
            version: text(self.plugin_version.as_ref()),
            digest: text(self.plugin_digest.as_ref()),
        }
    }

    fn tokens(&self) -> Option<Tokens> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        Some(Tokens {
            input: self.input.unwrap_or(0),
            input_cache_read: self.input_cache_read.unwrap_or(0),
            input_cache_write: self.input_cache_write.unwrap_or(0),
            output: self.output.unwrap_or(0),
            output_reasoning: self.output_reasoning.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tollgate_telemetry::names::{cost, gen_ai, http, llm, tollgate};

    use super::*;

    #[test]
    fn the_names_are_those_of_the_exporter() {
        let line = json!({
            "trace_id": "1", "span_id": "2", "name": names::span::REQUEST, "start_time_ns": 10, "end_time_ns": 30,
            "attributes": {
                tollgate::TENANT: "tenant", llm::MODEL: "model", gen_ai::REQUEST_MODEL: "r",
                gen_ai::RESPONSE_MODEL: "served", tollgate::OUTCOME: "outcome", http::ERROR_TYPE: "error",
                cost::STATUS: "estimated", cost::AMOUNT: "1.5", cost::CURRENCY: "EUR", cost::REASON: "reason",
                cost::PLUGIN_NAME: "name", cost::PLUGIN_VERSION: "version", cost::PLUGIN_DIGEST: "digest",
                gen_ai::USAGE_INPUT_TOKENS: 1, gen_ai::USAGE_CACHE_READ_INPUT_TOKENS: 2,
                gen_ai::USAGE_CACHE_CREATION_INPUT_TOKENS: 3, gen_ai::USAGE_OUTPUT_TOKENS: 4,
                gen_ai::USAGE_REASONING_OUTPUT_TOKENS: 5, "unheard.of": [1],
            },
            "events": [{"name": "other", "time_ns": 11}, {"name": names::event::FIRST_TOKEN, "time_ns": 15}],
        });
        let text = line.to_string();
        let span = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(span.line.attributes.reason.as_deref(), Some("reason"));
        assert_eq!(span.line.attributes.request_model.as_deref(), Some("r"));
        assert_eq!(
            format!("{:?}", span.request().unwrap()),
            "Request { began: UnixNanos(10), tenant: Some(\"tenant\"), model: \"model\", \
             served_model: Some(\"served\"), outcome: \"outcome\", error: Some(\"error\"), \
             cost: Amount { money: Money { pico: 1500000000000, currency: EUR }, estimated: true, \
             plugin: Plugin { name: \"name\", version: \"version\", digest: \"digest\" } }, \
             tokens: Some(Tokens { input: 1, input_cache_read: 2, input_cache_write: 3, output: 4, \
             output_reasoning: 5 }), duration: 20, first_token: Some(5) }"
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,60}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
