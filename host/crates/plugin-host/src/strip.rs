//! Takes out of a component what only debuggers and people read: names, producers, debug information.
//!
//! Nothing that runs changes. The result is smaller and has another digest.

use wasm_encoder::{ComponentSectionId, Encode, RawSection, Section};
use wasmparser::{Encoding, Parser, Payload};

use crate::error::PluginHostError;

/// The component without its sections for debuggers and people, in all its modules and inner components.
///
/// # Errors
/// If it is not WebAssembly.
pub fn strip(component: &[u8]) -> Result<Vec<u8>, PluginHostError> {
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
    Ok(output)
}

fn is_for_people(name: &str) -> bool {
    matches!(name, "name" | "component-name" | "producers" | "target_features" | ".dep-v0")
        || name.starts_with(".debug_")
        || name == "sourceMappingURL"
}
