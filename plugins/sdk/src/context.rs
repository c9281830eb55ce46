//! What holds for a whole call.

use crate::{
    attributes::{Attributes, Keys},
    bindings::{
        cost_model::exports::tollgate::plugin::cost_model::PriceContext,
        lifecycle::tollgate::plugin::types::BatchContext,
    },
    usage::Texts,
};

/// Tenant, exporter, time and resource of a batch. A batch never mixes tenants or exporters.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    tenant: Option<&'a str>,
    exporter: Option<&'a str>,
    now: u64,
    resource: Attributes<'a>,
}

impl<'a> Context<'a> {
    /// `None` if the tenant's name is not among the texts.
    pub(crate) fn of_usage(raw: &PriceContext, texts: Texts<'a>) -> Option<Self> {
        let tenant = match raw.tenant {
            Some(at) => Some(texts.at(at)?),
            None => None,
        };
        Some(Self { tenant, exporter: None, now: raw.now, resource: Attributes::default() })
    }

    pub(crate) fn of_spans(raw: &'a BatchContext, keys: Keys<'a>) -> Self {
        Self {
            tenant: raw.tenant.as_deref(),
            exporter: raw.exporter.as_deref(),
            now: raw.now,
            resource: Attributes { slots: &raw.resource_attributes, arena: &raw.arena, keys },
        }
    }

    /// Who pays, where the operator has configured tenancy.
    pub fn tenant(&self) -> Option<&'a str> {
        self.tenant
    }

    /// The exporter the spans are bound for; none before they fan out, and none of a price.
    pub fn exporter(&self) -> Option<&'a str> {
        self.exporter
    }

    /// The host's clock, in nanoseconds since the Unix epoch. A plugin has no other clock, so that a replay years later
    /// gives the same answer.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Attributes of the OpenTelemetry resource, chosen like all others. A price has none.
    pub fn resource(&self) -> Attributes<'a> {
        self.resource
    }
}
