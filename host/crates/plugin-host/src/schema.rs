//! A configuration against the JSON Schema that its plugin hands over.
//!
//! The schema is a guest's, so it is measured before it is used: size, depth, what it comes to with every reference
//! written out (that is what validating a value costs), and how many patterns it has. References lead to places in the schema itself and never back to where they
//! stand; patterns run on an engine whose time is linear. What a message shows of a configuration is where, not what: a
//! value may be a secret.

use std::collections::HashMap;
use std::fmt::Write;

use jsonschema::{PatternOptions, ValidationError};
use serde_json::Value;

use tollgate_domain::text::one_line;

use crate::error::PluginHostError;

/// Most bytes of a schema.
const BYTES: usize = 64 << 10;
/// Most levels of it, references written out.
const DEPTH: usize = 64;
/// Most values in it, references written out.
const VALUES: u64 = 20_000;
/// Most patterns, each of which becomes a program.
const PATTERNS: u64 = 64;
/// Most bytes of one such program.
const PATTERN_BYTES: usize = 256 << 10;
/// Most values of the schema times values of the configuration.
const WORK: u64 = 200_000_000;
/// Most faults named at once.
const FAULTS: usize = 5;

/// Checks a configuration. Both are JSON.
pub(crate) fn check(schema: &str, config: &str) -> Result<(), PluginHostError> {
    let unusable = |what: String| PluginHostError::Described(format!("config-schema {what}"));
    if schema.len() > BYTES {
        return Err(unusable(format!("has {} bytes and the limit is {BYTES}", schema.len())));
    }
    let schema: Value =
        serde_json::from_str(schema).map_err(|error| unusable(format!("is not JSON: {error}")))?;
    let config: Value = serde_json::from_str(config)
        .map_err(|error| PluginHostError::Configuration(error.to_string()))?;
    let size = Measure::of(&schema).map_err(unusable)?;
    if size.saturating_mul(values(&config)) > WORK {
        return Err(unusable(
            "is too much work for a configuration as large as this one".to_owned(),
        ));
    }
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES);
    let validator = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(false)
        .build(&schema)
        .map_err(|error| unusable(format!("is not acceptable: {}", shown(&error))))?;
    let mut faults = String::new();
    let mut errors = validator.iter_errors(&config);
    for error in errors.by_ref().take(FAULTS) {
        if !faults.is_empty() {
            faults.push_str("; ");
        }
        faults.push_str(&shown(&error));
    }
    if errors.next().is_some() {
        faults.push_str("; and more");
    }
    if faults.is_empty() { Ok(()) } else { Err(PluginHostError::Configuration(faults)) }
}

fn shown(error: &ValidationError<'_>) -> String {
    let mut text = String::new();
    let path = error.instance_path().as_str();
    if !path.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "at {path:?}: ");
    }
    let _ = write!(text, "{}", error.masked());
    one_line(&text, 512)
}

fn values(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(values).fold(1, u64::saturating_add),
        Value::Object(fields) => fields.values().map(values).fold(1, u64::saturating_add),
        _ => 1,
    }
}

/// Walks a schema as its validator will, with every reference written out.
struct Measure<'a> {
    root: &'a Value,
    patterns: u64,
    /// What a reference comes to; none while it is being followed.
    followed: HashMap<&'a str, Option<(u64, usize)>>,
}

impl<'a> Measure<'a> {
    /// How many values it comes to.
    fn of(root: &'a Value) -> Result<u64, String> {
        let mut measure = Self { root, patterns: 0, followed: HashMap::from([("#", None)]) };
        let (values, _) = measure.schema(root, 0)?;
        Ok(values)
    }

    /// Values and levels of the schema at `value`. `depth`: levels above it, without references.
    fn schema(&mut self, value: &'a Value, depth: usize) -> Result<(u64, usize), String> {
        let (mut sum, mut levels) = (1, 0);
        let mut add = |(values, below): (u64, usize)| {
            sum = u64::saturating_add(sum, values);
            levels = levels.max(below);
        };
        if depth > DEPTH {
            return Err(format!("has more than {DEPTH} levels"));
        }
        match value {
            Value::Object(fields) => {
                for (keyword, inner) in fields {
                    add(self.keyword(keyword, inner, depth.saturating_add(1))?);
                }
                // What is left to these is found by validating all the rest again, level by level.
                if fields.keys().any(|keyword| keyword.starts_with("unevaluated")) {
                    let again = u64::try_from(levels).unwrap_or(u64::MAX).saturating_add(2);
                    sum = sum.saturating_mul(again);
                }
            }
            Value::Array(items) => {
                for item in items {
                    add(self.schema(item, depth.saturating_add(1))?);
                }
            }
            _ => {}
        }
        let levels = levels.saturating_add(1);
        if sum > VALUES {
            return Err(format!(
                "comes to more than {VALUES} values with its references written out"
            ));
        }
        if levels > DEPTH {
            return Err(format!("has more than {DEPTH} levels"));
        }
        Ok((sum, levels))
    }

