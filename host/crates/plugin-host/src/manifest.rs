//! `plugins.toml` in the plugin folder. Optional: without it every file is loaded, in the order of their names, for all
//! that it exports, with an empty configuration.
//!
//! ```toml
//! [[plugin]]
//! file = "cost.wasm"              # the only key that must be there
//! enabled = true
//! order = 0                       # lower is asked first; equal ones go by name
//! roles = ["cost-model"]          # of what it exports, use this; default: all
//! match = { models = ["gpt-4o*"], providers = [], tenants = [], operations = [], exporters = [] }
//! config = {}                     # as its `configure` has it
//! isolation = "plugin"            # or "tenant": no instance serves two; or "batch": a fresh one for each call
//! on-failure = "open"             # or "closed"; default: closed for an export filter, open for the others
//! whole-traces = false            # a filter that judges traces: see `PluginSet::filter_by`
//! shadow = false                  # prices beside the others, on no bill; its other roles rest
//! sha256 = "9f86..."              # the only content that is accepted
//! [plugin.limits]                 # each has the gateway's own as its default
//! call-ms = 20                    # 1 to 60000: processor time of one call
//! per-item-us = 200               # 0 to 1000000: more of it for each item of a batch
//! start-ms = 1000                 # 1 to 60000: instantiation, `describe`, `configure`
//! memory-mib = 64                 # 1 to 1024: of one instance
//! max-batch = 512                 # 1 to 65536: items in a call
//! component-mib = 16              # 1 to 256: size of the file
//! ```
//!
//! An unknown key is an error, and an error names the key and its place in one line.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tollgate_domain::place;
use tollgate_domain::text::one_line;

use crate::error::PluginHostError;
use crate::limits::{Limits, MOST_MEMORY};
use crate::matching::{Matching, WrittenMatching};
use crate::role::Role;

/// Its name in the folder.
pub(crate) const FILE: &str = "plugins.toml";

/// Most bytes of it.
pub(crate) const LIMIT: u64 = 1 << 20;

/// What is said about files; one that is not named has the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    files: HashMap<String, Entry>,
}

/// What is said about one file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub enabled: bool,
    /// Lower comes first; equal ones go by name.
    pub order: i64,
    /// JSON.
    pub config: String,
    /// None: all that the file exports.
    pub roles: Option<Vec<Role>>,
    pub matching: Matching,
    pub limits: LimitChanges,
    pub isolation: Isolation,
    /// None: as its role has it.
    pub on_failure: Option<OnFailure>,
    pub whole_traces: bool,
    pub shadow: bool,
    /// The digest that the file must have, in lower case.
    pub sha256: Option<String>,
}

/// Who may share an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// All calls of the plugin.
    #[default]
    Plugin,
    /// The calls of one tenant.
    Tenant,
    /// Nobody: each call has a fresh one.
    Batch,
}

/// What becomes of something when the plugin that should have worked on it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It goes on without.
    Open,
    /// It goes no further.
    Closed,
}

impl Isolation {
    /// Its name in `plugins.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Tenant => "tenant",
            Self::Batch => "batch",
        }
    }
}

impl OnFailure {
    /// What holds where `plugins.toml` says nothing: nothing leaves past a filter that failed, the others cost their own
    /// answer only.
    #[must_use]
    pub fn default_of(role: Role) -> Self {
        match role {
            Role::CostModel | Role::AttributeEnricher => Self::Open,
            Role::ExportFilter => Self::Closed,
        }
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            enabled: true,
            order: 0,
            config: "{}".to_owned(),
            roles: None,
            matching: Matching::default(),
            limits: LimitChanges::default(),
            isolation: Isolation::default(),
            on_failure: None,
            whole_traces: false,
            shadow: false,
            sha256: None,
        }
    }
}

impl Entry {
    /// What decides whether a content passes the gate, as text.
    pub fn made_with(&self) -> String {
        format!("{:?} {:?} {} {}", self.limits, self.roles, self.shadow, self.config)
    }

