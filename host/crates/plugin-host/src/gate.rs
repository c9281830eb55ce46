//! What a file goes through before its plugin serves: each step is cheaper or safer than the next, and each refusal is a
//! sentence for the operator.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tollgate_domain::PluginIdentity;
use wasmtime::Engine;
use wasmtime::component::{Component, types::Component as ComponentType};

use crate::bindings::{attribute_enricher, cost_model, export_filter, lifecycle};
use crate::describe::Described;
use crate::engine::Runtime;
use crate::error::PluginHostError;
use crate::instance::{Exports, Instance};
use crate::loaded::{Loaded, Prepared, Role};
use crate::log::PluginLog;
use crate::{price, spans, wasi};

/// Version of the contract that the bindings speak.
const API: &str = "0.1.0";

/// What `describe` may hand over.
const DESCRIBE_BYTES: usize = 256 << 10;

/// The parts of WASI 0.2 that are there, and empty.
const WASI: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// What a file's content makes, before it has a configuration.
pub(crate) struct Opened {
    pub prepared: Prepared,
    pub identity: PluginIdentity,
    pub described: Described,
}

/// Checks a file's content and makes a plugin of it.
pub(crate) fn load(
    runtime: &Runtime,
    file: &str,
    bytes: &[u8],
    digest: &str,
    config: &str,
) -> Result<Arc<Loaded>, PluginHostError> {
    let Opened { prepared, identity, described } = open(runtime, file, bytes, digest)?;
    let loaded = Loaded::new(prepared, identity, described, config.to_owned())?;
    tried(loaded, runtime)
}

/// Everything of [`load`] that does not depend on a configuration.
pub(crate) fn open(
    runtime: &Runtime,
    file: &str,
    bytes: &[u8],
    digest: &str,
) -> Result<Opened, PluginHostError> {
    check_format(bytes)?;
    let component = compile(&runtime.engine, bytes)?;
    check_interfaces(&component.component_type(), &runtime.engine)?;
    let prepared = prepare(runtime, &component, file)?;
    let described = describe(&prepared)?;
    prepared.log.rename(&described.name);
    let identity = PluginIdentity {
        name: described.name.clone(),
        version: described.version.clone(),
        digest: digest.to_owned(),
    };
    Ok(Opened { prepared, identity, described })
}

/// A plugin of the same content with another configuration.
pub(crate) fn reconfigure(
    runtime: &Runtime,
    loaded: &Loaded,
    config: &str,
) -> Result<Arc<Loaded>, PluginHostError> {
    tried(loaded.configured(config)?, runtime)
}

fn tried(loaded: Loaded, runtime: &Runtime) -> Result<Arc<Loaded>, PluginHostError> {
    if runtime.limits.trial_call {
        try_out(&loaded, runtime)?;
    }
    Ok(Arc::new(loaded))
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

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginHostError> {
    match catch_unwind(AssertUnwindSafe(|| Component::from_binary(engine, bytes))) {
        Ok(Ok(component)) => Ok(component),
        Ok(Err(error)) => Err(PluginHostError::Compile(error.into_boxed_dyn_error())),
        Err(_) => Err(PluginHostError::Compile("the compiler panicked".into())),
    }
}

/// Only what is known comes in, and the exports are of a version that is spoken here.
fn check_interfaces(component: &ComponentType, engine: &Engine) -> Result<(), PluginHostError> {
    for (name, _) in component.imports(engine) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with("tollgate:plugin/") {
            spoken(interface, version)?;
            if !matches!(
                interface,
                "tollgate:plugin/log" | "tollgate:plugin/types" | "tollgate:plugin/edits"
            ) {
                return Err(PluginHostError::Import(name.to_owned()));
            }
        } else if !(WASI.iter().any(|known| interface.starts_with(known))
            && version.starts_with("0.2."))
        {
            return Err(PluginHostError::Import(name.to_owned()));
        }
    }
    let mut lifecycle = false;
    let mut roles = false;
    for (name, _) in component.exports(engine) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        let Some(own) = interface.strip_prefix("tollgate:plugin/") else { continue };
        spoken(interface, version)?;
        lifecycle |= own == "lifecycle";
        roles |= matches!(own, "cost-model" | "attribute-enricher" | "export-filter");
    }
    match (lifecycle, roles) {
        (false, false) => Err(PluginHostError::Exports(
            "nothing of tollgate:plugin, so it is no plugin of this gateway",
        )),
        (false, true) => Err(PluginHostError::Exports("a role but not tollgate:plugin/lifecycle")),
        (true, false) => Err(PluginHostError::Exports(
            "no role: no cost-model, attribute-enricher or export-filter",
        )),
        (true, true) => Ok(()),
    }
}

