//! Which names can be asked for, and which model answers to them.

use std::time::SystemTime;

use tollgate_domain::{ErrorKind, UnixNanos};
use tollgate_engine::ModelInfo;

use crate::call::Refusal;

/// One name that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The name.
    pub id: String,
    /// The model behind it; the name itself unless it is an alias.
    pub root: String,
    /// When it was loaded.
    pub created: UnixNanos,
    /// Most tokens that prompt and answer have together.
    pub context_length: u32,
}

/// All names that can be asked for.
pub(crate) struct Models(Vec<ModelCard>);

impl Models {
    pub(crate) fn new(served: &ModelInfo, aliases: Vec<String>) -> Self {
        let created = SystemTime::now().into();
        let context_length = u32::try_from(served.context_length).unwrap_or(u32::MAX);
        let names = std::iter::once(served.name.clone()).chain(aliases);
        let card = |id| ModelCard { id, root: served.name.clone(), created, context_length };
        Self(names.map(card).collect())
    }

    pub(crate) fn cards(&self) -> &[ModelCard] {
        &self.0
    }

    /// The name that a request which names none is taken to mean.
    pub(crate) fn default_name(&self) -> &str {
        self.0.first().map_or("", |card| card.id.as_str())
    }

    /// The model to serve a request with; the only one there is, where it names none.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<&ModelCard, Refusal> {
        let found = match name {
            None => self.0.first(),
            Some(name) => self.0.iter().find(|card| card.id == name),
        };
        found.ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|card| card.id.as_str()).collect();
            let message = format!(
                "The model `{}` does not exist here. Served: {}.",
                name.unwrap_or_default(),
                known.join(", ")
            );
            Refusal::new(ErrorKind::ModelNotFound, message).param("model")
        })
    }
}
