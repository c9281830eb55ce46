//! Which received spans tell of a call of a model, whoever wrote them, and what the call used.
//!
//! One table (`genai/table.rs`) says under which names the writers that are known keep each fact.
//! Counts are normalised to OpenTelemetry's meaning: cached tokens are part of the input, reasoning
//! is part of the output. A sender that counts them apart, as Anthropic's and Bedrock's APIs do, is
//! found out by its total or by parts that are larger than their whole, or its process says so; then
//! they are added.

mod table;

use tollgate_domain::received::Origin;
use tollgate_domain::span::{Attributes, Span, Value};
use tollgate_domain::{TokenUsage, UnixNanos};

use crate::names::{self, cost, tollgate, vllm};
use table::{Fact, keys};

/// In whose words a span tells of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenTelemetry's conventions, of today or earlier.
    GenAi,
    /// vLLM's `llm_request`.
    Vllm,
    /// OpenInference, as of Arize Phoenix.
    OpenInference,
    /// OpenLLMetry, as of Traceloop.
    OpenLlmetry,
    /// The tutorial's `llm.*`.
    Tutorial,
}

impl Dialect {
    /// Its name on record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GenAi => "gen_ai",
            Self::Vllm => "vllm",
            Self::OpenInference => "openinference",
            Self::OpenLlmetry => "openllmetry",
            Self::Tutorial => "tutorial",
        }
    }
}

/// A call of a model that a span tells of. What it does not tell is absent or empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// In whose words.
    pub dialect: Dialect,
    /// `gen_ai.operation.name`.
    pub operation: String,
    /// `gen_ai.provider.name`.
    pub provider: String,
    /// The model that was asked for.
    pub request_model: String,
    /// The model that answered.
    pub response_model: String,
    /// What it used; none if the span tells of no token.
    pub tokens: Option<TokenUsage>,
    /// The answer's id.
    pub response_id: Option<String>,
    /// The service tier that answered, else the one that was asked for.
    pub service_tier: Option<String>,
    /// Most tokens to generate.
    pub max_tokens: Option<u32>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// Why generation ended, as the provider says it.
    pub finish_reason: Option<String>,
    /// When the first text came.
    pub first_token: Option<UnixNanos>,
    /// The application's user, as the span names it.
    pub user: Option<String>,
}

/// Whether a Tollgate has recorded the span: it is on its record already.
#[must_use]
pub fn is_ours(span: &Span, origin: &Origin) -> bool {
    let told = [cost::STATUS, tollgate::OUTCOME, tollgate::BACKEND];
    origin.scope.name == names::SCOPE
        || span.attributes.has(|key| told.iter().any(|told| told.as_bytes() == key))
}

/// The tenant that a span or its process names.
#[must_use]
pub fn tenant(span: &Span, origin: &Origin) -> Option<String> {
    let named = |attributes: &Attributes, keys: &[&str]| text(attributes, keys);
    let (of_span, of_process) = (&span.attributes, &origin.resource.attributes);
    named(of_span, table::TENANT)
        .or_else(|| named(of_process, table::TENANT))
        .or_else(|| named(of_span, keys(Fact::User)))
        .filter(|tenant| tenant.len() <= table::TENANT_BYTES)
}

