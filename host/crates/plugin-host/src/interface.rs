//! What a component asks for and what it offers, read from its bytes before anything compiles them.
//!
//! Only the outermost sections are looked at, in one pass without recursion: what is nested in them is bytes here. Whether
//! all of it is valid is the compiler's to say.

use wasmparser::{
    BinaryReader, BinaryReaderError, ComponentExportSectionReader, ComponentImportSectionReader,
};

use tollgate_domain::text::one_line;

use crate::error::PluginHostError;

/// Version of the contract that the bindings speak.
pub(crate) const API: &str = "0.1.0";

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

/// Magic number, version and layer of a component.
const PREAMBLE: usize = 8;
/// Most names of either kind that are looked at.
const NAMES: usize = 10_000;
const IMPORTS: u8 = 10;
const EXPORTS: u8 = 11;

/// The names that a component imports and exports.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    pub imports: Vec<&'a str>,
    pub exports: Vec<&'a str>,
}

impl<'a> Interface<'a> {
    /// Reads the names; fails on a component that is cut off, or that has no end of them.
    pub fn read(component: &'a [u8]) -> Result<Self, PluginHostError> {
        let found =
            Self::sections(component).map_err(|error| PluginHostError::Compile(Box::new(error)))?;
        if found.imports.len() > NAMES {
            return Err(PluginHostError::Import(format!("more than {NAMES} interfaces")));
        }
        if found.exports.len() > NAMES {
            return Err(PluginHostError::Exports("more than any plugin has"));
        }
        Ok(found)
    }

    fn sections(component: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut found = Self::default();
        let mut reader = BinaryReader::new(component, 0);
        reader.read_bytes(PREAMBLE)?;
        while !reader.eof() {
            let id = reader.read_u8()?;
            let section = reader.read_reader()?;
            let most = (NAMES + 1).saturating_sub(found.imports.len().max(found.exports.len()));
            match id {
                IMPORTS => {
                    for import in ComponentImportSectionReader::new(section)?.into_iter().take(most)
                    {
                        found.imports.push(import?.name.name);
                    }
                }
                EXPORTS => {
                    for export in ComponentExportSectionReader::new(section)?.into_iter().take(most)
                    {
                        found.exports.push(export?.name.name);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Only what is known comes in, and the exports are of a version that is spoken here.
    pub fn check(&self) -> Result<(), PluginHostError> {
        self.imports.iter().try_for_each(|name| check_import(name))?;
        let (mut lifecycle, mut roles) = (false, false);
        for name in &self.exports {
            let (interface, version) = split(name);
            let Some(own) = interface.strip_prefix("tollgate:plugin/") else { continue };
            spoken(interface, version)?;
            lifecycle |= own == "lifecycle";
            roles |= matches!(own, "cost-model" | "attribute-enricher" | "export-filter");
        }
        let missing = match (lifecycle, roles) {
            (true, true) => return Ok(()),
            (false, false) => "nothing of tollgate:plugin, so it is no plugin of this gateway",
            (false, true) => "a role but not tollgate:plugin/lifecycle",
            (true, false) => "no role: no cost-model, attribute-enricher or export-filter",
        };
        Err(PluginHostError::Exports(missing))
    }
}

fn check_import(name: &str) -> Result<(), PluginHostError> {
    let (interface, version) = split(name);
    let granted = if interface.starts_with("tollgate:plugin/") {
        spoken(interface, version)?;
        matches!(
            interface,
            "tollgate:plugin/log" | "tollgate:plugin/types" | "tollgate:plugin/edits"
        )
    } else {
        WASI.iter().any(|known| interface.starts_with(known)) && version.starts_with("0.2.")
    };
    if granted { Ok(()) } else { Err(PluginHostError::Import(one_line(name, 256))) }
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('@').unwrap_or((name, ""))
}

fn spoken(interface: &str, version: &str) -> Result<(), PluginHostError> {
    if version == API {
        return Ok(());
    }
    let found = if version.is_empty() { "no version" } else { version };
    Err(PluginHostError::ApiVersion {
        interface: one_line(interface, 128),
        found: one_line(found, 64),
        spoken: API,
    })
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
        ComponentTypeRef,
    };

    use super::*;

    fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
        let mut component = Component::new();
        let mut section = ComponentImportSection::new();
        for name in imports {
            section.import(*name, ComponentTypeRef::Instance(0));
        }
        component.section(&section);
        let mut section = ComponentExportSection::new();
        for name in exports {
            section.export(*name, ComponentExportKind::Instance, 0, None);
        }
        component.section(&section);
        component.finish()
    }

    fn kind(imports: &[&str], exports: &[&str]) -> Result<(), &'static str> {
        let bytes = component(imports, exports);
        Interface::read(&bytes).unwrap().check().map_err(|error| error.kind())
    }

    const LIFECYCLE: &str = "tollgate:plugin/lifecycle@0.1.0";
    const COST: &str = "tollgate:plugin/cost-model@0.1.0";

    #[test]
    fn each_wrong_interface_has_its_reason() {
        let good = [LIFECYCLE, COST];
        assert_eq!(kind(&[], &good), Ok(()));
        assert_eq!(kind(&["tollgate:plugin/log@0.1.0", "wasi:io/poll@0.2.6"], &good), Ok(()));
        assert_eq!(kind(&[], &[LIFECYCLE]), Err("interface"));
        assert_eq!(kind(&[], &[COST]), Err("interface"));
        assert_eq!(kind(&[], &[]), Err("interface"));
        assert_eq!(kind(&[], &["tollgate:plugin/lifecycle@0.2.0", COST]), Err("api_version"));
        assert_eq!(kind(&[], &["tollgate:plugin/lifecycle", COST]), Err("api_version"));
        for import in ["wasi:io/poll@0.3.0", "wasi:keyvalue/store@0.2.0", "evil", ""] {
            assert_eq!(kind(&[import], &good), Err("interface"), "{import}");
        }
        assert_eq!(kind(&["tollgate:plugin/log@9.0.0"], &good), Err("api_version"));
        assert_eq!(kind(&["tollgate:plugin/secrets@0.1.0"], &good), Err("interface"));
    }

    #[test]
    fn what_is_nested_or_cut_off_is_not_believed() {
        let inner = component(&["evil"], &[LIFECYCLE, COST]);
        let mut outer = Component::new();
        outer.section(&wasm_encoder::RawSection { id: 4, data: &inner });
        let bytes = outer.finish();
        assert_eq!(Interface::read(&bytes).unwrap(), Interface::default());

        let whole = component(&["wasi:io/poll@0.2.0"], &[LIFECYCLE, COST]);
        for length in 0..whole.len() {
            let cut = whole.get(..length).unwrap();
            // Between two sections a cut component is a whole one with less in it.
            if let Ok(found) = Interface::read(cut) {
                assert!(found.exports.is_empty(), "{length}");
            }
        }
    }
}
