//! What plugins do.

use std::fmt;

/// What a plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Says what a request cost.
    CostModel,
    /// Adds attributes to spans.
    AttributeEnricher,
    /// Says which spans leave, and with what removed.
    ExportFilter,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CostModel, Self::AttributeEnricher, Self::ExportFilter];

    /// Its name in the contract and in `plugins.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CostModel => "cost-model",
            Self::AttributeEnricher => "attribute-enricher",
            Self::ExportFilter => "export-filter",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
