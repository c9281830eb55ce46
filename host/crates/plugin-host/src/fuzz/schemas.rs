//! JSON Schemas as a stranger may write them: keywords that exist, and anything behind them.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};

/// How deep they get.
const DEPTH: usize = 5;
/// Most entries of a list or an object.
const MOST: usize = 4;

const TYPES: [&str; 7] = ["object", "string", "integer", "number", "array", "boolean", "null"];
const PLACES: [&str; 7] =
    ["#", "#/$defs/a", "#/properties/a", "#/$defs/%61", "#a", "https://example.com/a", "#/a/0/~1"];
const PATTERNS: [&str; 6] =
    ["^a+$", "(a|b)*c{2,9}", "[\\p{L}]{0,999}", "(?=a)", "((a{99}){99}){99}", "["];
const KEYS: [&str; 5] = ["a", "b", "$ref", "", "é"];

/// A schema, or something like one.
pub(super) fn schema(u: &mut Unstructured<'_>) -> Result<Value> {
    any_schema(u, DEPTH)
}

/// Any JSON.
pub(super) fn json(u: &mut Unstructured<'_>) -> Result<Value> {
    any_json(u, DEPTH)
}

fn any_schema(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let mut schema = Map::new();
    if depth == 0 || u.is_empty() {
        return Ok(u.arbitrary::<bool>()?.into());
    }
    while schema.len() < MOST && !u.is_empty() && u.ratio(3_u8, 4)? {
        let (keyword, value) = keyword(u, depth - 1)?;
        schema.insert(keyword.to_owned(), value);
    }
    Ok(Value::Object(schema))
}

fn keyword(u: &mut Unstructured<'_>, depth: usize) -> Result<(&'static str, Value)> {
    if u.ratio(1_u8, 16)? {
        let odd = ["type", "$ref", "pattern", "properties", "allOf", "required", "enum", "items"];
        return Ok((u.choose(&odd)?, any_json(u, depth)?));
    }
    Ok(match u.int_in_range(0..=7_u8)? {
        0 => ("type", Value::from(*u.choose(&TYPES)?)),
        1 => (
            *u.choose(&["$ref", "$dynamicRef", "$id", "$anchor"])?,
            Value::from(*u.choose(&PLACES)?),
        ),
        2 if u.arbitrary()? => ("pattern", Value::from(*u.choose(&PATTERNS)?)),
        2 => ("pattern", Value::from(u.arbitrary::<String>()?)),
        3 => {
            let keyword =
                u.choose(&["properties", "$defs", "patternProperties", "dependentSchemas"])?;
            let mut schemas = Map::new();
            while schemas.len() < MOST && !u.is_empty() && u.arbitrary()? {
                schemas.insert(key(u)?, any_schema(u, depth)?);
            }
            (keyword, Value::Object(schemas))
        }
        4 => {
            let keyword = u.choose(&["allOf", "anyOf", "oneOf", "prefixItems"])?;
            let mut schemas = Vec::new();
            while schemas.len() < MOST && !u.is_empty() && u.arbitrary()? {
                schemas.push(any_schema(u, depth)?);
            }
            (keyword, Value::Array(schemas))
        }
        5 => {
            let keywords = [
                "items",
                "not",
                "if",
                "then",
                "else",
                "additionalProperties",
                "contains",
                "propertyNames",
            ];
            (u.choose(&keywords)?, any_schema(u, depth)?)
        }
        6 => (u.choose(&["enum", "required", "const", "default"])?, any_json(u, depth)?),
        _ => {
            let keywords = [
                "multipleOf",
                "minimum",
                "exclusiveMaximum",
                "maxLength",
                "minItems",
                "maxProperties",
            ];
            (u.choose(&keywords)?, number(u)?)
        }
    })
}

fn any_json(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let most = if depth == 0 { 3 } else { 5 };
    Ok(match u.int_in_range(0..=most)? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => number(u)?,
        3 => u.arbitrary::<String>()?.into(),
        4 => {
            let mut items = Vec::new();
            while items.len() < MOST && !u.is_empty() && u.arbitrary()? {
                items.push(any_json(u, depth - 1)?);
            }
            Value::Array(items)
        }
        _ => {
            let mut object = Map::new();
            while object.len() < MOST && !u.is_empty() && u.arbitrary()? {
                object.insert(key(u)?, any_json(u, depth - 1)?);
            }
            Value::Object(object)
        }
    })
}

fn key(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(if u.arbitrary()? { (*u.choose(&KEYS)?).to_owned() } else { u.arbitrary()? })
}

fn number(u: &mut Unstructured<'_>) -> Result<Value> {
    // Infinity is none of JSON, and becomes null.
    Ok(if u.arbitrary()? { u.arbitrary::<i64>()?.into() } else { u.arbitrary::<f64>()?.into() })
}
