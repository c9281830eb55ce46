//! What a plugin says about itself before it is accepted.

use crate::bindings::lifecycle::exports::tollgate::plugin::lifecycle as raw;

/// Name, version, and what the plugin reads and writes.
///
/// Attributes cross into the sandbox only if they are named here: the fewer, the cheaper each call, and the less an
/// operator has to trust. The answer must not depend on anything.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginInfo(pub(crate) raw::PluginInfo);

impl PluginInfo {
    /// A name that is unique in a folder (`acme/cost-eu`), and a semantic version; `env!("CARGO_PKG_VERSION")` is a good one.
    pub fn new(name: &str, version: &str) -> Self {
        Self(raw::PluginInfo {
            name: name.into(),
            version: version.into(),
            description: String::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            operations: Vec::new(),
            max_batch: 0,
            config_schema: None,
        })
    }

    /// One sentence for people.
    #[must_use]
    pub fn description(mut self, description: &str) -> Self {
        self.0.description = description.into();
        self
    }

    /// Asks for one attribute. The first call is `Read(0)`, the next `Read(1)`, prefixes counted too.
    #[must_use]
    pub fn read(mut self, key: &str) -> Self {
        self.0.reads.push(raw::AttributeSelector::Key(key.into()));
        self
    }

    /// Asks for every attribute whose key starts with this; the empty prefix asks for all.
    #[must_use]
    pub fn read_prefix(mut self, prefix: &str) -> Self {
        self.0.reads.push(raw::AttributeSelector::Prefix(prefix.into()));
        self
    }

    /// Announces that this attribute may be set or removed; the host drops every edit that was not announced. The first
    /// call is `Write(0)`, the next `Write(1)`, prefixes counted too.
    #[must_use]
    pub fn write(mut self, key: &str) -> Self {
        self.0.writes.push(raw::AttributeSelector::Key(key.into()));
        self
    }

    /// Announces that attributes whose key starts with this may be set or removed.
    #[must_use]
    pub fn write_prefix(mut self, prefix: &str) -> Self {
        self.0.writes.push(raw::AttributeSelector::Prefix(prefix.into()));
        self
    }

    /// Limits the plugin to spans of this `gen_ai.operation.name`; may be called more than once.
    #[must_use]
    pub fn operation(mut self, operation: &str) -> Self {
        self.0.operations.push(operation.into());
        self
    }

    /// The most items wanted in one call.
    #[must_use]
    pub fn max_batch(mut self, items: u32) -> Self {
        self.0.max_batch = items;
        self
    }

    /// A JSON Schema of the configuration; `include_str!` reads it from a file.
    #[must_use]
    pub fn config_schema(mut self, schema: &str) -> Self {
        self.0.config_schema = Some(schema.into());
        self
    }
}
