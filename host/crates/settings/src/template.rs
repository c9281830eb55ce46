//! The file that a new operator begins with: every setting, what it does, and its default, all of it
//! commented out, so that the file changes nothing until somebody changes it.
//!
//! Lines of explanation begin with `# `, settings with `#` alone.

use std::path::Path;

use serde_json::Value;

use crate::exporter::{KEYS_OF_KINDS, TRACE_KEYS};
use crate::names::{self, EXPORTER};
use crate::schema::schema;

/// What the file calls its schema, which lies beside it.
pub const SCHEMA_FILE: &str = "tollgate.schema.json";

/// Where lines are broken.
const WIDTH: usize = 98;

/// What to write for settings that have no default which is a value.
const EXAMPLES: [(&str, &str); 32] = [
    ("plugins", "\"plugins\""),
    ("plugin-keys", "[\"RWQ...\"]"),
    ("admin-listen", "\"127.0.0.1:9090\""),
    ("otlp-listen", "[\"127.0.0.1:4317\", \"127.0.0.1:4318\"]"),
    ("otlp-certificate", "\"otlp.pem\""),
    ("otlp-key", "\"otlp-key.pem\""),
    ("otlp-mib-per-minute", "256"),
    ("admin-token-file", "\"admin-token\""),
    ("model", "\"demo\""),
    ("backends", "\"backends.toml\""),
    ("keys-file", "\"keys.toml\""),
    ("redis-url-file", "\"redis-url\""),
    ("redis-ca-file", "\"redis-ca.pem\""),
    ("ledger-retain-days", "90"),
    ("ledger-retain-mib", "10240"),
    ("ledger-budget-mib", "20480"),
    ("capture-content", "[\"acme-*\"]"),
    ("kv-memory-mib", "1024"),
    ("path", "\"tollgate-data/more-spans\""),
    ("rotate-mib", "256"),
    ("rotate-hours", "24"),
    ("keep", "30"),
    ("endpoint", "\"http://localhost:4317\""),
    ("protocol", "\"grpc\""),
    ("trace-wait-seconds", "10"),
    ("keep-slower-seconds", "2.5"),
    ("keep-cost", "\"0.05 USD\""),
    ("sample", "0.1"),
    ("headers", "{ authorization = { env = \"OTLP_AUTHORIZATION\" } }"),
    ("certificate", "\"ca.pem\""),
    ("client-certificate", "\"client.pem\""),
    ("client-key", "\"client-key.pem\""),
];

/// What the settings from a key on are about, in the order of the file.
const SECTIONS: [(&str, &str); 9] = [
    ("listen", "Where clients reach it, and what it writes"),
    ("plugins", "Plugins"),
    ("admin-listen", "Operators, and spans of other programs"),
    ("model", "Where inference runs"),
    ("keys-file", "Who is let in, and limits"),
    ("console", "What is shown and logged"),
    ("ledger-durability", "The ledger"),
    ("capture-content", "Prompts and answers on record"),
    ("max-body-bytes", "Requests and the engine"),
];

/// What exporters of each kind write.
const KINDS: [(&str, &str); 4] = [
    ("console", "Exporter: standard output"),
    ("ndjson", "Exporter: a file, one span a line"),
    ("otlp-json", "Exporter: a file of OTLP/JSON, as a Collector reads it"),
    ("otlp", "Exporter: an OpenTelemetry receiver"),
];

