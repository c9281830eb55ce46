//! Which names can be asked for, and which model answers to them.

use std::time::SystemTime;

use tollgate_domain::UnixNanos;
use tollgate_engine::ModelInfo;
use tollgate_upstream::ServedModel;

use crate::request::IN_PROCESS;

/// One name that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// The name.
    pub id: String,
    /// The model behind it; the name itself unless it is an alias.
    pub root: String,
    /// When it was loaded.
    pub created: UnixNanos,
    /// Most tokens that prompt and answer have together, where that is known.
    pub context_length: Option<u32>,
    /// Whose it is: a provider.
    pub owner: String,
}

impl ModelCard {
    /// A model of another server, known since `created`.
    pub(crate) fn of(model: ServedModel, created: UnixNanos) -> Self {
        let ServedModel { name, provider, .. } = model;
        Self { root: name.clone(), id: name, created, context_length: None, owner: provider }
    }
}

/// All names that can be asked for.
pub(crate) struct Models(Vec<ModelCard>);

impl Models {
    pub(crate) fn new(served: &ModelInfo, aliases: Vec<String>) -> Self {
        let created = SystemTime::now().into();
        let context_length = Some(u32::try_from(served.context_length).unwrap_or(u32::MAX));
        let names = std::iter::once(served.name.clone()).chain(aliases);
        let card = |id| ModelCard {
            id,
            root: served.name.clone(),
            created,
            context_length,
            owner: IN_PROCESS.to_owned(),
        };
        Self(names.map(card).collect())
    }

    /// Most tokens that prompt and answer have together.
    pub(crate) fn context_length(&self) -> u32 {
        self.0.first().and_then(|card| card.context_length).unwrap_or(0)
    }

    pub(crate) fn cards(&self) -> &[ModelCard] {
        &self.0
    }

    /// The name that a request which names none is taken to mean.
    pub(crate) fn default_name(&self) -> &str {
        self.0.first().map_or("", |card| card.id.as_str())
    }

    /// The model behind a name.
    pub(crate) fn find(&self, name: &str) -> Option<&ModelCard> {
        self.0.iter().find(|card| card.id == name)
    }
}
