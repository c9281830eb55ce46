//! Answers that a JSON schema holds: which tokens may come next.
//!
//! A schema becomes a grammar, and after each token the grammar says which tokens can follow. Both
//! have limits: what a client sends decides what they cost. JSON is written without spaces between its
//! parts, as OpenAI does: else a model may write nothing but line breaks until its limit.

use std::fmt;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::Value;

use crate::vocabulary::TokenBytes;
use crate::{ModelError, Tokenizer};

/// Longest schema, in bytes of JSON.
const LONGEST_SCHEMA: usize = 64 << 10;

/// Bytes of a token that the grammar can take; longer ones are not chosen.
const LONGEST_TOKEN: usize = 512;

/// Longest message about a schema, in characters.
const LONGEST_MESSAGE: usize = 300;

/// How far an answer is within its schema. A clone goes its own way.
pub struct Constraint {
    matcher: Matcher,
    /// Which tokens may follow, if that has been computed.
    mask: Option<Mask>,
}

/// Which tokens may come next.
pub struct Mask(SimpleVob);

/// Makes grammars for one vocabulary; the reason if that cannot be done.
pub(crate) type Grammars = Result<Arc<ParserFactory>, String>;

/// What grammars need to know of a vocabulary.
pub(crate) fn grammars(tokens: &[TokenBytes], ends: &[u32]) -> Grammars {
    let ends: Vec<u32> =
        ends.iter().copied().filter(|end| (*end as usize) < tokens.len()).collect();
    let Some(first) = ends.first() else {
        return Err("this model has no token that ends an answer".to_owned());
    };
    let size = u32::try_from(tokens.len()).map_err(|error| error.to_string())?;
    let words: Vec<Vec<u8>> = tokens.iter().map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size, *first), &words).with_eos_tokens(&ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let factory = ParserFactory::new_simple(&environment);
    let mut factory = factory.map_err(|error| error.to_string())?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.initial_lexer_fuel = 500_000;
    limits.max_grammar_size = 100_000;
    limits.max_lexer_states = 50_000;
    limits.verbose_errors = false;
    Ok(Arc::new(factory))
}

/// A token as the trie takes it: special ones are marked, so that no text is taken for them.
fn word(token: &TokenBytes) -> Vec<u8> {
    let TokenBytes { bytes, special } = token;
    if bytes.len() > LONGEST_TOKEN || bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
        return Vec::new();
    }
    let mark = special.then_some(TokTrie::SPECIAL_TOKEN_MARKER);
    mark.into_iter().chain(bytes.iter().copied()).collect()
}

impl Tokenizer {
    /// The beginning of an answer that this JSON schema, given as JSON, holds. The latest schemas are
    /// kept compiled.
    ///
    /// # Errors
    /// [`ModelError::Schema`] if it is none, is too large, or says something that cannot be held.
    pub fn constraint(&self, schema: &str) -> Result<Constraint, ModelError> {
        if schema.len() > LONGEST_SCHEMA {
            let problem = format!("it has more than {LONGEST_SCHEMA} bytes, which is the limit");
            return Err(ModelError::Schema(problem));
        }
        if let Some(known) = self.schemas().get(schema) {
            return Ok(known);
        }
        let constraint = self.compiled(schema)?;
        self.schemas().put(schema, &constraint);
        Ok(constraint)
    }

    fn compiled(&self, schema: &str) -> Result<Constraint, ModelError> {
        let unusable = |problem: String| ModelError::Schema(shortened(&problem));
        let mut schema: Value =
            serde_json::from_str(schema).map_err(|error| unusable(error.to_string()))?;
        let Value::Object(fields) = &mut schema else {
            return Err(unusable("it must be a JSON object".to_owned()));
        };
        // How the JSON is written is ours to say.
        let form =
            JsonCompileOptions { whitespace_flexible: false, ..JsonCompileOptions::default() };
        let form = serde_json::to_value(form).map_err(|error| unusable(error.to_string()))?;
        fields.insert("x-guidance".to_owned(), form);
        let factory = self.grammars().map_err(|error| unusable(error.to_owned()))?;
        let parser = factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            None => Ok(Constraint { matcher, mask: None }),
            Some(problem) => Err(unusable(problem)),
        }
    }
}

