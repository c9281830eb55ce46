//! The plugins that serve together. A request holds on to the set that it was admitted under, whatever happens to the
//! folder meanwhile.

use std::sync::Arc;

use tollgate_domain::{CostOutcome, PluginFault, PluginIdentity, Resource, Span, Usage};

use crate::limits::Limits;
use crate::loaded::{Loaded, Role};
use crate::price;
use crate::spans::{self, Batch, Filtered};

/// An immutable set of plugins, in order. Calls run in place on the caller's thread and never wait for one another.
pub struct PluginSet {
    generation: u64,
    plugins: Vec<Arc<Loaded>>,
    limits: Arc<Limits>,
}

impl PluginSet {
    pub(crate) fn new(generation: u64, plugins: Vec<Arc<Loaded>>, limits: Arc<Limits>) -> Self {
        Self { generation, plugins, limits }
    }

    /// Whether these are the same plugins in the same order.
    pub(crate) fn holds(&self, plugins: &[Arc<Loaded>]) -> bool {
        self.plugins.len() == plugins.len()
            && self.plugins.iter().zip(plugins).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Who is in it, in order.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginIdentity> {
        self.plugins.iter().map(|plugin| &plugin.identity)
    }

    /// Counts the sets: a later one has a higher number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What a request cost. Cost models are asked in order: the first that does not answer `unpriced` decides, and one
    /// that fails decides too.
    #[must_use]
    pub fn price(&self, tenant: Option<&str>, usage: &Usage) -> CostOutcome {
        price::price(self.of(Role::CostModel), tenant, usage, &self.limits)
    }

    /// Lets every enricher edit the attributes of these spans, which are of one tenant. Each sees the spans as they
    /// were; where two write the same key the later one wins. Answers who failed, and what they failed to do is left out.
    #[must_use]
    pub fn enrich(
        &self,
        tenant: Option<&str>,
        resource: &Resource,
        spans: &mut [Span],
    ) -> Vec<PluginFault> {
        let batch = Batch { exporter: None, tenant, resource };
        spans::enrich(self.of(Role::AttributeEnricher), batch, spans, &self.limits)
    }

    /// Which of these spans, of one tenant, may leave through an exporter, and with what removed. One filter that says no
    /// is enough, and so is one that fails: what it should have judged does not leave.
    #[must_use]
    pub fn filter(
        &self,
        exporter: &str,
        tenant: Option<&str>,
        resource: &Resource,
        spans: Vec<Span>,
    ) -> Filtered {
        let batch = Batch { exporter: Some(exporter), tenant, resource };
        spans::filter(self.of(Role::ExportFilter), batch, spans, &self.limits)
    }

    /// Whether any of them does this.
    pub(crate) fn plays(&self, role: Role) -> bool {
        self.of(role).next().is_some()
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Loaded> {
        self.plugins.iter().map(Arc::as_ref).filter(move |plugin| plugin.has(role))
    }
}

impl std::fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginSet")
            .field("generation", &self.generation)
            .field("plugins", &self.plugins().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
