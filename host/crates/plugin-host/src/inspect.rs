//! The gate without a gateway: what would become of a file, step by step.
//!
//! It is the very same gate, with the same limits and the same compiler. What cannot be seen from outside a plugin folder is
//! whether another file has a plugin of the same name.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tollgate_domain::{Currency, PluginIdentity};

use crate::engine::Runtime;
use crate::error::PluginHostError;
use crate::folder::{self, Content};
use crate::gate::{self, Candidate, Passed};
use crate::interface::{API, Interface};
use crate::limits::PluginHostSettings;
use crate::manifest::{self, Entry, Manifest, config_text};
use crate::role::Role;
use crate::steps::{Step, StepTaken, Steps};

/// A plugin that would serve.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// What it calls itself, and the digest of the file.
    pub identity: PluginIdentity,
    /// What it says about itself.
    pub description: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// Version of the contract it was built for.
    pub api_version: &'static str,
    /// The interfaces it imports.
    pub imports: Vec<String>,
    /// Size of the file in bytes.
    pub bytes: usize,
    /// Size of its machine code in bytes.
    pub compiled_bytes: usize,
    /// The attributes it is given: keys, and prefixes with a `*` behind them.
    pub reads: Vec<String>,
    /// The attributes it may set or remove.
    pub writes: Vec<String>,
    /// The operations whose spans it wants; empty: all.
    pub operations: Vec<String>,
    /// Most items in one call.
    pub max_batch: usize,
    /// JSON Schema of its configuration.
    pub config_schema: Option<String>,
    /// What it prices in; of a cost model.
    pub currency: Option<Currency>,
    /// What was done, and how long it took.
    pub steps: Vec<StepTaken>,
}

/// A file that would be refused.
#[derive(Debug)]
pub struct Rejection {
    /// Why.
    pub error: PluginHostError,
    /// What was done, and how long it took; the last one failed.
    pub steps: Vec<StepTaken>,
}

impl Rejection {
    pub(crate) fn of(error: PluginHostError, steps: Steps) -> Box<Self> {
        Box::new(Self { error, steps: steps.taken() })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::error::chain(&self.error))
    }
}

impl std::error::Error for Rejection {}

/// Takes a file through the gate, with this configuration or an empty one. Of the settings the folder does not matter.
///
/// # Errors
///
/// When it would be refused.
pub fn inspect(
    settings: &PluginHostSettings,
    file: &Path,
    config: Option<&serde_json::Value>,
) -> Result<Inspection, Box<Rejection>> {
    let config =
        config.map_or_else(|| Entry::default().config, |config| config_text(config.clone()));
    examine(settings, file, |_, _| Ok(Entry { config, ..Entry::default() }))
}

/// Takes a file through the gate as the `plugins.toml` beside it says.
///
/// # Errors
///
/// When it would be refused, or `plugins.toml` is.
pub fn inspect_in_folder(
    settings: &PluginHostSettings,
    file: &Path,
) -> Result<Inspection, Box<Rejection>> {
    examine(settings, file, |folder, name| {
        let content = match folder::read(folder, manifest::FILE, manifest::LIMIT) {
            Err(PluginHostError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Entry::default());
            }
            read => read?,
        };
        let text = String::from_utf8(content.bytes)
            .map_err(|_| PluginHostError::Manifest("it is not UTF-8".to_owned()))?;
        Ok(Manifest::parse(&text)?.entry(name))
    })
}

fn examine(
    settings: &PluginHostSettings,
    file: &Path,
    entry: impl FnOnce(&Path, &str) -> Result<Entry, PluginHostError>,
) -> Result<Inspection, Box<Rejection>> {
    let Taken { content, passed, steps } = take(settings, file, entry)?;
    let interface = Interface::read(&content.bytes).unwrap_or_default();
    let loaded = &passed.loaded;
    let described = &loaded.described;
    Ok(Inspection {
        identity: (*loaded.identity).clone(),
        description: described.description.clone(),
        roles: loaded.roles(),
        api_version: API,
        imports: interface.imports.into_iter().map(str::to_owned).collect(),
        bytes: content.bytes.len(),
        compiled_bytes: passed.compiled_bytes,
        reads: described.reads.names(),
        writes: described.writes.names(),
        operations: described.operations.clone(),
        max_batch: loaded.max_batch(),
        config_schema: described.config_schema.clone(),
        currency: loaded.has(Role::CostModel).then_some(loaded.currency),
        steps: steps.taken(),
    })
}

/// A file that passed.
pub(crate) struct Taken {
    content: Content,
    pub passed: Passed,
    steps: Steps,
}

/// Takes a file through the gate as the entry says that is found for its folder and its name.
pub(crate) fn take(
    settings: &PluginHostSettings,
    file: &Path,
    entry: impl FnOnce(&Path, &str) -> Result<Entry, PluginHostError>,
) -> Result<Taken, Box<Rejection>> {
    let mut steps = Steps::default();
    let read = steps.take(
        Step::Read,
        || read(settings, file, entry),
        |read| format!("{} bytes, SHA-256 {}", read.content.bytes.len(), read.content.digest),
    );
    let taken = read.and_then(|read| {
        let runtime = Runtime::start(settings)?;
        let candidate = Candidate {
            file: &read.name,
            content: &read.content,
            entry: &read.entry,
            signature: read.signature.as_deref(),
        };
        let passed = gate::examine(&runtime, &candidate, &mut steps)?;
        Ok((read, passed))
    });
    match taken {
        Ok((read, passed)) => Ok(Taken { content: read.content, passed, steps }),
        Err(error) => Err(Rejection::of(error, steps)),
    }
}

pub(crate) struct Read {
    name: String,
    pub content: Content,
    entry: Entry,
    signature: Option<String>,
}

pub(crate) fn read(
    settings: &PluginHostSettings,
    file: &Path,
    entry: impl FnOnce(&Path, &str) -> Result<Entry, PluginHostError>,
) -> Result<Read, PluginHostError> {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    if !folder::is_plugin_name(&name) {
        return Err(PluginHostError::NotAFile("a file of another name than NAME.wasm"));
    }
    let entry = entry(folder, &name)?;
    let limit = entry.limits(&Arc::new(settings.limits.clone())).component_bytes;
    let content = folder::read(folder, &name, limit)?;
    let signature =
        if settings.trusted_keys.is_empty() { None } else { folder::signature(folder, &name)? };
    Ok(Read { entry, name, content, signature })
}
