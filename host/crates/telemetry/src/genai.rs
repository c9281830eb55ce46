//! Which received spans tell of a call of a model, whoever wrote them, and what the call used.
//!
//! One table (`genai/table.rs`) says under which names the writers that are known keep each fact.
//! Counts are normalised to OpenTelemetry's meaning: cached tokens are part of the input, reasoning
//! is part of the output. A sender that counts them apart, as Anthropic's and Bedrock's APIs do, is
//! found out by its total, by parts that are larger than their whole, or by the names that it uses, or it
//! says so; then they are added.

mod table;
mod told;

use tollgate_domain::received::Origin;
use tollgate_domain::span::Span;
use tollgate_domain::usage::UsageSource;
use tollgate_domain::{TokenUsage, UnixNanos};

use crate::names;
use table::Fact;
use told::Told;

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

/// The tenant, where nothing but the user is named.
#[must_use]
pub fn tenant_of_user(user: Option<&str>) -> Option<String> {
    user.filter(|user| user.len() <= table::TENANT_BYTES).map(str::to_owned)
}

/// Where spans come from, which is looked at once for all of them.
pub struct Source<'a> {
    origin: &'a Origin,
    /// What their process tells.
    process: Told<'a>,
}

impl<'a> Source<'a> {
    /// Looks at an origin.
    #[must_use]
    pub fn of(origin: &'a Origin) -> Self {
        Self { origin, process: Told::by(&origin.resource.attributes) }
    }
}

/// A span that is looked at, to see what it tells.
pub struct Look<'a> {
    span: &'a Span,
    source: &'a Source<'a>,
    told: Told<'a>,
}

impl<'a> Look<'a> {
    /// Looks at a span from there.
    #[must_use]
    pub fn at(span: &'a Span, source: &'a Source<'a>) -> Self {
        Self { span, source, told: Told::by(&span.attributes) }
    }

