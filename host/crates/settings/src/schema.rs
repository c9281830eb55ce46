//! The JSON Schema of the file, for editors and for whoever generates files.
//!
//! Names, types and descriptions are derived from [`Given`]; what is added here is what types do not
//! say: defaults, least values, and which keys an exporter of some kind may have. What only the
//! program can know stays out of it: whether names are given twice, whether files are there, what
//! one value means for another.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::exporter::{KEYS_OF_KINDS, LONGEST_NAME};
use crate::given::Given;
use crate::names::{EXPORTER, split_default};

/// Counts of an exporter that must not be 0.
const AT_LEAST_ONE: [&str; 6] = [
    "rotate-mib",
    "rotate-hours",
    "keep",
    "timeout-seconds",
    "trace-wait-seconds",
    "trace-memory-mib",
];

/// The schema of the settings file, by JSON Schema 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut schema = derived();
    add(&mut schema, "", "title", "Settings of tollgate");
    for (name, _) in Given::default().at_least_one() {
        add(&mut schema, &format!("/properties/{name}"), "minimum", 1);
    }
    if let Some(table) = schema.pointer_mut(&format!("/properties/{EXPORTER}/items")) {
        exporter(table);
    }
    describe(&mut schema);
    schema
}

/// Sets a key of what stands at a JSON pointer.
fn add(schema: &mut Value, place: &str, key: &str, value: impl Into<Value>) {
    if let Some(fields) = schema.pointer_mut(place).and_then(Value::as_object_mut) {
        fields.insert(key.to_owned(), value.into());
    }
}

/// What types and doc comments say.
fn derived() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<Given>().to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: a key that is not set is not there.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            fields.values_mut().for_each(without_null);
            fields.retain(|key, value| key != "default" || !value.is_null());
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(mut either)) = fields.remove("anyOf") {
                either.retain(|one| one != &json!({"type": "null"}));
                match either.as_slice() {
                    [Value::Object(only)] => {
                        for (key, value) in only {
                            fields.entry(key.clone()).or_insert_with(|| value.clone());
                        }
                    }
                    _ => {
                        fields.insert("anyOf".to_owned(), either.into());
                    }
                }
            }
        }
        _ => {}
    }
}

/// A table: what its kind says about its keys.
fn exporter(table: &mut Value) {
    let kinds = KEYS_OF_KINDS.map(|(kind, _)| kind);
    add(table, "/properties/kind", "enum", json!(kinds));
    let name = format!("^[a-z0-9_-]{{1,{LONGEST_NAME}}}$");
    add(table, "/properties/name", "pattern", name);
    for key in AT_LEAST_ONE {
        add(table, &format!("/properties/{key}"), "minimum", 1);
    }
    for key in ["compress", "compression"] {
        add(table, &format!("/properties/{key}"), "enum", json!(["none", "gzip", "zstd"]));
    }
    describe(table);
    let every: Vec<&str> =
        KEYS_OF_KINDS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let rules = KEYS_OF_KINDS.map(|(kind, keys)| {
        let others = every.iter().filter(|key| !keys.contains(key));
        let refused: Map<String, Value> =
            others.map(|key| ((*key).to_owned(), Value::Bool(false))).collect();
        json!({
            "if": {"properties": {"kind": {"const": kind}}},
            "then": {"properties": refused},
        })
    });
    add(table, "", "allOf", json!(rules));
    add(table, "", "required", json!(["kind"]));
}

/// Takes defaults that are values out of the descriptions of all properties, and puts them where editors look for them.
fn describe(schema: &mut Value) {
    let properties = schema.pointer_mut("/properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        let Some(text) = property.get("description").and_then(Value::as_str) else { continue };
        let (help, default) = split_default(text);
        let value = default.as_deref().and_then(|default| value_of(property, default));
        let description = match (&default, &value) {
            (Some(words), None) => format!("{help} [default: {words}]"),
            _ => help,
        };
        add(property, "", "description", description);
        if let Some(value) = value {
            add(property, "", "default", value);
        }
    }
}

