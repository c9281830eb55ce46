//! Which received spans tell of a call of a model, whoever wrote them, and what the call used.
//!
//! One table (`genai/table.rs`) says under which names the writers that are known keep each fact.
//! Counts are normalised to OpenTelemetry's meaning: cached tokens are part of the input, reasoning
//! is part of the output. A sender that counts them apart, as Anthropic's and Bedrock's APIs do, is
//! found out by its total, by parts that are larger than their whole, or by the names that it uses, or it
//! says so; then they are added.

mod table;

use tollgate_domain::received::Origin;
use tollgate_domain::span::{Attributes, Span, Value};
use tollgate_domain::usage::UsageSource;
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
    /// Where these counts come from: estimated, if one of input and output is not told.
    pub source: UsageSource,
    /// The answer's id.
    pub response_id: Option<String>,
    /// The server's id of the request, of which it makes that of the answer. Clients may choose it.
    pub request_id: Option<String>,
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

/// The tenant that a span or its process names, else the span's user.
#[must_use]
pub fn tenant(span: &Span, origin: &Origin) -> Option<String> {
    let user = || named(&span.attributes, keys(Fact::User));
    named_tenant(span, origin).or_else(|| tenant_of_user(user().as_deref()))
}

/// The tenant that a span or its process names.
#[must_use]
pub fn named_tenant(span: &Span, origin: &Origin) -> Option<String> {
    let named = |attributes| named_within(attributes, table::TENANT, table::TENANT_BYTES);
    named(&span.attributes).or_else(|| named(&origin.resource.attributes))
}