fn spoken(interface: &str, version: &str) -> Result<(), PluginHostError> {
    if version == API {
        return Ok(());
    }
    let found = if version.is_empty() { "no version" } else { version };
    Err(PluginHostError::ApiVersion {
        interface: interface.to_owned(),
        found: found.to_owned(),
        spoken: API,
    })
}

fn prepare(
    runtime: &Runtime,
    component: &Component,
    file: &str,
) -> Result<Prepared, PluginHostError> {
    let linked = || -> wasmtime::Result<_> {
        let pre = wasi::linker(component)?.instantiate_pre(component)?;
        let has = |role: Role| {
            component
                .get_export_index(None, format!("tollgate:plugin/{}@{API}", role.name()))
                .is_some()
        };
        let exports = Exports {
            lifecycle: lifecycle::GuestIndices::new(&pre)?,
            cost_model: has(Role::CostModel)
                .then(|| cost_model::GuestIndices::new(&pre))
                .transpose()?,
            enricher: has(Role::AttributeEnricher)
                .then(|| attribute_enricher::GuestIndices::new(&pre))
                .transpose()?,
            filter: has(Role::ExportFilter)
                .then(|| export_filter::GuestIndices::new(&pre))
                .transpose()?,
        };
        Ok((pre, exports))
    };
    let (pre, exports) =
        linked().map_err(|error| PluginHostError::Link(error.into_boxed_dyn_error()))?;
    let log = Arc::new(PluginLog::new(file, runtime.limits.log_lines_per_second));
    Ok(Prepared { runtime: runtime.clone(), pre, exports, log })
}

/// Twice on one instance: what changes from call to call cannot be relied on.
fn describe(prepared: &Prepared) -> Result<Described, PluginHostError> {
    let mut instance = prepared.instance(1).map_err(PluginHostError::Describe)?;
    instance.store.set_hostcall_fuel(DESCRIBE_BYTES.min(prepared.runtime.limits.result_bytes));
    let budget = prepared.runtime.limits.deadline_start;
    let ask = |instance: &mut Instance| -> Result<Described, PluginHostError> {
        let info = instance
            .call(budget, |i| i.lifecycle.call_describe(&mut i.store))
            .map_err(PluginHostError::Describe)?;
        Described::check(info)
    };
    let first = ask(&mut instance)?;
    if ask(&mut instance)? != first {
        return Err(PluginHostError::Described("something else each time it is asked".to_owned()));
    }
    Ok(first)
}

/// One made-up item for each role: any well-formed answer will do.
fn try_out(loaded: &Loaded, runtime: &Runtime) -> Result<(), PluginHostError> {
    for role in loaded.roles() {
        let tried = match role {
            Role::CostModel => price::try_out(loaded, &runtime.limits),
            Role::AttributeEnricher => spans::try_enrich(loaded, &runtime.limits),
            Role::ExportFilter => spans::try_filter(loaded, &runtime.limits),
        };
        tried.map_err(|source| PluginHostError::Trial { role: role.name(), source })?;
    }
    Ok(())
}