/// The default as a value, where it is one and no words.
fn value_of(property: &Value, default: &str) -> Option<Value> {
    if let Some(options) = property.get("oneOf").and_then(Value::as_array) {
        let mut options = options.iter().filter_map(|option| option.get("const"));
        return options.find(|option| *option == default).cloned();
    }
    if let Some(options) = property.get("enum").and_then(Value::as_array) {
        return options.iter().find(|option| *option == default).cloned();
    }
    match property.get("type")?.as_str()? {
        "integer" => default.parse::<u64>().ok().map(Value::from),
        "boolean" => default.parse::<bool>().ok().map(Value::from),
        "array" => (default == "none").then(|| json!([])),
        "string" => {
            let is_word = default != "none" && !default.contains([' ', '`']);
            is_word.then(|| default.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;
    use crate::resolved::resolve;

    /// What the program says of a file, and what the schema says.
    fn verdicts(text: &str) -> (Result<(), String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.toml");
        std::fs::write(&path, text).unwrap();
        let given = Given { config: Some(path), ..Given::default() };
        let resolved = resolve(given, [], std::path::Path::new("/opt/tollgate"));
        let value: Value = toml::from_str(text).unwrap();
        let schema = jsonschema::validator_for(&schema()).unwrap();
        (resolved.map(drop).map_err(|error| error.to_string()), schema.is_valid(&value))
    }

    #[test]
    fn the_schema_takes_what_the_program_takes() {
        let cases = [
            ("", true),
            ("listen = \"0.0.0.0:80\"\nmodel = \"none\"\nanonymous = true", true),
            ("plugin-keys = [\"RWa\"]\ncapture-content = [\"acme-*\"]\ncapture-kib = 0", true),
            ("console = \"off\"\nlog-format = \"json\"\nredis-away = \"closed\"", true),
            ("[[exporter]]\nkind = \"otlp\"\nheaders = { a = \"b\", c = \"d\" }", true),
            ("[[exporter]]\nkind = \"ndjson\"\nrotate-mib = 1\ncompress = \"zstd\"", true),
            ("lisen = \"127.0.0.1:1\"", false),
            ("listen = 8080", false),
            ("config = \"x\"", false),
            ("console = \"loud\"", false),
            ("anonymous = \"yes\"", false),
            ("plugin-keys = \"RWa\"", false),
            ("drain-seconds = -1", false),
            ("[[exporter]]\nname = \"x\"", false),
            ("[[exporter]]\nkind = \"file\"", false),
            ("[[exporter]]\nkind = \"otlp\"\nname = \"Big Name\"", false),
            ("[[exporter]]\nkind = \"otlp\"\nprotocol = \"http\"", false),
            ("[[exporter]]\nkind = \"otlp\"\ncompression = \"lz4\"", false),
            ("[[exporter]]\nkind = \"otlp\"\nheaders = { a = { variable = \"A\" } }", false),
            ("[[exporter]]\nkind = \"otlp\"\ncolour = true", false),
            ("[[exporter]]\nkind = \"otlp\"\ntimeout-seconds = 0", false),
            ("[[exporter]]\nkind = \"ndjson\"\nrotate-hours = 0", false),
        ];
        for (text, fine) in cases {
            let (program, schema) = verdicts(text);
            assert_eq!((program.is_ok(), schema), (fine, fine), "{text}: {program:?}");
        }
        for (name, _) in Given::default().at_least_one() {
            let (program, schema) = verdicts(&format!("{name} = 0"));
            assert_eq!((program.is_ok(), schema), (false, false), "{name}");
        }
    }

    #[test]
    fn each_kind_of_exporter_has_the_same_keys_in_both() {
        let value = |key: &str| match key {
            "rotate-mib" | "rotate-hours" | "keep" | "timeout-seconds" => "1",
            "headers" => "{}",
            "format" => "\"tree\"",
            "protocol" => "\"http/json\"",
            "endpoint" => "\"http://localhost:4318\"",
            _ => "\"none\"",
        };
        for (kind, _) in KEYS_OF_KINDS {
            for key in KEYS_OF_KINDS.iter().flat_map(|(_, keys)| keys.iter()) {
                let text = format!("[[exporter]]\nkind = \"{kind}\"\n{key} = {}", value(key));
                let (program, schema) = verdicts(&text);
                let means_nothing = program.is_err_and(|error| error.contains("means nothing"));
                assert_eq!(means_nothing, !schema, "{kind} {key}");
            }
        }
    }

    #[test]
    fn every_setting_is_described() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.keys().cloned().collect::<Vec<_>>(), names::keys());
        for (key, property) in properties {
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{key}");
        }
        assert_eq!(properties["listen"]["default"], "127.0.0.1:8080");
        assert_eq!(properties["max-queued"]["default"], 256);
        assert_eq!(properties["console"]["default"], "tree");
    }
}