    fn keyword(
        &mut self,
        keyword: &'a str,
        value: &'a Value,
        depth: usize,
    ) -> Result<(u64, usize), String> {
        match (keyword, value) {
            // The keys are names, the values are schemas.
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies",
                Value::Object(named),
            ) => {
                if keyword == "patternProperties" {
                    self.patterns(u64::try_from(named.len()).unwrap_or(u64::MAX))?;
                }
                let (mut sum, mut levels) = (1_u64, 0);
                for inner in named.values() {
                    let (values, below) = self.schema(inner, depth.saturating_add(1))?;
                    sum = sum.saturating_add(values);
                    levels = levels.max(below);
                }
                Ok((sum, levels.saturating_add(1)))
            }
            ("enum" | "const" | "default" | "examples", data) => Ok((values(data), 1)),
            ("pattern", Value::String(_)) => {
                self.patterns(1)?;
                Ok((1, 1))
            }
            ("$ref", Value::String(target)) => self.reference(target),
            (
                "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef"
                | "$recursiveAnchor",
                _,
            ) => Err(format!(
                "uses {keyword}, which is not followed here; refer to places as in \"#/$defs/name\""
            )),
            (_, inner) => self.schema(inner, depth),
        }
    }

    fn patterns(&mut self, more: u64) -> Result<(), String> {
        self.patterns = self.patterns.saturating_add(more);
        if self.patterns > PATTERNS {
            return Err(format!("has more than {PATTERNS} patterns"));
        }
        Ok(())
    }

    fn reference(&mut self, target: &'a str) -> Result<(u64, usize), String> {
        let shown = || one_line(target, 128);
        match self.followed.get(target) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => {
                return Err(format!(
                    "leads back to itself by {:?}; write it out, or leave that part to `configure`",
                    shown()
                ));
            }
            None => {}
        }
        let pointer = target.strip_prefix('#').filter(|p| p.starts_with('/') && !p.contains('%'));
        let place = pointer.and_then(|pointer| self.root.pointer(pointer)).ok_or_else(|| {
            format!(
                "refers to {:?}, which is no place in it; refer to places as in \"#/$defs/name\"",
                shown()
            )
        })?;
        self.followed.insert(target, None);
        let measured = self.schema(place, 0)?;
        self.followed.insert(target, Some(measured));
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(schema: &Value, config: &Value) -> Result<(), String> {
        check(&schema.to_string(), &config.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn faults_are_named_by_place_and_without_the_value() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["salt"],
            "properties": {
                "salt": { "type": "string", "minLength": 10, "pattern": "^[a-z]+$" },
                "models": { "type": "array", "items": { "$ref": "#/$defs/model" } },
                "default": { "$ref": "#/$defs/model" },
            },
            "additionalProperties": false,
            "$defs": { "model": { "type": "object", "required": ["input"] } },
        });
        assert_eq!(
            said(&schema, &json!({ "salt": "abcdefghijk", "default": {"input": 1} })),
            Ok(())
        );
        let cases = [
            (json!({}), "salt"),
            (json!({ "salt": "abcdefghijk", "slat": 1 }), "slat"),
            (json!({ "salt": "abcdefghijk", "models": [{"input": 1}, {}] }), "/models/1"),
            (json!({ "salt": "hushhush" }), "/salt"),
        ];
        for (config, named) in cases {
            let error = said(&schema, &config).unwrap_err();
            assert!(error.contains(named) && error.contains("plugins.toml"), "{error}");
            assert!(!error.contains("hushhush"), "{error}");
        }
    }

    #[test]
    fn a_schema_that_would_take_for_ever_is_refused_at_once() {
        let mut doubling = json!({ "$ref": "#/$defs/d0" });
        for n in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/d{}", n + 1) });
            doubling["$defs"][format!("d{n}")] = json!({ "allOf": [next, next] });
        }
        doubling["$defs"]["d40"] = json!({ "type": "object" });
        let mut deep = json!(true);
        for _ in 0..100 {
            deep = json!({ "not": deep });
        }
        let chain: Value = (0..100)
            .map(|n| (format!("d{n}"), json!({ "not": { "$ref": format!("#/$defs/d{}", n + 1) } })))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let many: Vec<Value> = (0..100).map(|n| json!({ "pattern": n.to_string() })).collect();
        let mut left_over = json!({ "unevaluatedProperties": false });
        for n in 0..30 {
            let name = format!("p{n}");
            left_over = json!({ "allOf": [left_over], "properties": { name: {} }, "unevaluatedProperties": false });
        }
        let cases = [
            (doubling, "20000 values"),
            (left_over, "20000 values"),
            (deep, "64 levels"),
            (json!({ "$ref": "#/$defs/d0", "$defs": chain }), "d100"),
            (json!({ "$ref": "#" }), "leads back"),
            (json!({ "allOf": [{ "$ref": "#" }] }), "leads back"),
            (json!({ "properties": { "a": { "$ref": "#/properties" } } }), "leads back"),
            (
                json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
                "leads back",
            ),
            (json!({ "$ref": "https://example.com/schema" }), "no place"),
            (json!({ "$ref": "file:///etc/passwd" }), "no place"),
            (json!({ "$ref": "other.json#/a" }), "no place"),
            (json!({ "$dynamicRef": "#x" }), "$dynamicRef"),
            (json!({ "$id": "https://example.com/" }), "$id"),
            (json!({ "$schema": "https://example.com/dialect" }), "not acceptable"),
            (json!({ "anyOf": many }), "64 patterns"),
            (json!({ "pattern": "(\\w{1000}){1000}" }), "not acceptable"),
            (json!({ "pattern": "(?=a)b" }), "not acceptable"),
            (json!({ "type": "nonsense" }), "not acceptable"),
            (json!(7), "not acceptable"),
            (json!({ "description": "x".repeat(BYTES) }), "bytes"),
        ];
        for (schema, named) in cases {
            let error = said(&schema, &json!({})).unwrap_err();
            assert!(error.contains(named) && error.contains("config-schema"), "{named}: {error}");
        }
    }

    #[test]
    fn a_slow_pattern_is_fast_here() {
        let schema = json!({ "properties": { "a": { "pattern": "^(a+)+$" } } });
        let config = json!({ "a": format!("{}!", "a".repeat(50_000)) });
        assert!(said(&schema, &config).unwrap_err().contains("/a"));
    }
}
