//! Takes out of a component what only debuggers and people read: names, producers, debug information.
//!
//! Nothing that runs changes. The result is smaller and has another digest.

use wasm_encoder::{ComponentSectionId, Encode, RawSection, Section};
use wasmparser::{Encoding, Parser, Payload};

use crate::error::PluginHostError;
use crate::folder;
use crate::role::Role;

/// A component as it goes into the plugin folder.
#[derive(Clone, Debug)]
pub struct Stripped {
    /// The component.
    pub bytes: Vec<u8>,
    /// Its SHA-256, 64 hex digits.
    pub digest: String,
    /// The roles that it exports, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
}

/// The component without its sections for debuggers and people, in all its modules and inner components.
///
/// # Errors
/// If it is not WebAssembly.
pub fn strip(component: &[u8]) -> Result<Stripped, PluginHostError> {
    let mut roles = Vec::new();
    let damaged = |error: wasmparser::BinaryReaderError| PluginHostError::Compile(Box::new(error));
    let mut output = Vec::with_capacity(component.len());
    // What has been written of the components that the present one is part of.
    let mut outer: Vec<(Vec<u8>, u8)> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(damaged)?;
        match &payload {
            Payload::Version { encoding, .. } => output.extend_from_slice(match encoding {
                Encoding::Component => &wasm_encoder::Component::HEADER,
                Encoding::Module => &wasm_encoder::Module::HEADER,
            }),
            Payload::ModuleSection { .. } => {
                outer.push((std::mem::take(&mut output), ComponentSectionId::CoreModule.into()));
                continue;
            }
            Payload::ComponentSection { .. } => {
                outer.push((std::mem::take(&mut output), ComponentSectionId::Component.into()));
                continue;
            }
            Payload::End(_) => {
                if let Some((mut whole, id)) = outer.pop() {
                    whole.push(id);
                    output.encode(&mut whole);
                    output = whole;
                }
                continue;
            }
            Payload::ComponentExportSection(exports) if outer.is_empty() => {
                for export in exports.clone() {
                    roles.extend(role(export.map_err(damaged)?.name.name));
                }
            }
            Payload::CustomSection(section) if is_for_people(section.name()) => continue,
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let data = component.get(range).unwrap_or_default();
            let section = RawSection { id, data };
            output.push(section.id());
            section.encode(&mut output);
        }
    }
    // Toolchains export in an order of their own.
    roles.sort_unstable();
    Ok(Stripped { digest: folder::digest_of(&output), bytes: output, roles })
}

fn role(export: &str) -> Option<Role> {
    let (name, _) = export.strip_prefix("tollgate:plugin/")?.split_once('@')?;
    Role::ALL.into_iter().find(|role| role.name() == name)
}

fn is_for_people(name: &str) -> bool {
    matches!(name, "name" | "component-name" | "producers" | "target_features" | ".dep-v0")
        || name.starts_with(".debug_")
        || name == "sourceMappingURL"
}