/// The call that `span` tells of, if it tells of one.
#[must_use]
pub fn call(span: &Span, origin: &Origin) -> Option<Call> {
    let attributes = &span.attributes;
    let dialect = dialect(span)?;
    let text = |fact| text(attributes, keys(fact));
    let number = |fact| number(attributes, keys(fact));
    let operation = operation(span, dialect)?;
    let process = &origin.resource.attributes;
    // vLLM's spans name no model; whoever runs it can, for the whole process.
    let of_process = |fact| self::text(process, keys(fact));
    let request_model = text(Fact::RequestModel).or_else(|| text(Fact::Model));
    let response_model = text(Fact::ResponseModel).or_else(|| text(Fact::Model));
    let request_model = request_model.or_else(|| response_model.clone());
    let request_model = request_model.or_else(|| of_process(Fact::RequestModel));
    let request_model = request_model.or_else(|| of_process(Fact::ResponseModel));
    let request_model = request_model.unwrap_or_default();
    let tokens = tokens(attributes, &operation, process);
    if tokens.is_none() && !table::INFERENCE.contains(&operation.as_str()) {
        return None;
    }
    let provider = text(Fact::Provider).or_else(|| of_process(Fact::Provider));
    Some(Call {
        dialect,
        provider: match provider {
            Some(provider) => table::provider(&provider),
            None if dialect == Dialect::Vllm => "vllm".to_owned(),
            None => String::new(),
        },
        response_model: response_model.unwrap_or_else(|| request_model.clone()),
        request_model,
        operation,
        tokens,
        response_id: text(Fact::ResponseId),
        service_tier: text(Fact::ServiceTier),
        max_tokens: number(Fact::MaxTokens).and_then(|most| u32::try_from(most).ok()),
        temperature: double(attributes, keys(Fact::Temperature)),
        top_p: double(attributes, keys(Fact::TopP)),
        stream: keys(Fact::Stream)
            .iter()
            .any(|key| attributes.get(key) == Some(&Value::Bool(true))),
        finish_reason: text(Fact::FinishReason).map(first_of_list),
        first_token: double(attributes, keys(Fact::FirstToken)).and_then(|seconds| {
            let after = std::time::Duration::try_from_secs_f64(seconds).ok()?;
            Some(span.interval.start.plus(after).min(span.interval.end))
        }),
        user: text(Fact::User),
    })
}

/// Who wrote a span that tells of a model.
fn dialect(span: &Span) -> Option<Dialect> {
    let attributes = &span.attributes;
    // Of most spans nothing more is looked at.
    let of_a_writer = |key: &[u8]| table::WRITERS.iter().any(|by| key.starts_with(by.as_bytes()));
    if !attributes.has(of_a_writer) {
        return None;
    }
    let has = |key: &str| attributes.get(key).is_some();
    let begins = |prefix: &str| attributes.has(|key| key.starts_with(prefix.as_bytes()));
    if has("openinference.span.kind") {
        return Some(Dialect::OpenInference);
    }
    if span.name == "llm_request" && (has(vllm::E2E) || has("gen_ai.usage.prompt_tokens")) {
        return Some(Dialect::Vllm);
    }
    if has("llm.request.type") || begins("llm.usage.") || begins("traceloop.") {
        return Some(Dialect::OpenLlmetry);
    }
    if begins("gen_ai.") {
        return Some(Dialect::GenAi);
    }
    let counted = has(names::llm::PROMPT_TOKENS) || has(names::llm::COMPLETION_TOKENS);
    (has(names::llm::MODEL) && counted).then_some(Dialect::Tutorial)
}

/// What was asked of the model; none if the span is of something else.
fn operation(span: &Span, dialect: Dialect) -> Option<String> {
    let attributes = &span.attributes;
    if dialect == Dialect::OpenInference {
        let kind = text(attributes, &["openinference.span.kind"])?;
        return match kind.to_ascii_uppercase().as_str() {
            "LLM" => Some("chat".to_owned()),
            "EMBEDDING" => Some("embeddings".to_owned()),
            _ => None,
        };
    }
    if let Some(named) = text(attributes, keys(Fact::Operation)) {
        return Some(table::operation(&named));
    }
    match dialect {
        Dialect::Vllm | Dialect::Tutorial => Some("text_completion".to_owned()),
        // Older conventions had no name for it, but counted.
        _ => {
            let counts = [Fact::Input, Fact::Output];
            let counted = counts.iter().any(|fact| number(attributes, keys(*fact)).is_some());
            counted.then(|| "chat".to_owned())
        }
    }
}

