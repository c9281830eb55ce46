//! What a file goes through before its plugin serves: each step is cheaper or safer than the next, and each refusal is a
//! sentence for the operator.

use std::sync::Arc;

use tollgate_domain::text::one_line;
use tollgate_domain::{FaultKind, PluginIdentity};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::calls::Exports;
use crate::compile;
use crate::describe::Described;
use crate::engine::Runtime;
use crate::error::PluginHostError;
use crate::folder::Content;
use crate::instance::Instance;
use crate::interface::{API, Interface};
use crate::loaded::{Loaded, Prepared};
use crate::log::PluginLog;
use crate::manifest::Entry;
use crate::role::Role;
use crate::steps::{Step, Steps};
use crate::{fits, price, schema, signature, spans, wasi};

/// What `describe` may hand over.
const DESCRIBE_BYTES: usize = 256 << 10;

/// A file that asks to serve.
pub(crate) struct Candidate<'a> {
    /// Its name in the folder.
    pub file: &'a str,
    pub content: &'a Content,
    /// What `plugins.toml` says of it.
    pub entry: &'a Entry,
    /// The text of its detached signature, if there is one.
    pub signature: Option<&'a str>,
}

/// What a file's content makes, before it has a configuration.
pub(crate) struct Opened {
    pub prepared: Prepared,
    pub identity: PluginIdentity,
    pub described: Described,
    /// Size of its machine code.
    pub compiled_bytes: usize,
}

/// Checks a file's content and makes a plugin of it.
pub(crate) fn load(
    runtime: &Runtime,
    candidate: &Candidate<'_>,
) -> Result<Arc<Loaded>, PluginHostError> {
    Ok(examine(runtime, candidate, &mut Steps::default())?.loaded)
}

/// A plugin that passed, and what is known of it besides.
pub(crate) struct Passed {
    pub loaded: Arc<Loaded>,
    /// Size of its machine code.
    pub compiled_bytes: usize,
}

/// [`load`], step by step.
pub(crate) fn examine(
    runtime: &Runtime,
    candidate: &Candidate<'_>,
    steps: &mut Steps,
) -> Result<Passed, PluginHostError> {
    let entry = candidate.entry;
    let runtime = &runtime.limited(entry);
    let Opened { prepared, identity, described, compiled_bytes } = open(runtime, candidate, steps)?;
    steps.take(
        Step::Schema,
        || check_config(&described, &entry.config),
        |()| if described.config_schema.is_some() { "fits" } else { "it has none" }.to_owned(),
    )?;
    let loaded = steps.take(
        Step::Configure,
        || {
            fits::check(&prepared.roles(), entry)?;
            Loaded::new(prepared, Arc::new(identity), described, entry)
        },
        |_| String::new(),
    )?;
    if runtime.limits.trial_call {
        steps.take(Step::Trial, || try_out(&loaded), |tried| tried.join(", "))?;
    }
    Ok(Passed { loaded: Arc::new(loaded), compiled_bytes })
}

/// The steps that do not depend on a configuration.
pub(crate) fn open(
    runtime: &Runtime,
    candidate: &Candidate<'_>,
    steps: &mut Steps,
) -> Result<Opened, PluginHostError> {
    let Candidate { file, content, entry, .. } = *candidate;
    let none = |(): &()| String::new();
    steps.take(Step::Format, || check_format(&content.bytes), none)?;
    steps.take(Step::Pin, || check_pin(&content.digest, entry), |()| pinned(entry).to_owned())?;
    steps.take(
        Step::Signature,
        || signature::check(&runtime.trusted_keys, file, &content.bytes, candidate.signature),
        |()| {
            if runtime.trusted_keys.is_empty() {
                "no key is trusted, so none is needed"
            } else {
                "valid"
            }
            .to_owned()
        },
    )?;
    steps.take(
        Step::Interface,
        || Interface::read(&content.bytes).and_then(|interface| interface.check()),
        |()| format!("tollgate:plugin {API}"),
    )?;
    let compiled = steps.take(
        Step::Compile,
        || compile::compile(runtime, content),
        |made| {
            let from = if made.cached { ", from the cache" } else { "" };
            format!("{} bytes of machine code{from}", made.bytes)
        },
    )?;
    let prepared = steps.take(
        Step::Link,
        || prepare(runtime, &compiled.component, file),
        |_| String::new(),
    )?;
    let described = steps.take(
        Step::Describe,
        || describe(&prepared),
        |described| format!("{} {}", described.name, described.version),
    )?;
    prepared.log.rename(&described.name);
    let identity = PluginIdentity {
        name: described.name.clone(),
        version: described.version.clone(),
        digest: content.digest.clone(),
    };
    Ok(Opened { prepared, identity, described, compiled_bytes: compiled.bytes })
}

