//! One request or one span, described in a line.

use super::pack::Pack;
use crate::{
    Phase, PluginInfo, SpanContext, SpanKind, Status, TokenUsage, TraceId, UsageSource, Value,
    bindings::{
        cost_model::exports::tollgate::plugin::cost_model as raw,
        lifecycle::tollgate::plugin::types::{BatchContext, Span, SpanBatch, TraceFlags},
    },
};

/// The clock of every call.
const NOW: u64 = 1_767_225_600_000_000_000;

/// One request or one span to be put before a plugin. What is not said is as in a plain request that ended well.
#[derive(Debug, Clone)]
pub struct Case {
    usage: Used,
    tenant: Option<String>,
    exporter: Option<String>,
    name: String,
    parent: u64,
    status: Status,
    duration: u64,
    attributes: Vec<(String, Owned)>,
}

/// What a request used; the fields are those of [`Usage`](crate::Usage).
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "as in `Usage`")]
pub struct Used {
    pub provider: String,
    pub request_model: String,
    pub response_model: String,
    pub operation: String,
    pub service_tier: Option<String>,
    pub phase: Phase,
    pub source: UsageSource,
    pub start: u64,
    pub tokens: TokenUsage,
    pub compute: Option<OnDevice>,
    /// Names and millionths.
    pub units: Vec<(String, u64)>,
}

/// Time on a device; the fields are those of [`ComputeUsage`](crate::ComputeUsage).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `ComputeUsage`")]
pub struct OnDevice {
    pub device: String,
    pub device_time: u64,
    pub share_ppm: u32,
    pub energy_millijoules: Option<u64>,
}

impl Used {
    fn pack(&self, pack: &mut Pack) -> raw::Usage {
        let units = self.units.iter().map(|(unit, quantity_micros)| raw::UnitUsage {
            unit: pack.text(unit),
            quantity_micros: *quantity_micros,
        });
        let units: Vec<_> = units.collect();
        raw::Usage {
            provider: pack.text(&self.provider),
            request_model: pack.text(&self.request_model),
            response_model: pack.text(&self.response_model),
            operation: pack.text(&self.operation),
            service_tier: self.service_tier.as_deref().map(|tier| pack.text(tier)),
            phase: self.phase,
            source: self.source,
            start: self.start,
            tokens: self.tokens,
            compute: self.compute.as_ref().map(|compute| raw::ComputeUsage {
                device: pack.text(&compute.device),
                device_time: compute.device_time,
                share_ppm: compute.share_ppm,
                energy_millijoules: compute.energy_millijoules,
            }),
            units: (!units.is_empty()).then_some(units),
        }
    }
}

/// A value that a case can keep.
#[derive(Debug, Clone)]
enum Owned {
    Text(String),
    Int(i64),
    Bool(bool),
    Double(f64),
    Elided(u64),
}

impl Case {
    /// A request for a model, reported by the provider, ended normally.
    pub fn usage(model: &str) -> Self {
        Self {
            usage: Used {
                provider: "tollgate".to_owned(),
                request_model: model.to_owned(),
                response_model: model.to_owned(),
                operation: "chat".to_owned(),
                service_tier: None,
                phase: Phase::Final,
                source: UsageSource::Reported,
                start: 0,
                tokens: TokenUsage {
                    input: 0,
                    input_cache_read: 0,
                    input_cache_write: 0,
                    input_audio: 0,
                    input_image: 0,
                    output: 0,
                    output_reasoning: 0,
                    output_audio: 0,
                    output_image: 0,
                },
                compute: None,
                units: Vec::new(),
            },
            tenant: None,
            exporter: None,
            name: "inference.request".to_owned(),
            parent: 0,
            status: Status::Ok,
            duration: 0,
            attributes: Vec::new(),
        }
    }

    /// A root span.
    pub fn span(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::usage("") }
    }

    /// Totals of input and output tokens.
    #[must_use]
    pub fn tokens(mut self, input: u64, output: u64) -> Self {
        self.usage.tokens.input = input;
        self.usage.tokens.output = output;
        self
    }

    /// Any other change to the usage.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Used)) -> Self {
        change(&mut self.usage);
        self
    }

    /// Time on a device, in nanoseconds.
    #[must_use]
    pub fn compute(mut self, device: &str, device_time: u64) -> Self {
        let device = device.to_owned();
        self.usage.compute =
            Some(OnDevice { device, device_time, share_ppm: 1_000_000, energy_millijoules: None });
        self
    }

    /// Who pays.
    #[must_use]
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// Where the span is bound.
    #[must_use]
    pub fn exporter(mut self, exporter: &str) -> Self {
        self.exporter = Some(exporter.to_owned());
        self
    }

    /// Makes it a child.
    #[must_use]
    pub fn parent(mut self, span_id: u64) -> Self {
        self.parent = span_id;
        self
    }

    /// The span's status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// How long the span took, in nanoseconds.
    #[must_use]
    pub fn duration(mut self, nanoseconds: u64) -> Self {
        self.duration = nanoseconds;
        self
    }

    /// An attribute of the span; the same key again makes a list.
    #[must_use]
    pub fn attribute<'v>(mut self, key: &str, value: impl Into<Value<'v>>) -> Self {
        let value = match value.into() {
            Value::Text(text) | Value::Json(text) => Owned::Text(text.to_owned()),
            Value::Bytes(bytes) => Owned::Text(String::from_utf8_lossy(bytes).into_owned()),
            Value::Int(number) => Owned::Int(number),
            Value::Bool(truth) => Owned::Bool(truth),
            Value::Double(number) => Owned::Double(number),
            Value::Elided { size } => Owned::Elided(size),
        };
        self.attributes.push((key.to_owned(), value));
        self
    }

    pub(super) fn into_usage(self) -> (raw::PriceContext, raw::Usage, Vec<u8>) {
        let mut pack = Pack::default();
        let tenant = self.tenant.as_deref().map(|tenant| pack.text(tenant));
        let usage = self.usage.pack(&mut pack);
        (raw::PriceContext { tenant, now: NOW }, usage, pack.arena)
    }

    pub(super) fn into_span(self, info: &PluginInfo) -> (BatchContext, SpanBatch) {
        let mut pack = self.pack(info);
        let name = pack.text(&self.name);
        let span = Span {
            context: SpanContext {
                trace_id: TraceId { high: 1, low: 2 },
                span_id: 3,
                trace_flags: TraceFlags::SAMPLED,
                is_remote: false,
            },
            parent_span_id: self.parent,
            kind: SpanKind::Server,
            status: self.status,
            name,
            status_message: pack.text(""),
            start: 1_000,
            end: 1_000 + self.duration,
            slots_end: u32::try_from(pack.slots.len()).unwrap_or(u32::MAX),
            withheld_attributes: pack.withheld,
        };
        let batch = SpanBatch { spans: vec![span], slots: pack.slots, arena: pack.arena };
        let context = BatchContext {
            tenant: self.tenant,
            exporter: self.exporter,
            now: NOW,
            resource_attributes: Vec::new(),
            keys: pack.keys,
            arena: pack.keys_arena,
        };
        (context, batch)
    }

    fn pack(&self, info: &PluginInfo) -> Pack {
        let mut pack = Pack::default();
        for (key, value) in &self.attributes {
            let value = match value {
                Owned::Text(text) => Value::Text(text),
                Owned::Int(number) => Value::Int(*number),
                Owned::Bool(truth) => Value::Bool(*truth),
                Owned::Double(number) => Value::Double(*number),
                Owned::Elided(size) => Value::Elided { size: *size },
            };
            pack.attribute(info, key, value);
        }
        pack
    }
}