/// What was used; none if no count is there.
fn tokens(attributes: &Attributes, operation: &str, process: &Attributes) -> Option<TokenUsage> {
    let count = |fact| number(attributes, keys(fact));
    let total = count(Fact::Total);
    let (input, output) = match (count(Fact::Input), count(Fact::Output), total) {
        (None, None, Some(total)) if operation == "embeddings" => (total, 0),
        // Of a total alone it is not known what is what, and the two have different prices.
        (None, None, _) => return None,
        (Some(input), None, Some(total)) => (input, total.saturating_sub(input)),
        (None, Some(output), Some(total)) => (total.saturating_sub(output), output),
        (input, output, _) => (input.unwrap_or(0), output.unwrap_or(0)),
    };
    let part = |fact| count(fact).unwrap_or(0);
    let (read, write) = (part(Fact::CacheRead), part(Fact::CacheWrite));
    let cached = read.saturating_add(write);
    let reasoning = part(Fact::Reasoning);
    let whole = |whole: u64, parts: u64, apart: bool| {
        if apart || parts > whole { whole.saturating_add(parts) } else { whole }
    };
    let beyond = total.map_or(0, |total| total.saturating_sub(input.saturating_add(output)));
    let (cached_apart, reasoning_apart) = apart(beyond, cached, reasoning);
    let cached_apart = said_apart(process).unwrap_or(cached_apart);
    let input = whole(input, cached, cached_apart);
    let output = whole(output, reasoning, reasoning_apart);
    Some(TokenUsage {
        input,
        input_cache_read: read,
        input_cache_write: write,
        input_audio: part(Fact::InputAudio).min(input),
        input_image: part(Fact::InputImage).min(input),
        output,
        output_reasoning: reasoning,
        output_audio: part(Fact::OutputAudio).min(output),
        output_image: part(Fact::OutputImage).min(output),
    })
}

/// Which of the parts a total has beyond input and output: those that are counted apart from them.
fn apart(beyond: u64, cached: u64, reasoning: u64) -> (bool, bool) {
    if beyond == 0 {
        return (false, false);
    }
    let both = cached.checked_add(reasoning) == Some(beyond);
    (both || beyond == cached, both || (beyond == reasoning && beyond != cached))
}

/// Whether cached tokens are counted apart from the input, where the process says it.
fn said_apart(process: &Attributes) -> Option<bool> {
    match process.get(table::CACHED)? {
        Value::Text(said) if said == table::CACHED_APART => Some(true),
        Value::Text(said) if said == table::CACHED_INCLUDED => Some(false),
        _ => None,
    }
}

/// Some write a list as the text of one in JSON.
fn first_of_list(text: String) -> String {
    let items = text.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(&text).ok());
    items.flatten().and_then(|items| items.into_iter().next()).unwrap_or(text)
}

/// The first of these keys that has a text, which is not empty; of a list its first.
fn text(attributes: &Attributes, keys: &[&str]) -> Option<String> {
    if !attributes.has(|key| keys.iter().any(|wanted| wanted.as_bytes() == key)) {
        return None;
    }
    keys.iter().find_map(|key| match attributes.get(key)? {
        Value::Text(text) if !text.is_empty() => Some(text.clone()),
        Value::List(items) => match items.first() {
            Some(Value::Text(text)) if !text.is_empty() => Some(text.clone()),
            _ => None,
        },
        _ => None,
    })
}

/// The first of these keys that has a count: a whole number, also as a double or as text.
fn number(attributes: &Attributes, keys: &[&str]) -> Option<u64> {
    keys.iter().find_map(|key| match attributes.get(key)? {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Double(number) if number.fract() == 0.0 && (0.0..1e15).contains(number) =>
        {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
            Some(*number as u64)
        }
        Value::Text(digits) => digits.parse().ok(),
        _ => None,
    })
}

fn double(attributes: &Attributes, keys: &[&str]) -> Option<f64> {
    keys.iter().find_map(|key| match attributes.get(key)? {
        Value::Double(number) => Some(*number),
        #[expect(clippy::cast_precision_loss, reason = "a setting of a sampler is small")]
        Value::Int(number) => Some(*number as f64),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