/// A plugin of the same content with another configuration, limits or isolation.
pub(crate) fn reconfigure(
    runtime: &Runtime,
    loaded: &Loaded,
    entry: &Entry,
) -> Result<Arc<Loaded>, PluginHostError> {
    let runtime = &runtime.limited(entry);
    fits::check(&loaded.roles(), entry)?;
    check_config(&loaded.described, &entry.config)?;
    let loaded = loaded.configured(runtime, entry)?;
    if runtime.limits.trial_call {
        try_out(&loaded)?;
    }
    Ok(Arc::new(loaded))
}

/// Whether a content is the one that `plugins.toml` pins, if it pins one.
pub(crate) fn check_pin(digest: &str, entry: &Entry) -> Result<(), PluginHostError> {
    match &entry.sha256 {
        Some(pinned) if !pinned.eq_ignore_ascii_case(digest) => {
            Err(PluginHostError::Pin { found: digest.to_owned(), pinned: one_line(pinned, 64) })
        }
        _ => Ok(()),
    }
}

fn pinned(entry: &Entry) -> &'static str {
    if entry.sha256.is_some() { "as pinned" } else { "none is pinned" }
}

/// Whether a configuration is what the plugin's own schema asks for.
pub(crate) fn check_config(described: &Described, config: &str) -> Result<(), PluginHostError> {
    described.config_schema.as_deref().map_or(Ok(()), |schema| schema::check(schema, config))
}

/// A component, and not one of the things that look like it.
fn check_format(bytes: &[u8]) -> Result<(), PluginHostError> {
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(PluginHostError::Format(
            "it is compiled machine code, which is never loaded from the plugin folder; put the .wasm component here",
        ));
    }
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => Ok(()),
        Some(b"\0asm\x01\0\0\0") => Err(PluginHostError::Format(
            "it is a core module, not a component; build it for wasm32-wasip2, or with `wasm-tools component new`",
        )),
        Some([b'\0', b'a', b's', b'm', ..]) => Err(PluginHostError::Format(
            "it is WebAssembly of an unknown version; build it for wasm32-wasip2",
        )),
        _ => Err(PluginHostError::Format(
            "it is not WebAssembly; build it for wasm32-wasip2, or copy it again",
        )),
    }
}

fn prepare(
    runtime: &Runtime,
    component: &Component,
    file: &str,
) -> Result<Prepared, PluginHostError> {
    let linked = || -> wasmtime::Result<_> {
        let pre = wasi::linker(component)?.instantiate_pre(component)?;
        let exports = Exports::of(&pre)?;
        Ok((pre, exports))
    };
    let (pre, exports) =
        linked().map_err(|error| PluginHostError::Link(error.into_boxed_dyn_error()))?;
    let log = Arc::new(PluginLog::new(file, runtime.limits.log_lines_per_second));
    Ok(Prepared { runtime: runtime.clone(), pre, exports, log })
}

/// Twice on one instance: what changes from call to call cannot be relied on.
fn describe(prepared: &Prepared) -> Result<Described, PluginHostError> {
    let mut instance = prepared.instance_in_time(1).map_err(PluginHostError::Describe)?;
    instance.store.set_hostcall_fuel(DESCRIBE_BYTES.min(prepared.runtime.limits.result_bytes));
    let budget = prepared.runtime.limits.deadline_start;
    let ask = |instance: &mut Instance| -> Result<Described, PluginHostError> {
        let info = instance
            .call(budget, |i| i.functions.lifecycle.call_describe(&mut i.store))
            .map_err(PluginHostError::Describe)?;
        Described::check(info)
    };
    let first = ask(&mut instance)?;
    if ask(&mut instance)? != first {
        return Err(PluginHostError::Described("something else each time it is asked".to_owned()));
    }
    Ok(first)
}

/// One made-up item for each role: any well-formed answer will do, an error that the plugin reports of an item that it does
/// not know included. Answers each role, and what was reported.
fn try_out(loaded: &Loaded) -> Result<Vec<String>, PluginHostError> {
    let tried = loaded.roles().into_iter().map(|role| {
        let tried = match role {
            Role::CostModel => price::try_out(loaded),
            Role::AttributeEnricher => spans::try_enrich(loaded),
            Role::ExportFilter => spans::try_filter(loaded),
        };
        match tried {
            Ok(()) => Ok(role.name().to_owned()),
            Err(fault) if fault.kind == FaultKind::Reported => {
                tracing::warn!(
                    plugin = loaded.identity.name,
                    version = loaded.identity.version,
                    role = role.name(),
                    error = fault.message,
                    "it answers the made-up item that every plugin is tried on with an error"
                );
                Ok(format!("{} (which answered with an error: {})", role.name(), fault.message))
            }
            Err(source) => Err(PluginHostError::Trial { role: role.name(), source }),
        }
    });
    tried.collect()
}