/// The text of the file; `plugins` is the folder of plugins that it sets, if it sets one.
#[must_use]
pub fn template(plugins: Option<&Path>) -> String {
    let schema = schema();
    let mut text = format!("#:schema ./{SCHEMA_FILE}\n");
    comment(&mut text, INTRODUCTION);
    for key in names::keys().iter().filter(|key| *key != EXPORTER) {
        if let Some((_, title)) = SECTIONS.iter().find(|(first, _)| first == key) {
            heading(&mut text, title);
        }
        text.push('\n');
        match plugins.filter(|_| key == "plugins") {
            Some(folder) => {
                comment(&mut text, "Folder of plugins, watched while running");
                // JSON's strings are TOML's, too.
                let folder = Value::from(folder.display().to_string());
                text.push_str(&format!("{key} = {folder}\n"));
            }
            None => setting(&mut text, key, schema.pointer(&format!("/properties/{key}"))),
        }
    }
    heading(&mut text, "Exporters: where spans go");
    comment(&mut text, EXPORTERS);
    let key_of_a_table = |text: &mut String, key: &str| {
        let place = format!("/properties/{EXPORTER}/items/properties/{key}");
        setting(text, key, schema.pointer(&place));
    };
    for (kind, keys) in KEYS_OF_KINDS {
        let title = KINDS.iter().find(|(of, _)| *of == kind).map_or(kind, |(_, title)| title);
        heading(&mut text, title);
        text.push_str(&format!("#[[{EXPORTER}]]\n#kind = \"{kind}\"\n#name = \"{kind}\"\n"));
        for key in ["start"].iter().chain(keys) {
            key_of_a_table(&mut text, key);
        }
    }
    heading(&mut text, WHOLE_TRACES);
    comment(&mut text, ABOUT_WHOLE_TRACES);
    for key in TRACE_KEYS {
        key_of_a_table(&mut text, key);
    }
    text
}

/// Begins a section.
fn heading(text: &mut String, title: &str) {
    text.push_str(&format!("\n# ---- {title} ----\n"));
}

const INTRODUCTION: &str = "Settings of tollgate: all of them, with what holds where nothing is set. Take the # before a \
    setting away to change it. `tollgate serve --config FILE` reads it, `tollgate config check FILE` says what is wrong \
    with it, `tollgate doctor --config FILE` whether the gateway could run. Each setting is a flag, too (listen: \
    --listen), and a variable (TOLLGATE_LISTEN): a flag wins over a variable, a variable over this file. Relative paths \
    begin where the gateway is started. No secret stands here: name a file of its own, or set the variable.";

const WHOLE_TRACES: &str = "Exporters of any kind: whole traces";

const ABOUT_WHOLE_TRACES: &str = "Keys of any of the tables above: the exporter waits until a trace is whole, and sends only those \
    that matter.";

const EXPORTERS: &str = "Without a table here spans go to the console, as `console` says, to spans.ndjson in the data \
    folder, and where OpenTelemetry's variables (OTEL_EXPORTER_OTLP_ENDPOINT and others) say. Tables take the place of the \
    first two, and one of kind otlp that of the variables. Any number of each kind, each with a name of its own.";

/// What it does, and its default, or an example where that is no value.
fn setting(text: &mut String, key: &str, property: Option<&Value>) {
    let of = |key: &str| property.and_then(|property| property.get(key));
    let options = of("oneOf").and_then(Value::as_array).into_iter().flatten();
    let options = options.filter_map(|option| {
        let meaning = option.get("description")?.as_str()?.trim_end_matches('.');
        Some(format!("{}: {}", option.get("const")?.as_str()?, lower(meaning)))
    });
    let options: Vec<String> = options.collect();
    let help = of("description").and_then(Value::as_str).unwrap_or_default();
    if options.is_empty() {
        comment(text, help);
    } else {
        comment(text, &format!("{help} ({})", options.join("; ")));
    }
    let example = EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, example)| *example);
    // An empty list says less than one with something in it.
    let default = of("default").filter(|value| example.is_none() || !value.is_array());
    match default {
        Some(value) => text.push_str(&format!("#{key} = {value}\n")),
        None => {
            text.push_str(FOR_EXAMPLE);
            text.push_str(&format!("\n#{key} = {}\n", example.unwrap_or_default()));
        }
    }
}

/// Above a setting that does not show its default.
const FOR_EXAMPLE: &str = "# For example:";

fn lower(text: &str) -> String {
    // `gRPC` and `JSON` stay what they are.
    if text.chars().nth(1).is_some_and(char::is_uppercase) {
        return text.to_owned();
    }
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |c| c.to_lowercase().chain(characters).collect())
}

