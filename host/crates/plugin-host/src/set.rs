//! The plugins that serve together. A request holds on to the set that it was admitted under, whatever happens to the
//! folder meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tollgate_domain::{CostOutcome, PluginFault, PluginIdentity, Resource, Span, Usage};

use crate::folder;
use crate::loaded::Loaded;
use crate::manifest::{Entry, OnFailure};
use crate::matching::Matching;
use crate::price;
use crate::role::Role;
use crate::spans::{self, Batch, Filtered};

/// An immutable set of plugins, in order. Calls run in place on the caller's thread and never wait for one another: there
/// is no queue before a plugin.
pub struct PluginSet {
    generation: u64,
    members: Vec<Member>,
    fingerprint: String,
}

/// A plugin and what `plugins.toml` says of its part in the set.
#[derive(Clone)]
pub(crate) struct Member {
    pub loaded: Arc<Loaded>,
    pub file: Arc<str>,
    pub rules: Arc<Rules>,
}

/// What applies without loading a plugin anew.
#[derive(Debug, PartialEq)]
pub(crate) struct Rules {
    roles: Option<Vec<Role>>,
    pub matching: Matching,
    on_failure: Option<OnFailure>,
    whole_traces: bool,
    pub shadow: bool,
}

impl From<&Entry> for Rules {
    fn from(entry: &Entry) -> Self {
        Self {
            roles: entry.roles.clone(),
            matching: entry.matching.clone(),
            on_failure: entry.on_failure,
            whole_traces: entry.whole_traces,
            shadow: entry.shadow,
        }
    }
}

/// Which filters are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    /// All of them, where nobody waits for whole traces: a filter is never passed by.
    All,
    /// Those that judge spans.
    OfSpans,
    /// Those that judge traces (`whole-traces = true`).
    OfTraces {
        /// It is decided already that the trace leaves: they may redact, and drop nothing.
        late: bool,
    },
}

/// What a cost model in the shadow says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowPrice {
    /// Its file, since two in the shadow may be of one plugin.
    pub file: Arc<str>,
    /// Who says it.
    pub plugin: Arc<PluginIdentity>,
    /// What it says.
    pub outcome: CostOutcome,
}

/// Why a request is not admitted: the plugin that must price it has failed too often lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// What would become of its price now.
    pub fault: PluginFault,
    /// When another try makes sense.
    pub retry_after: Duration,
}

impl Member {
    /// Whether it does this here.
    pub fn has(&self, role: Role) -> bool {
        self.loaded.has(role)
            && self.rules.roles.as_ref().is_none_or(|roles| roles.contains(&role))
            && (!self.rules.shadow || role == Role::CostModel)
    }

    /// What it does here.
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.has(*role)).collect()
    }

    pub fn on_failure(&self, role: Role) -> OnFailure {
        self.rules.on_failure.unwrap_or_else(|| OnFailure::default_of(role))
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loaded, &other.loaded)
            && self.file == other.file
            && self.rules == other.rules
    }
}

impl PluginSet {
    pub(crate) fn new(generation: u64, members: Vec<Member>) -> Self {
        let fingerprint = fingerprint(&members);
        Self { generation, members, fingerprint }
    }

    /// Whether these are the same plugins, with the same rules, in the same order.
    pub(crate) fn holds(&self, members: &[Member]) -> bool {
        self.members.len() == members.len()
            && self.members.iter().zip(members).all(|(a, b)| a.is(b))
    }

    /// The one from this file, or else those of this name.
    pub(crate) fn find(&self, name: &str) -> Vec<&Member> {
        match self.members.iter().find(|member| *member.file == *name) {
            Some(member) => vec![member],
            None => self.members.iter().filter(|m| m.loaded.identity.name == name).collect(),
        }
    }

    /// Who is in it, in order.
    pub fn plugins(&self) -> impl Iterator<Item = &PluginIdentity> {
        self.members.iter().map(|member| &*member.loaded.identity)
    }

    /// Counts the sets: a later one has a higher number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells sets apart that may price differently: a digest over the contents and configurations of the cost models
    /// and what they match, the same in another process.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What a request cost. Cost models that match it are asked in order: the first that does not answer `unpriced`
    /// decides, and one that fails decides too. Those in the shadow are not asked.
    #[must_use]
    pub fn price(&self, tenant: Option<&str>, usage: &Usage) -> CostOutcome {
        price::price(self.pricing(false, tenant, usage).map(|m| &*m.loaded), tenant, usage)
    }

    /// Whether the last call of each cost model, those in the shadow included, was a matter of microseconds. Then a price is
    /// worth less than a switch of threads. A model that goes bad holds its caller up once, for its deadline at most.
    #[must_use]
    pub fn prices_quickly(&self) -> bool {
        let mut models = self.members.iter().filter(|member| member.has(Role::CostModel));
        models.all(|member| member.loaded.is_quick())
    }

