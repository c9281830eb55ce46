//! The models in this process, by the names they answer to.

use crate::local::Local;
use crate::models::ModelCard;

/// All of them. Each has an engine, a queue and memory of its own.
pub(crate) struct Locals(Vec<Local>);

impl Locals {
    pub(crate) fn new(all: Vec<Local>) -> Self {
        Self(all)
    }

    /// The model that answers to a name.
    pub(crate) fn find(&self, name: &str) -> Option<(&Local, &ModelCard)> {
        self.0.iter().find_map(|local| Some((local, local.models.find(name)?)))
    }

    /// The name that a request which names none is taken to mean: nothing where there is a choice.
    pub(crate) fn default_name(&self) -> &str {
        match self.0.as_slice() {
            [only] => only.models.default_name(),
            _ => "",
        }
    }

    /// Every name that can be asked for.
    pub(crate) fn cards(&self) -> impl Iterator<Item = &ModelCard> {
        self.0.iter().flat_map(|local| local.models.cards())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Local> {
        self.0.iter()
    }
}
