//! What holds for a whole call.

use crate::{
    attributes::{Attributes, Keys},
    bindings::lifecycle::tollgate::plugin::types::BatchContext,
};

/// Tenant, exporter, time and resource of a batch. A batch never mixes tenants or exporters.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub(crate) raw: &'a BatchContext,
    pub(crate) keys: Keys<'a>,
}

impl<'a> Context<'a> {
    /// Who pays, where the operator has configured tenancy.
    pub fn tenant(&self) -> Option<&'a str> {
        self.raw.tenant.as_deref()
    }

    /// The exporter the spans are bound for; none before they fan out.
    pub fn exporter(&self) -> Option<&'a str> {
        self.raw.exporter.as_deref()
    }

    /// The host's clock, in nanoseconds since the Unix epoch. A plugin has no other clock, so that a replay years later
    /// gives the same answer.
    pub fn now(&self) -> u64 {
        self.raw.now
    }

    /// Attributes of the OpenTelemetry resource, chosen like all others.
    pub fn resource(&self) -> Attributes<'a> {
        Attributes { slots: &self.raw.resource_attributes, arena: &self.raw.arena, keys: self.keys }
    }
}
