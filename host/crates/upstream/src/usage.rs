//! What servers report of tokens, in one meaning: `input` and `output` are totals, everything else is part of them.
//!
//! OpenAI and those who speak like it count cached tokens inside the prompt, Anthropic beside it. A field that is absent,
//! `null` or not a count is not reported; it is never taken for zero where that makes a difference.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_domain::TokenUsage;

/// A count, if it is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count(Option<u64>);

/// An object, if it is one.
#[derive(Clone, Copy, Debug, Default)]
struct Part<T>(T);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    // Chat completions, completions, embeddings.
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Part<Details>,
    completion_tokens_details: Part<Details>,
    // The Responses API, Anthropic.
    input_tokens: Count,
    output_tokens: Count,
    input_tokens_details: Part<Details>,
    output_tokens_details: Part<Details>,
    // Anthropic, and proxies in front of it.
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    // DeepSeek.
    prompt_cache_hit_tokens: Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    cache_creation_tokens: Count,
    audio_tokens: Count,
    image_tokens: Count,
    reasoning_tokens: Count,
}

/// What a server has told so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub usage: TokenUsage,
    /// Whether its output is told as well. If not, it is 0 there, or what was told before the end.
    pub output: bool,
}

/// `timings` of llama.cpp's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Timings {
    cache_n: Count,
    prompt_n: Count,
    predicted_n: Count,
    prompt_ms: Millis,
    predicted_ms: Millis,
}

/// Milliseconds, if they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Millis(Option<f64>);

/// How long the server says it worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedPhases {
    /// Reading the prompt.
    pub prefill: Duration,
    /// Generating.
    pub decode: Duration,
}

impl Timings {
    /// The phases, if both are told.
    pub fn phases(&self) -> Option<ReportedPhases> {
        let length = |ms: Millis| Duration::try_from_secs_f64(ms.0? / 1e3).ok();
        Some(ReportedPhases {
            prefill: length(self.prompt_ms)?,
            decode: length(self.predicted_ms)?,
        })
    }

    /// The usage, for a server that told nothing else, or what it `told` with what only `timings` tell.
    pub fn complete(&self, told: Option<Told>) -> Option<Told> {
        let cached = self.cache_n.0.unwrap_or_default();
        let mut told = told.or_else(|| {
            // `prompt_n` are those that were computed.
            let input = self.prompt_n.0?.saturating_add(cached);
            Some(Told { usage: TokenUsage { input, ..TokenUsage::default() }, output: false })
        })?;
        if told.usage.input_cache_read == 0 && cached <= told.usage.input {
            told.usage.input_cache_read = cached;
        }
        if let (false, Some(output)) = (told.output, self.predicted_n.0) {
            told.usage.output = told.usage.output.max(output);
            told.output = true;
        }
        Some(told)
    }
}

/// `usage` of OpenAI's APIs and of those who speak like them. None: it tells nothing of the input.
pub(crate) fn openai(usage: &RawValue) -> Option<Told> {
    let told: Part<Reported> = serde_json::from_str(usage.get()).ok()?;
    let told = told.0;
    let (input, input_parts) = match told.prompt_tokens.0 {
        Some(total) => (Some(total), told.prompt_tokens_details.0),
        None => (told.input_tokens.0, told.input_tokens_details.0),
    };
    let (output, output_parts) = match told.completion_tokens.0 {
        Some(total) => (Some(total), told.completion_tokens_details.0),
        None => (told.output_tokens.0, told.output_tokens_details.0),
    };
    let total = told.total_tokens.0.unwrap_or_default();
    // What is not told is the rest of the total, if that leaves a rest.
    let rest = |known: u64| total.checked_sub(known).filter(|rest| *rest > 0);
    let input = input.or_else(|| rest(output?))?;
    let output = output.or_else(|| rest(input));
    let read = first(&[
        input_parts.cached_tokens,
        told.prompt_cache_hit_tokens,
        told.cache_read_input_tokens,
    ]);
    let write = first(&[
        input_parts.cache_write_tokens,
        input_parts.cache_creation_tokens,
        told.cache_creation_input_tokens,
    ]);
    let reasoning = first(&[output_parts.reasoning_tokens]);
    // What a total has beyond its parts was used: reasoning as a rule, which xAI and Gemini count beside the completion;
    // unless it is just what is cached, which some count beside the prompt.
    let beyond = output.map_or(0, |output| total.saturating_sub(input.saturating_add(output)));
    let cached = read.saturating_add(write);
    let of_input = beyond > 0 && beyond == cached && beyond != reasoning;
    let (more_input, more_output) = if of_input { (beyond, 0) } else { (0, beyond) };
    let usage = whole(TokenUsage {
        input: input.saturating_add(more_input),
        input_cache_read: read,
        input_cache_write: write,
        input_audio: first(&[input_parts.audio_tokens]),
        input_image: first(&[input_parts.image_tokens]),
        output: output.unwrap_or_default().saturating_add(more_output),
        output_reasoning: reasoning,
        output_audio: first(&[output_parts.audio_tokens]),
        output_image: first(&[output_parts.image_tokens]),
    });
    Some(Told { usage, output: output.is_some() })
}