/// Adds a text as lines of explanation.
fn comment(to: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            to.push_str(&line);
            to.push('\n');
            line.replace_range(1.., "");
        }
        line.push(' ');
        line.push_str(word);
    }
    to.push_str(&line);
    to.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::Given;
    use crate::resolved::{Settings, resolve};

    fn resolved(text: &str) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.toml");
        std::fs::write(&path, text).unwrap();
        let given = Given { config: Some(path), ..Given::default() };
        let variables = [("OTLP_AUTHORIZATION".to_owned(), "Bearer x".to_owned())];
        match resolve(given, variables, Path::new("/opt/tollgate")) {
            Ok(settings) => settings,
            Err(error) => panic!("{error}\n{text}"),
        }
    }

    /// The settings of the top, without their `#`: those with defaults, or those with examples.
    fn uncommented(examples: bool) -> String {
        let text = template(None);
        let top = text.split("\n#[[").next().unwrap();
        let lines: Vec<&str> = top.lines().collect();
        let pairs = lines.windows(2).filter(|pair| {
            pair[1].starts_with('#')
                && !pair[1].starts_with("# ")
                && !pair[1].starts_with("#:")
                && (pair[0] == FOR_EXAMPLE) == examples
        });
        pairs.map(|pair| format!("{}\n", &pair[1][1..])).collect()
    }

    #[test]
    fn as_it_is_written_it_changes_nothing() {
        assert_eq!(resolved(&template(None)), resolved(""));
    }

    #[test]
    fn the_defaults_it_names_are_the_defaults() {
        let text = uncommented(false);
        // The console is one of the exporters of a file without tables.
        assert!(text.lines().count() > 15, "{text}");
        assert_eq!(resolved(&text), resolved(""));
    }

    #[test]
    fn its_examples_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        for (name, secret) in [("admin-token", "0123456789abcdef"), ("redis-url", "redis://x")] {
            std::fs::write(folder.path().join(name), secret).unwrap();
        }
        let text = uncommented(true);
        assert!(text.lines().count() > 8, "{text}");
        let here = |name: &str| format!("\"{}\"", folder.path().join(name).display());
        let text = text
            .replace("\"admin-token\"", &here("admin-token"))
            .replace("\"redis-url\"", &here("redis-url"));
        assert_eq!(resolved(&text).admin_listen.map(|address| address.port()), Some(9090));
    }

    #[test]
    fn each_table_is_taken() {
        let text = template(None);
        let (tables, traces) = text.split_once(WHOLE_TRACES).unwrap();
        let settings_of = |text: &str| {
            let settings =
                text.lines().filter(|line| line.starts_with('#') && !line.starts_with("# "));
            settings.map(|line| format!("{}\n", line.trim_start_matches('#'))).collect::<String>()
        };
        let traces = settings_of(traces.split_once('\n').unwrap().1);
        assert_eq!(traces.lines().count(), TRACE_KEYS.len());
        let mut seen = 0;
        for table in tables.split("\n#[[exporter]]").skip(1) {
            let settings = resolved(&format!("[[exporter]]\n{}{traces}", settings_of(table)));
            assert_eq!(settings.exporters.len(), 1);
            assert!(settings.exporters[0].traces.is_some());
            seen += 1;
        }
        assert_eq!(seen, KEYS_OF_KINDS.len());
    }

    #[test]
    fn every_section_has_its_heading_and_no_key_stands_twice() {
        let text = template(None);
        for (first, title) in SECTIONS {
            let section = text.split_once(&format!("# ---- {title} ----\n\n")).unwrap().1;
            let setting = section.lines().find(|line| !line.starts_with("# ")).unwrap();
            assert!(setting.starts_with(&format!("#{first} = ")), "{title}: {setting}");
        }
        for (kind, title) in KINDS {
            assert!(
                text.contains(&format!("---- {title} ----\n#[[exporter]]\n#kind = \"{kind}\"\n"))
            );
        }
        for key in TRACE_KEYS {
            assert_eq!(text.matches(&format!("\n#{key} = ")).count(), 1, "{key}");
        }
    }

    #[test]
    fn a_folder_of_plugins_is_set_if_one_is_given() {
        let settings = resolved(&template(Some(Path::new("a \"b\"/plugins"))));
        assert_eq!(settings.plugins, Path::new("a \"b\"/plugins"));
        assert_eq!(settings.exporters, resolved("").exporters);
    }

    #[test]
    fn no_line_is_too_long_and_none_is_empty_handed() {
        for line in template(None).lines() {
            assert!(line.len() <= WIDTH, "{line}");
            assert!(!line.ends_with("= "), "{line}");
        }
    }
}
