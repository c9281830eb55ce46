//! How the arguments of each function lie in memory, and values made of them.
//!
//! Records of scalars are the generated types themselves, which are `repr(C)`; what has a list or an option in it is
//! written down here.

use super::cost;
use crate::bindings::lifecycle::tollgate::plugin::{
    edits::Edit,
    types::{BatchContext, Slot, Span, SpanBatch, SpanContext, TextRef},
};
use std::mem::{MaybeUninit, offset_of};

/// A list or a string.
#[repr(C)]
pub(super) struct List {
    pointer: *mut u8,
    length: usize,
}

/// An option.
#[repr(C)]
struct Maybe<T> {
    is_some: u8,
    value: MaybeUninit<T>,
}

/// Of `price`.
#[repr(C)]
pub(super) struct PriceArguments {
    tenant: Maybe<TextRef>,
    now: u64,
    usage: Usage,
    arena: List,
}

#[repr(C)]
struct Usage {
    provider: TextRef,
    request_model: TextRef,
    response_model: TextRef,
    operation: TextRef,
    service_tier: Maybe<TextRef>,
    phase: cost::Phase,
    source: cost::UsageSource,
    start: u64,
    tokens: cost::TokenUsage,
    compute: Maybe<Compute>,
    units: Maybe<List>,
}

#[repr(C)]
struct Compute {
    device: TextRef,
    device_time: u64,
    share_ppm: u32,
    energy_millijoules: Maybe<u64>,
}

/// Of `enrich` and `filter`.
#[repr(C)]
pub(super) struct SpanArguments {
    tenant: Maybe<List>,
    exporter: Maybe<List>,
    now: u64,
    resource_attributes: List,
    keys: List,
    resource_arena: List,
    spans: List,
    slots: List,
    arena: List,
}

/// What the canonical ABI says.
const _: () = {
    assert!(size_of::<TextRef>() == 8 && size_of::<cost::TokenUsage>() == 72);
    assert!(size_of::<Slot>() == 16 && offset_of!(Slot, kind) == 4 && offset_of!(Slot, bits) == 8);
    assert!(size_of::<SpanContext>() == 32 && offset_of!(SpanContext, trace_flags) == 24);
    assert!(offset_of!(SpanContext, is_remote) == 25 && offset_of!(Span, parent_span_id) == 32);
    assert!(offset_of!(Span, kind) == 40 && offset_of!(Span, status) == 41);
    assert!(offset_of!(Span, name) == 44 && offset_of!(Span, start) == 64);
    assert!(offset_of!(Span, slots_end) == 80 && size_of::<Span>() == 88);
    assert!(size_of::<Edit>() == 24 && offset_of!(Edit, op) == 4 && offset_of!(Edit, slot) == 8);
    assert!(size_of::<cost::CostLine>() == 24 && offset_of!(cost::CostLine, quantity) == 8);
    assert!(size_of::<cost::UnitUsage>() == 16 && size_of::<Compute>() == 40);
    assert!(offset_of!(Usage, phase) == 44 && offset_of!(Usage, compute) == 128);
    assert!(offset_of!(Usage, units) == 176 && size_of::<Usage>() == 192);
    assert!(size_of::<PriceArguments>() == 224 && size_of::<SpanArguments>() == 80);
};

impl List {
    /// # Safety
    /// So many values lie there, in room for them that the gateway asked this component for.
    #[inline]
    unsafe fn take<T>(self) -> Vec<T> {
        // SAFETY: as the caller says; no values lie at an address that is aligned and belongs to nobody.
        unsafe { Vec::from_raw_parts(self.pointer.cast(), self.length, self.length) }
    }

    /// # Safety
    /// The same, and it is a string.
    #[inline]
    unsafe fn text(self) -> String {
        // SAFETY: as the caller says.
        unsafe { String::from_utf8_unchecked(self.take()) }
    }
}

impl<T> Maybe<T> {
    #[inline]
    fn take(self) -> Option<T> {
        // SAFETY: the tag says that there is a value.
        (self.is_some != 0).then(|| unsafe { self.value.assume_init() })
    }
}

impl PriceArguments {
    /// # Safety
    /// The gateway wrote them.
    #[inline]
    pub(super) unsafe fn lift(self) -> (cost::PriceContext, cost::Usage, Vec<u8>) {
        let context = cost::PriceContext { tenant: self.tenant.take(), now: self.now };
        let usage = self.usage;
        let compute = usage.compute.take().map(|compute| cost::ComputeUsage {
            device: compute.device,
            device_time: compute.device_time,
            share_ppm: compute.share_ppm,
            energy_millijoules: compute.energy_millijoules.take(),
        });
        // SAFETY: as the caller says.
        let (units, arena) =
            unsafe { (usage.units.take().map(|units| units.take()), self.arena.take()) };
        let usage = cost::Usage {
            provider: usage.provider,
            request_model: usage.request_model,
            response_model: usage.response_model,
            operation: usage.operation,
            service_tier: usage.service_tier.take(),
            phase: usage.phase,
            source: usage.source,
            start: usage.start,
            tokens: usage.tokens,
            compute,
            units,
        };
        (context, usage, arena)
    }
}

impl SpanArguments {
    /// # Safety
    /// The gateway wrote them.
    #[inline]
    pub(super) unsafe fn lift(self) -> (BatchContext, SpanBatch) {
        // SAFETY: as the caller says.
        unsafe {
            let context = BatchContext {
                tenant: self.tenant.take().map(|text| text.text()),
                exporter: self.exporter.take().map(|text| text.text()),
                now: self.now,
                resource_attributes: self.resource_attributes.take(),
                keys: self.keys.take(),
                arena: self.resource_arena.take(),
            };
            let batch = SpanBatch {
                spans: self.spans.take(),
                slots: self.slots.take(),
                arena: self.arena.take(),
            };
            (context, batch)
        }
    }
}