/// Anthropic's counts as they have been told so far. Every report repeats or raises them: they are merged, never summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnthropicCounts {
    input: Option<u64>,
    read: Option<u64>,
    write: Option<u64>,
    output: Option<u64>,
}

impl AnthropicCounts {
    /// Takes the `usage` of a message, a `message_start` or a `message_delta`.
    pub fn merge(&mut self, usage: &RawValue) {
        let Ok(Part(told)) = serde_json::from_str::<Part<Reported>>(usage.get()) else { return };
        let merge = |known: &mut Option<u64>, told: Count| *known = (*known).max(told.0);
        merge(&mut self.input, told.input_tokens);
        merge(&mut self.read, told.cache_read_input_tokens);
        merge(&mut self.write, told.cache_creation_input_tokens);
        merge(&mut self.output, told.output_tokens);
    }

    /// The usage, once the input has been told. What is cached is beside `input_tokens` and belongs to the total.
    pub fn told(&self) -> Option<Told> {
        let (read, write) = (self.read.unwrap_or_default(), self.write.unwrap_or_default());
        let usage = TokenUsage {
            input: self.input?.saturating_add(read).saturating_add(write),
            input_cache_read: read,
            input_cache_write: write,
            output: self.output.unwrap_or_default(),
            ..TokenUsage::default()
        };
        Some(Told { usage, output: self.output.is_some() })
    }
}

fn first(counts: &[Count]) -> u64 {
    counts.iter().find_map(|count| count.0).unwrap_or_default()
}

/// No part is larger than its total: where a server counts beside the total after all, nobody gets tokens for nothing.
fn whole(usage: TokenUsage) -> TokenUsage {
    let cached = usage.input_cache_read.saturating_add(usage.input_cache_write);
    let input = if cached > usage.input { usage.input.saturating_add(cached) } else { usage.input };
    let most = |parts: [u64; 2]| parts.into_iter().max().unwrap_or_default();
    TokenUsage {
        input: input.max(most([usage.input_audio, usage.input_image])),
        output: usage
            .output
            .max(usage.output_reasoning)
            .max(most([usage.output_audio, usage.output_image])),
        ..usage
    }
}

struct Lenient<T>(std::marker::PhantomData<T>);