    /// What each cost model in the shadow that matches it says of a request. On no bill, span or answer.
    #[must_use]
    pub fn shadow(&self, tenant: Option<&str>, usage: &Usage) -> Vec<ShadowPrice> {
        self.pricing(true, tenant, usage)
            .map(|member| ShadowPrice {
                file: Arc::clone(&member.file),
                plugin: Arc::clone(&member.loaded.identity),
                outcome: price::one(&member.loaded, tenant, usage, false),
            })
            .collect()
    }

    /// Whether a request may come in: not while the breaker of a cost model with `on-failure = "closed"` that matches it is
    /// open. `usage` need not have counts yet. When the breaker's pause is over, one request at a time is let in to try.
    ///
    /// # Errors
    ///
    /// Which plugin, how it failed, and when to try again.
    pub fn admits(&self, tenant: Option<&str>, usage: &Usage) -> Result<(), NotAdmitted> {
        let closed = |m: &&Member| m.on_failure(Role::CostModel) == OnFailure::Closed;
        for member in self.pricing(false, tenant, usage).filter(closed) {
            let loaded = &member.loaded;
            loaded.breaker.admit_request().map_err(|refused| NotAdmitted {
                fault: refused.fault.of(&loaded.identity),
                retry_after: refused.wait,
            })?;
        }
        Ok(())
    }

    /// Lets every enricher that matches edit the attributes of these spans, which are of one tenant. Each sees the spans
    /// as they were; where two set the same key the later one wins. Answers who failed: what it failed to do is left out,
    /// and spans are taken out that an enricher with `on-failure = "closed"` failed on.
    #[must_use]
    pub fn enrich(
        &self,
        tenant: Option<&str>,
        resource: &Resource,
        spans: &mut Vec<Span>,
    ) -> Vec<PluginFault> {
        let batch = Batch { exporter: None, tenant, resource };
        spans::enrich(self.of(Role::AttributeEnricher, batch), batch, spans)
    }

    /// Which of these spans, of one tenant, may leave through an exporter, and with what removed. One filter that says no
    /// is enough. What a filter failed on does not leave, unless it has `on-failure = "open"`: then its spans leave as if
    /// it were not there. What one filter removes no other puts back.
    #[must_use]
    pub fn filter(
        &self,
        exporter: &str,
        tenant: Option<&str>,
        resource: &Resource,
        spans: Vec<Span>,
    ) -> Filtered {
        self.filter_by(Filters::All, exporter, tenant, resource, spans)
    }

    /// The same by some of the filters. An exporter that waits for whole traces asks twice: filters of spans as ever, and
    /// filters of traces about one trace at a time, with the attributes that all its resources share.
    #[must_use]
    pub fn filter_by(
        &self,
        filters: Filters,
        exporter: &str,
        tenant: Option<&str>,
        resource: &Resource,
        spans: Vec<Span>,
    ) -> Filtered {
        let batch = Batch { exporter: Some(exporter), tenant, resource };
        let asked = self.of(Role::ExportFilter, batch).filter(|member| match filters {
            Filters::All => true,
            Filters::OfSpans => !member.rules.whole_traces,
            Filters::OfTraces { .. } => member.rules.whole_traces,
        });
        spans::filter(asked, batch, spans, filters == Filters::OfTraces { late: true })
    }

    /// Whether a filter judges whole traces.
    #[must_use]
    pub fn judges_traces(&self) -> bool {
        self.members.iter().any(|m| m.rules.whole_traces && m.has(Role::ExportFilter))
    }

    /// Whether any of them does this.
    #[must_use]
    pub fn plays(&self, role: Role) -> bool {
        self.members.iter().any(|member| member.has(role))
    }

    fn pricing(
        &self,
        shadow: bool,
        tenant: Option<&str>,
        usage: &Usage,
    ) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| {
            member.rules.shadow == shadow
                && member.has(Role::CostModel)
                && member.rules.matching.usage(tenant, usage)
        })
    }

    fn of(&self, role: Role, batch: Batch<'_>) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| {
            member.has(role) && member.rules.matching.batch(batch.tenant, batch.exporter)
        })
    }
}

fn fingerprint(members: &[Member]) -> String {
    let mut all = String::new();
    for member in members.iter().filter(|m| m.has(Role::CostModel) && !m.rules.shadow) {
        let (digest, config) = (&member.loaded.identity.digest, member.loaded.config());
        let config = folder::digest_of(config.as_bytes());
        all.push_str(&format!("{digest} {config} {:?}\n", member.rules.matching));
    }
    folder::digest_of(all.as_bytes())
}

impl std::fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginSet")
            .field("generation", &self.generation)
            .field("plugins", &self.plugins().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