/// The tenant, where nothing but the user is named.
#[must_use]
pub fn tenant_of_user(user: Option<&str>) -> Option<String> {
    user.filter(|user| user.len() <= table::TENANT_BYTES).map(str::to_owned)
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
    let provider = text(Fact::Provider).or_else(|| of_process(Fact::Provider));
    let provider = match provider {
        Some(provider) => table::provider(&provider),
        None if dialect == Dialect::Vllm => "vllm".to_owned(),
        None => String::new(),
    };
    let cached = said_of_cached(span, origin)
        .or_else(|| is_apart_by_its_names(dialect, span, origin, (&provider, &request_model)));
    let tokens = tokens(attributes, &operation, cached);
    if tokens.is_none() && !table::INFERENCE.contains(&operation.as_str()) {
        return None;
    }
    let (tokens, source) = match tokens {
        Some((tokens, source)) => (Some(tokens), source),
        None => (None, UsageSource::Reported),
    };
    let response_id = text(Fact::ResponseId);
    Some(Call {
        dialect,
        provider,
        response_model: response_model.unwrap_or_else(|| request_model.clone()),
        request_model,
        operation,
        tokens,
        source,
        response_id: response_id.or_else(|| id_in_answer(attributes, dialect)),
        request_id: text(Fact::RequestId),
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
        user: named(attributes, keys(Fact::User)),
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
    // Written by hand, or by a Collector, in OpenInference's words.
    if (has("llm.model_name") || has("embedding.model_name")) && begins("llm.token_count.") {
        return Some(Dialect::OpenInference);
    }
    let counted = has(names::llm::PROMPT_TOKENS) || has(names::llm::COMPLETION_TOKENS);
    (has(names::llm::MODEL) && counted).then_some(Dialect::Tutorial)
}

/// What was asked of the model; none if the span is of something else.
fn operation(span: &Span, dialect: Dialect) -> Option<String> {
    let attributes = &span.attributes;
    if dialect == Dialect::OpenInference {
        let kind = text(attributes, &["openinference.span.kind"]);
        return match kind.map(|kind| kind.to_ascii_uppercase()).as_deref() {
            Some("LLM") => Some("chat".to_owned()),
            None if attributes.get("llm.model_name").is_some() => Some("chat".to_owned()),
            None | Some("EMBEDDING") => Some("embeddings".to_owned()),
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

/// What was used, and how sure that is; none if no count is there. `cached`: whether cached tokens are
/// apart from the input, and whether somebody said so or it only seems so.
fn tokens(
    attributes: &Attributes,
    operation: &str,
    cached: Option<Cached>,
) -> Option<(TokenUsage, UsageSource)> {
    let count = |fact| number(attributes, keys(fact));
    let total = count(Fact::Total);
    let embeds = operation == "embeddings";
    let mut source = UsageSource::Reported;
    let (input, output) = match (count(Fact::Input), count(Fact::Output), total) {
        (None, None, Some(total)) if embeds => (total, 0),
        // Of a total alone it is not known what is what, and the two have different prices.
        (None, None, _) => return None,
        (Some(input), None, Some(total)) => (input, total.saturating_sub(input)),
        (None, Some(output), Some(total)) => (total.saturating_sub(output), output),
        (Some(input), Some(output), _) => (input, output),
        (input, output, None) => {
            // What is not told is not nothing. Only embeddings have no output.
            if !embeds || input.is_none() {
                source = UsageSource::Estimated;
            }
            (input.unwrap_or(0), output.unwrap_or(0))
        }
    };
    let part = |fact| count(fact).unwrap_or(0);
    let (read, write) = (part(Fact::CacheRead), part(Fact::CacheWrite));
    let all_cached = read.saturating_add(write);
    let reasoning = part(Fact::Reasoning);
    let whole = |whole: u64, parts: u64, apart: bool| {
        if apart || parts > whole { whole.saturating_add(parts) } else { whole }
    };
    let beyond = total.map_or(0, |total| total.saturating_sub(input.saturating_add(output)));
    let (by_total, reasoning_apart) = apart(beyond, all_cached, reasoning);
    let cached_apart = match (cached, total) {
        (Some(Cached::Said(apart)), _) => apart,
        (Some(Cached::Seems(apart)), None) => apart,
        _ => by_total,
    };
    let input = whole(input, all_cached, cached_apart);
    let output = whole(output, reasoning, reasoning_apart);
    let tokens = TokenUsage {
        input,
        input_cache_read: read,
        input_cache_write: write,
        input_audio: part(Fact::InputAudio).min(input),
        input_image: part(Fact::InputImage).min(input),
        output,
        output_reasoning: reasoning,
        output_audio: part(Fact::OutputAudio).min(output),
        output_image: part(Fact::OutputImage).min(output),
    };
    Some((tokens, source))
}

/// Which of the parts a total has beyond input and output: those that are counted apart from them.
fn apart(beyond: u64, cached: u64, reasoning: u64) -> (bool, bool) {
    if beyond == 0 {
        return (false, false);
    }
    let both = cached.checked_add(reasoning) == Some(beyond);
    (both || beyond == cached, both || (beyond == reasoning && beyond != cached))
}

/// Whether cached tokens are counted apart from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cached {
    /// Whoever runs the sender says it.
    Said(bool),
    /// The names of the counts tell; a total knows better.
    Seems(bool),
}

/// What a span, its scope or its process says of it.
fn said_of_cached(span: &Span, origin: &Origin) -> Option<Cached> {
    let (scope, process) = (&origin.scope.attributes, &origin.resource.attributes);
    [&span.attributes, scope, process].into_iter().find_map(|attributes| {
        match text(attributes, &[table::CACHED])?.as_str() {
            table::CACHED_APART => Some(Cached::Said(true)),
            table::CACHED_INCLUDED => Some(Cached::Said(false)),
            _ => None,
        }
    })
}

/// Whether the names are those of an API that counts cached tokens apart, and nobody is known to have
/// added them: then they are apart in all spans of it, and not only where they could not be within.
fn is_apart_by_its_names(
    dialect: Dialect,
    span: &Span,
    origin: &Origin,
    (provider, model): (&str, &str),
) -> Option<Cached> {
    let apart = dialect == Dialect::GenAi
        && table::counts_cached_apart(provider, model)
        && !origin.scope.name.starts_with(table::COUNTS_CACHED_IN)
        && span
            .attributes
            .has(|key| table::ANTHROPIC_CACHED.iter().any(|name| name.as_bytes() == key));
    apart.then_some(Cached::Seems(true))
}

/// The id of an answer that is kept whole, in JSON: OpenInference has no name for it.
fn id_in_answer(attributes: &Attributes, dialect: Dialect) -> Option<String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Answer {
        id: String,
        /// `chat.completion` and the like, as OpenAI's API says it.
        object: String,
        /// `message`, as Anthropic's does.
        r#type: String,
    }
    if dialect != Dialect::OpenInference
        || text(attributes, table::OUTPUT_TYPE).as_deref() != Some(table::JSON)
    {
        return None;
    }
    let output = text(attributes, table::OUTPUT)?;
    if output.len() > table::OUTPUT_BYTES {
        return None;
    }
    let answer: Answer = serde_json::from_str(&output).ok()?;
    let is_answer = !answer.object.is_empty() || answer.r#type == "message";
    Some(answer.id).filter(|id| is_answer && !id.is_empty())
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

/// The first of these keys that has a name: a text, or a number as one.
fn named(attributes: &Attributes, keys: &[&str]) -> Option<String> {
    named_within(attributes, keys, usize::MAX)
}

/// The same, of at most so many bytes.
fn named_within(attributes: &Attributes, keys: &[&str], most: usize) -> Option<String> {
    if !attributes.has(|key| keys.iter().any(|wanted| wanted.as_bytes() == key)) {
        return None;
    }
    keys.iter().find_map(|key| {
        let value = attributes.get(key)?;
        let one = if let Value::List(items) = value { items.first()? } else { value };
        let name = match one {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            _ => return None,
        };
        Some(name).filter(|name| !name.is_empty() && name.len() <= most)
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