/// Takes a number and swallows everything else.
macro_rules! numbers_only {
    ($name:ident, $u64:expr, $i64:expr, $f64:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Lenient::<$name>(std::marker::PhantomData))
            }
        }

        impl<'de> Visitor<'de> for Lenient<$name> {
            type Value = $name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E>(self, n: u64) -> Result<$name, E> {
                Ok($name($u64(n)))
            }

            fn visit_i64<E>(self, n: i64) -> Result<$name, E> {
                Ok($name($i64(n)))
            }

            fn visit_f64<E>(self, n: f64) -> Result<$name, E> {
                Ok($name($f64(n)))
            }

            fn visit_bool<E>(self, _: bool) -> Result<$name, E> {
                Ok($name(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<$name, E> {
                Ok($name(None))
            }

            fn visit_unit<E>(self) -> Result<$name, E> {
                Ok($name(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok($name(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok($name(None))
            }
        }
    };
}

numbers_only!(Count, Some, |n: i64| u64::try_from(n).ok(), whole_number);
numbers_only!(Millis, float, |n: i64| u64::try_from(n).ok().and_then(float), Some);

/// Whole milliseconds.
fn float(n: u64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53, or no time that anybody measured")]
    Some(n as f64)
}

/// A count that somebody wrote as `12.0`.
fn whole_number(n: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: whole, and below 2^53"
    )]
    (n >= 0.0 && n.fract() == 0.0 && n < 9e15).then_some(n as u64)
}

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(raw.get()).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn tokens(input: u64, read: u64, write: u64, output: u64, reasoning: u64) -> TokenUsage {
        TokenUsage {
            input,
            input_cache_read: read,
            input_cache_write: write,
            output,
            output_reasoning: reasoning,
            ..TokenUsage::default()
        }
    }

    #[test]
    fn what_servers_say_has_one_meaning() {
        let cases = [
            (
                r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}"#,
                Some(tokens(10, 0, 0, 4, 0)),
            ),
            (
                r#"{"prompt_tokens":100,"completion_tokens":40,"prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":30}}"#,
                Some(tokens(100, 64, 0, 40, 30)),
            ),
            // The rest of the total, where the completion is missing.
            (
                r#"{"prompt_tokens":10,"completion_tokens":null,"total_tokens":510}"#,
                Some(tokens(10, 0, 0, 500, 0)),
            ),
            (r#"{"completion_tokens":4,"total_tokens":14}"#, Some(tokens(10, 0, 0, 4, 0))),
            (
                r#"{"input_tokens":20,"input_tokens_details":{"cached_tokens":16},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":29}"#,
                Some(tokens(20, 16, 0, 9, 5)),
            ),
            (
                r#"{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":null,"x":[{}]}"#,
                Some(tokens(10, 0, 0, 4, 0)),
            ),
            (r#"{"prompt_tokens":10.0,"completion_tokens":4}"#, Some(tokens(10, 0, 0, 4, 0))),
            // Reasoning beside the completion, as the total tells.
            (
                r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":44,"completion_tokens_details":{"reasoning_tokens":30}}"#,
                Some(tokens(10, 0, 0, 34, 30)),
            ),
            // Reasoning that only the total has, or that it has beside others.
            (
                r#"{"prompt_tokens":5,"completion_tokens":3,"total_tokens":108}"#,
                Some(tokens(5, 0, 0, 103, 0)),
            ),
            (
                r#"{"prompt_tokens":5,"completion_tokens":3,"total_tokens":108,"completion_tokens_details":{"reasoning_tokens":90}}"#,
                Some(tokens(5, 0, 0, 103, 90)),
            ),
            (
                r#"{"prompt_tokens":5,"completion_tokens":3,"total_tokens":6}"#,
                Some(tokens(5, 0, 0, 3, 0)),
            ),
            // Cached beside the prompt, as the total tells.
            (
                r#"{"prompt_tokens":10,"completion_tokens":4,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":5}}"#,
                Some(tokens(15, 5, 0, 4, 0)),
            ),
            // Cached beside the prompt, which shows since it is more.
            (
                r#"{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":64}}"#,
                Some(tokens(67, 64, 0, 4, 0)),
            ),
            (
                r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_cache_hit_tokens":5,"prompt_cache_miss_tokens":4}"#,
                Some(tokens(9, 5, 0, 4, 0)),
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":4}"#, None),
            (r#"{"prompt_tokens":"10"}"#, None),
            ("null", None),
            ("[]", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|usage| Told { usage, output: true });
            assert_eq!(openai(&raw(text)), expected, "{text}");
        }
    }

    #[test]
    fn an_output_that_is_missing_is_no_zero() {
        for text in [
            r#"{"prompt_tokens":8}"#,
            r#"{"prompt_tokens":8,"total_tokens":8}"#,
            r#"{"prompt_tokens":8,"completion_tokens":null}"#,
            r#"{"prompt_tokens":8,"completion_tokens":"9"}"#,
        ] {
            let told = Told { usage: tokens(8, 0, 0, 0, 0), output: false };
            assert_eq!(openai(&raw(text)), Some(told), "{text}");
        }
        let mut counts = AnthropicCounts::default();
        counts.merge(&raw(r#"{"input_tokens":8}"#));
        assert!(!counts.told().unwrap().output);
    }

    #[test]
    fn anthropic_is_merged_and_its_cache_is_part_of_the_input() {
        let mut counts = AnthropicCounts::default();
        let usage = |counts: AnthropicCounts| counts.told().map(|told| told.usage);
        assert_eq!(usage(counts), None);
        counts.merge(&raw(r#"{"input_tokens":25,"cache_creation_input_tokens":10,"cache_read_input_tokens":100,"output_tokens":1}"#));
        assert_eq!(usage(counts), Some(tokens(135, 100, 10, 1, 0)));
        counts.merge(&raw(r#"{"output_tokens":15}"#));
        counts
            .merge(&raw(r#"{"input_tokens":25,"cache_read_input_tokens":100,"output_tokens":42}"#));
        assert_eq!(usage(counts), Some(tokens(135, 100, 10, 42, 0)));
    }

    #[test]
    fn timings_tell_what_usage_does_not() {
        let timings: Timings = serde_json::from_str(
            r#"{"cache_n":236,"prompt_n":1,"prompt_ms":30.9,"predicted_n":35,"predicted_ms":661.0,"predicted_per_second":52.9}"#,
        )
        .unwrap();
        let whole = Told { usage: tokens(237, 236, 0, 35, 0), output: true };
        assert_eq!(timings.complete(None), Some(whole));
        for before in [
            Told { usage: tokens(237, 0, 0, 35, 0), output: true },
            Told { usage: tokens(237, 0, 0, 0, 0), output: false },
        ] {
            assert_eq!(timings.complete(Some(before)), Some(whole));
        }
        assert_eq!(timings.phases().unwrap().prefill, Duration::from_micros(30_900));
        assert_eq!(Timings::default().complete(None), None);
    }
}