    /// Its limits, from the host's.
    pub fn limits(&self, host: &Arc<Limits>) -> Arc<Limits> {
        if self.limits == LimitChanges::default() {
            return Arc::clone(host);
        }
        let LimitChanges {
            call_ms,
            per_item_us,
            start_ms,
            memory_mib,
            max_batch,
            component_mib,
            compile_s,
            compile_mib,
        } = self.limits;
        let mut limits = Limits::clone(host);
        let set =
            |limit: &mut Duration, wanted: Option<Duration>| *limit = wanted.unwrap_or(*limit);
        set(&mut limits.deadline_call, call_ms.map(Duration::from_millis));
        set(&mut limits.deadline_per_item, per_item_us.map(Duration::from_micros));
        set(&mut limits.deadline_start, start_ms.map(Duration::from_millis));
        let bytes = |mib: u64| mib.saturating_mul(1 << 20);
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        limits.memory_bytes = memory_mib.map_or(limits.memory_bytes, |mib| size(bytes(mib)));
        limits.batch_items = max_batch.map_or(limits.batch_items, size);
        limits.component_bytes = component_mib.map_or(limits.component_bytes, bytes);
        set(&mut limits.child_time, compile_s.map(Duration::from_secs));
        limits.child_memory_bytes = compile_mib.map_or(limits.child_memory_bytes, bytes);
        Arc::new(limits)
    }
}

/// `[plugin.limits]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct LimitChanges {
    call_ms: Option<u64>,
    per_item_us: Option<u64>,
    start_ms: Option<u64>,
    memory_mib: Option<u64>,
    max_batch: Option<u64>,
    component_mib: Option<u64>,
    compile_s: Option<u64>,
    compile_mib: Option<u64>,
}