    /// Whether a Tollgate has recorded the span: it is on its record already.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.source.origin.scope.name == names::SCOPE || self.told.tells(Fact::Ours)
    }

    /// The tenant that the span or its process names, else the span's user.
    #[must_use]
    pub fn tenant(&self) -> Option<String> {
        let user = || self.told.name(Fact::User, usize::MAX);
        self.named_tenant().or_else(|| tenant_of_user(user().as_deref()))
    }

    /// The tenant that the span or its process names.
    #[must_use]
    pub fn named_tenant(&self) -> Option<String> {
        let named = |told: &Told<'_>| told.name(Fact::Tenant, table::TENANT_BYTES);
        named(&self.told).or_else(|| named(&self.source.process))
    }

    /// The call that the span tells of, if it tells of one.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        let Self { span, told, source } = self;
        let dialect = self.dialect()?;
        let operation = self.operation(dialect)?;
        // vLLM's spans name no model; whoever runs it can, for the whole process.
        let text = |fact| told.text(fact).map(str::to_owned);
        let of_process = |fact| source.process.text(fact);
        let model = told.text(Fact::Model);
        let request_model = told.text(Fact::RequestModel).or(model);
        let response_model = told.text(Fact::ResponseModel).or(model);
        let request_model = request_model.or(response_model);
        let request_model = request_model.or_else(|| of_process(Fact::RequestModel));
        let request_model = request_model.or_else(|| of_process(Fact::ResponseModel));
        let request_model = request_model.unwrap_or_default();
        let provider = told.text(Fact::Provider).or_else(|| of_process(Fact::Provider));
        let provider = match provider {
            Some(provider) => table::provider(provider),
            None if dialect == Dialect::Vllm => "vllm".to_owned(),
            None => String::new(),
        };
        let cached = self.said_of_cached();
        let cached =
            cached.or_else(|| self.is_apart_by_its_names(dialect, &provider, request_model));
        let tokens = tokens(told, &operation, cached);
        if tokens.is_none() && !table::INFERENCE.contains(&operation.as_str()) {
            return None;
        }
        let (tokens, source) = match tokens {
            Some((tokens, source)) => (Some(tokens), source),
            None => (None, UsageSource::Reported),
        };
        Some(Call {
            dialect,
            provider,
            request_model: request_model.to_owned(),
            response_model: response_model.unwrap_or(request_model).to_owned(),
            operation,
            tokens,
            source,
            response_id: text(Fact::ResponseId).or_else(|| id_in_answer(told, dialect)),
            request_id: text(Fact::RequestId),
            service_tier: text(Fact::ServiceTier),
            max_tokens: told.count(Fact::MaxTokens).and_then(|most| u32::try_from(most).ok()),
            temperature: told.double(Fact::Temperature),
            top_p: told.double(Fact::TopP),
            stream: told.is_true(Fact::Stream),
            finish_reason: told.text(Fact::FinishReason).map(first_of_list),
            first_token: told.double(Fact::FirstToken).and_then(|seconds| {
                let after = std::time::Duration::try_from_secs_f64(seconds).ok()?;
                Some(span.interval.start.plus(after).min(span.interval.end))
            }),
            user: told.name(Fact::User, usize::MAX),
        })
    }

    /// Who wrote a span that tells of a model.
    fn dialect(&self) -> Option<Dialect> {
        let (told, attributes) = (&self.told, &self.span.attributes);
        // Of most spans nothing more is looked at.
        if told.is_nothing() {
            return None;
        }
        let begins = |with: &str| attributes.has(|key| key.starts_with(with.as_bytes()));
        let has = |name| told.has(name);
        if told.tells(Fact::Kind) {
            return Some(Dialect::OpenInference);
        }
        let counted = told.tells(Fact::EndToEnd) || has("gen_ai.usage.prompt_tokens");
        if self.span.name == "llm_request" && counted {
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
    fn operation(&self, dialect: Dialect) -> Option<String> {
        let told = &self.told;
        if dialect == Dialect::OpenInference {
            let kind = told.text(Fact::Kind).map(str::to_ascii_uppercase);
            return match kind.as_deref() {
                Some("LLM") => Some("chat".to_owned()),
                None if told.has("llm.model_name") => Some("chat".to_owned()),
                None | Some("EMBEDDING") => Some("embeddings".to_owned()),
                _ => None,
            };
        }
        if let Some(named) = told.text(Fact::Operation) {
            return Some(table::operation(named));
        }
        match dialect {
            Dialect::Vllm | Dialect::Tutorial => Some("text_completion".to_owned()),
            // Older conventions had no name for it, but counted.
            _ => {
                let counts = [Fact::Input, Fact::Output];
                let counted = counts.iter().any(|fact| told.count(*fact).is_some());
                counted.then(|| "chat".to_owned())
            }
        }
    }

    /// What the span, its scope or its process says of how cached tokens are counted.
    fn said_of_cached(&self) -> Option<Cached> {
        let Source { origin, process } = self.source;
        let scope = Told::by(&origin.scope.attributes);
        [&self.told, &scope, process].into_iter().find_map(|told| {
            match told.text(Fact::Cached)? {
                table::CACHED_APART => Some(Cached::Said(true)),
                table::CACHED_INCLUDED => Some(Cached::Said(false)),
                _ => None,
            }
        })
    }

    /// Whether the names are those of an API that counts cached tokens apart, and nobody is known to have
    /// added them: then they are apart in all spans of it, and not only where they could not be within.
    fn is_apart_by_its_names(
        &self,
        dialect: Dialect,
        provider: &str,
        model: &str,
    ) -> Option<Cached> {
        let apart = dialect == Dialect::GenAi
            && table::counts_cached_apart(provider, model)
            && !self.source.origin.scope.name.starts_with(table::COUNTS_CACHED_IN)
            && table::ANTHROPIC_CACHED.iter().any(|name| self.told.has(name));
        apart.then_some(Cached::Seems(true))
    }
}

/// What was used, and how sure that is; none if no count is there. `cached`: whether cached tokens are
/// apart from the input, and whether somebody said so or it only seems so.
fn tokens(
    told: &Told<'_>,
    operation: &str,
    cached: Option<Cached>,
) -> Option<(TokenUsage, UsageSource)> {
    let count = |fact| told.count(fact);
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

/// The id of an answer that is kept whole, in JSON: OpenInference has no name for it.
fn id_in_answer(told: &Told<'_>, dialect: Dialect) -> Option<String> {
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Answer {
        id: String,
        /// `chat.completion` and the like, as OpenAI's API says it.
        object: String,
        /// `message`, as Anthropic's does.
        r#type: String,
    }
    if dialect != Dialect::OpenInference || told.text(Fact::AnswerType) != Some(table::JSON) {
        return None;
    }
    let answer = told.text(Fact::Answer).filter(|answer| answer.len() <= table::OUTPUT_BYTES)?;
    let answer: Answer = serde_json::from_str(answer).ok()?;
    let is_answer = !answer.object.is_empty() || answer.r#type == "message";
    Some(answer.id).filter(|id| is_answer && !id.is_empty())
}

/// Some write a list as the text of one in JSON.
fn first_of_list(text: &str) -> String {
    let items = text.starts_with('[').then(|| serde_json::from_str::<Vec<String>>(text).ok());
    let first = items.flatten().and_then(|items| items.into_iter().next());
    first.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests;