impl Constraint {
    /// Finds out which tokens may come next, if that is not known yet. What goes wrong is told by
    /// [`Constraint::mask`].
    pub fn prepare(&mut self) {
        if self.mask.is_none() {
            self.mask = self.matcher.compute_mask_or_eos().ok().map(Mask);
        }
    }

    /// Which tokens may come next.
    ///
    /// # Errors
    /// [`ModelError::Schema`] if finding that out takes more than it may.
    pub fn mask(&mut self) -> Result<&Mask, ModelError> {
        self.prepare();
        let problem = self.matcher.get_error();
        self.mask.as_ref().ok_or_else(|| {
            ModelError::Schema(shortened(&problem.unwrap_or_else(|| "no token fits".to_owned())))
        })
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`ModelError::Schema`] if it may not come here.
    pub fn accept(&mut self, token: u32) -> Result<(), ModelError> {
        self.mask = None;
        self.matcher
            .consume_token(token)
            .map_err(|error| ModelError::Schema(shortened(&error.to_string())))
    }

    /// Whether the answer is whole and nothing can follow.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped()
    }
}

impl Mask {
    /// Takes all other tokens out.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        let allowed = self.0.as_slice();
        for (word, logits) in logits.chunks_mut(32).enumerate() {
            let word = allowed.get(word).copied().unwrap_or(0);
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), mask: None }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

/// One line, and not too long.
fn shortened(problem: &str) -> String {
    let line = problem.lines().next().unwrap_or_default();
    line.chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, ModelSource, Sampler, SamplingOptions};

    fn tokenizer() -> Tokenizer {
        Model::load(&ModelSource::Demo).unwrap().tokenizer()
    }

    #[test]
    fn only_what_the_schema_holds_can_be_drawn() {
        let tokenizer = tokenizer();
        let schema = r#"{"type":"object","properties":{"city":{"type":"string","maxLength":8},
            "size":{"enum":["small","large"]},"count":{"type":"integer","minimum":0,"maximum":99}},
            "required":["city","size","count"],"additionalProperties":false}"#;
        let fresh = tokenizer.constraint(schema).unwrap();
        for seed in 0..40 {
            let mut constraint = fresh.clone();
            let mut sampler = Sampler::new(SamplingOptions { seed, ..SamplingOptions::default() });
            let mut tokens = Vec::new();
            while !constraint.is_done() {
                let mut logits = vec![0.0; tokenizer.vocabulary() + 3];
                let mask = constraint.mask().unwrap();
                let (token, _) = sampler.choose_from(&mut logits, &[], Some(mask)).unwrap();
                constraint.accept(token).unwrap();
                tokens.push(token);
                assert!(tokens.len() < 200, "the schema bounds the answer");
            }
            let text = tokenizer.decode(&tokens).unwrap();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["city"].as_str().unwrap().chars().count() <= 8, "{text}");
            assert!(["small", "large"].contains(&value["size"].as_str().unwrap()), "{text}");
            assert!(
                value["count"].as_u64().unwrap() <= 99 && value.as_object().unwrap().len() == 3
            );
        }
    }

    #[test]
    fn what_cannot_be_held_is_refused_with_a_reason() {
        let tokenizer = tokenizer();
        let deep = "{\"properties\":{\"a\":".repeat(200) + "true" + &"}}".repeat(200);
        let long = format!(r#"{{"enum":["{}"]}}"#, "x".repeat(LONGEST_SCHEMA));
        for (schema, reason) in [
            ("[]", "must be a JSON object"),
            ("{", "EOF"),
            (r#"{"type":"object","not":{"type":"string"}}"#, "not"),
            (r#"{"$ref":"https://example.com/schema"}"#, ""),
            (r#"{"type":"string","pattern":"("}"#, ""),
            (r#"{"type":"integer","minimum":5,"maximum":1}"#, ""),
            (deep.as_str(), "recursion limit"),
            (long.as_str(), "65536 bytes"),
        ] {
            let began = std::time::Instant::now();
            let error = tokenizer.constraint(schema).unwrap_err();
            assert!(matches!(&error, ModelError::Schema(said) if said.contains(reason)), "{error}");
            assert!(error.to_string().len() < 500, "{error}");
            assert!(began.elapsed().as_secs() < 20, "{schema:.80}");
        }
    }
}