impl LimitChanges {
    fn check(self) -> Result<Self, String> {
        let most_memory = u64::try_from(MOST_MEMORY >> 20).unwrap_or(u64::MAX);
        let ranges = [
            ("call-ms", self.call_ms, 1, 60_000),
            ("per-item-us", self.per_item_us, 0, 1_000_000),
            ("start-ms", self.start_ms, 1, 60_000),
            ("memory-mib", self.memory_mib, 1, most_memory),
            ("max-batch", self.max_batch, 1, 65_536),
            ("component-mib", self.component_mib, 1, 256),
            ("compile-s", self.compile_s, 1, 600),
            ("compile-mib", self.compile_mib, 256, 65_536),
        ];
        match ranges.iter().find(|(_, n, least, most)| n.is_some_and(|n| n < *least || n > *most)) {
            None => Ok(self),
            Some((key, _, least, most)) => {
                Err(format!("limits.{key}: it must be from {least} to {most}"))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenManifest {
    #[serde(default)]
    plugin: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenEntry {
    file: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    order: i64,
    roles: Option<Vec<Role>>,
    #[serde(default, rename = "match")]
    matching: WrittenMatching,
    #[serde(default)]
    config: toml::Table,
    #[serde(default)]
    limits: LimitChanges,
    #[serde(default)]
    isolation: Isolation,
    on_failure: Option<OnFailure>,
    #[serde(default)]
    whole_traces: bool,
    #[serde(default)]
    shadow: bool,
    sha256: Option<String>,
}

fn yes() -> bool {
    true
}

impl WrittenEntry {
    /// Its file and what is said about it, or the key that is wrong and why.
    fn check(self) -> Result<(String, Entry), String> {
        if !crate::folder::is_plugin_name(&self.file) {
            return Err(format!(
                "file: {:?} is not the name of a .wasm file in this folder",
                one_line(&self.file, 256)
            ));
        }
        if self.roles.as_ref().is_some_and(Vec::is_empty) {
            return Err("roles: it is empty; leave it out to use all".to_owned());
        }
        if let Some(digest) = &self.sha256
            && !(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err("sha256: it must have 64 hex digits, as `sha256sum` prints them".to_owned());
        }
        let entry = Entry {
            enabled: self.enabled,
            order: self.order,
            config: config_text(json("config", toml::Value::Table(self.config))?),
            roles: self.roles,
            matching: self.matching.check()?,
            limits: self.limits.check()?,
            isolation: self.isolation,
            on_failure: self.on_failure,
            whole_traces: self.whole_traces,
            shadow: self.shadow,
            sha256: self.sha256.map(|digest| digest.to_ascii_lowercase()),
        };
        Ok((self.file, entry))
    }
}

impl Manifest {
    /// Reads the text of one.
    pub fn parse(text: &str) -> Result<Self, PluginHostError> {
        let written: WrittenManifest = toml::Deserializer::parse(text)
            .map_err(|error| at_place(text, "", &error))
            .and_then(|toml| {
                serde_path_to_error::deserialize(toml).map_err(|error| {
                    let path = error.path().to_string();
                    at_place(text, &path, error.inner())
                })
            })?;
        let mut files = HashMap::new();
        for (place, entry) in written.plugin.into_iter().enumerate() {
            let file = one_line(&entry.file, 256);
            let wrong =
                |why: &str| PluginHostError::Manifest(format!("plugin[{place}] ({file}): {why}"));
            let (name, entry) = entry.check().map_err(|why| wrong(&why))?;
            if files.insert(name, entry).is_some() {
                return Err(wrong("file: it stands in it twice"));
            }
        }
        Ok(Self { files })
    }

    /// What holds for a file.
    pub fn entry(&self, file: &str) -> Entry {
        self.files.get(file).cloned().unwrap_or_default()
    }

    /// Whether it has an entry for a file.
    pub fn names(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    /// Files that are to serve by it.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|(_, entry)| entry.enabled).map(|(file, _)| file.as_str())
    }

    /// The files it names.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}

fn at_place(text: &str, path: &str, error: &toml::de::Error) -> PluginHostError {
    let offset = error.span().map(|span| span.start);
    PluginHostError::Manifest(place::fault(text, path, offset, error.message()))
}

/// A configuration as plugins are handed it and as its digest is taken: JSON whose keys are in alphabetical order, so that
/// it does not matter in which they were written.
#[must_use]
pub fn config_text(mut config: serde_json::Value) -> String {
    config.sort_all_objects();
    config.to_string()
}

/// TOML as JSON: numbers keep their kind, dates become text, and what JSON cannot say is an error rather than `null`.
fn json(path: &str, value: toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .ok_or_else(|| format!("{path}: JSON has no number {number}"))?
            .into(),
        toml::Value::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(place, item)| json(&format!("{path}[{place}]"), item))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, value)| {
                let value = json(&format!("{path}.{}", one_line(&key, 64)), value)?;
                Ok((key, value))
            })
            .collect::<Result<serde_json::Map<_, _>, String>>()?
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_one_text_however_it_is_written() {
        let wanted = r#"{"a":[{"b":1,"c":2}],"z":3}"#;
        for written in [wanted, r#"{"z":3,"a":[{"c":2,"b":1}]}"#] {
            assert_eq!(config_text(serde_json::from_str(written).unwrap()), wanted);
        }
        let toml = "[[plugin]]\nfile = \"a.wasm\"\nconfig = { z = 3, a = [{ c = 2, b = 1 }] }\n";
        assert_eq!(Manifest::parse(toml).unwrap().entry("a.wasm").config, wanted);
    }

    #[test]
    fn a_file_that_is_not_named_has_the_defaults() {
        let manifest = Manifest::parse(
            "[[plugin]]\nfile = \"a.wasm\"\norder = -1\n[plugin.config]\nprice = \"$1/M\"\nfrom = 2025-01-01\nn = [1, 2.5]\n\
             [[plugin]]\nfile = \"b.wasm\"\nenabled = false\n",
        )
        .unwrap();
        let config: serde_json::Value =
            serde_json::from_str(&manifest.entry("a.wasm").config).unwrap();
        assert_eq!(
            config,
            serde_json::json!({"price": "$1/M", "from": "2025-01-01", "n": [1, 2.5]})
        );
        assert_eq!(manifest.entry("a.wasm").order, -1);
        assert!(!manifest.entry("b.wasm").enabled);
        assert_eq!(manifest.entry("c.wasm"), Entry::default());
    }

    #[test]
    fn every_key_is_read() {
        let digest = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
        let text = format!(
            "[[plugin]]\nfile = \"a.wasm\"\nroles = [\"cost-model\", \"export-filter\"]\n\
             match = {{ models = [\"gpt-4o*\"], tenants = [\"acme\"] }}\nisolation = \"tenant\"\n\
             on-failure = \"closed\"\nwhole-traces = true\nshadow = true\nsha256 = \"{digest}\"\n\
             [plugin.limits]\ncall-ms = 5\nper-item-us = 0\nstart-ms = 2000\nmemory-mib = 256\nmax-batch = 8\n\
             component-mib = 32\ncompile-s = 60\ncompile-mib = 4096\n"
        );
        let entry = Manifest::parse(&text).unwrap().entry("a.wasm");
        assert_eq!(entry.roles, Some(vec![Role::CostModel, Role::ExportFilter]));
        assert_eq!(entry.isolation, Isolation::Tenant);
        assert_eq!((entry.on_failure, entry.shadow), (Some(OnFailure::Closed), true));
        assert!(entry.whole_traces);
        assert_eq!(entry.sha256, Some(digest.to_ascii_lowercase()));
        let usage = crate::testing::usage("gpt-4o-mini");
        assert!(entry.matching.usage(Some("acme"), &usage));
        assert!(!entry.matching.usage(Some("else"), &usage));
        let host = Arc::new(Limits::default());
        let limits = entry.limits(&host);
        assert_eq!(limits.deadline_call, Duration::from_millis(5));
        assert_eq!(limits.deadline_per_item, Duration::ZERO);
        assert_eq!(limits.deadline_start, Duration::from_secs(2));
        assert_eq!((limits.memory_bytes, limits.batch_items), (256 << 20, 8));
        assert_eq!(limits.component_bytes, 32 << 20);
        assert_eq!(limits.child_time, Duration::from_secs(60));
        assert_eq!(limits.child_memory_bytes, 4 << 30);
        assert_eq!(limits.cost_lines, host.cost_lines, "the others stay");
    }

    #[test]
    fn errors_name_what_is_wrong_and_where() {
        const A: &str = "[[plugin]]\nfile = \"a.wasm\"\n";
        let cases = [
            ("ordre = 1\n", "plugin[0].ordre at line 3, column 1: unknown field `ordre`"),
            ("order = \"x\"\n", "plugin[0].order at line 3, column 9: invalid type"),
            (
                "roles = [\"cost-model\", \"costs\"]\n",
                "plugin[0].roles[1] at line 3, column 24: unknown variant",
            ),
            ("roles = []\n", "plugin[0] (a.wasm): roles: it is empty"),
            ("match = { model = [] }\n", "plugin[0].match.model at line 3"),
            ("isolation = \"thread\"\n", "plugin[0].isolation at line 3, column 13"),
            ("on-failure = \"explode\"\n", "plugin[0].on-failure at line 3"),
            ("sha256 = \"abc\"\n", "plugin[0] (a.wasm): sha256: it must have 64 hex digits"),
            (
                "limits = { call-ms = 0 }\n",
                "plugin[0] (a.wasm): limits.call-ms: it must be from 1 to 60000",
            ),
            ("limits = { memory-mib = 4096 }\n", "limits.memory-mib: it must be from 1 to 1024"),
            ("limits = { cal-ms = 1 }\n", "plugin[0].limits.cal-ms at line 3"),
            ("limits = { call-ms = -1 }\n", "plugin[0].limits.call-ms at line 3"),
            (
                "config = { a = [1, nan] }\n",
                "plugin[0] (a.wasm): config.a[1]: JSON has no number NaN",
            ),
            ("[[plugin]]\nfile = \"a.wasm\"\n", "plugin[1] (a.wasm): file: it stands in it twice"),
            ("[[plugin]]\nfile = \"../a.wasm\"\n", "plugin[1] (../a.wasm): file:"),
            ("[[plugin]]\norder = 1\n", "missing field `file`"),
            ("[[plugin\n", "line 3, column"),
            ("[plugins]\n", "unknown field `plugins`"),
        ];
        for (more, named) in cases {
            let error = Manifest::parse(&format!("{A}{more}")).unwrap_err().to_string();
            assert!(error.contains(named), "{more}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
