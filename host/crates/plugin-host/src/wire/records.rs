//! The contract's records that cross with each call, field by field.

use wasmtime::component::ComponentType;

use super::{Fields, Record};
use crate::bindings::cost_model::{ComputeUsage, PriceContext, Usage};
use crate::bindings::types::{Slot, Span, TextRef, TraceFlags};

impl Record for TextRef {
    #[inline(always)]
    fn put(&self, fields: &mut Fields<'_>) {
        fields.u32(self.offset);
        fields.u32(self.length);
    }
}

impl Record for Slot {
    #[inline(always)]
    fn put(&self, fields: &mut Fields<'_>) {
        fields.u32(self.key);
        fields.u8(self.kind as u8);
        fields.u64(self.bits);
    }
}

impl Record for Span {
    #[inline(always)]
    fn put(&self, fields: &mut Fields<'_>) {
        let context = &self.context;
        fields.u64(context.trace_id.high);
        fields.u64(context.trace_id.low);
        fields.u64(context.span_id);
        fields.u8(u8::from(context.trace_flags.contains(TraceFlags::SAMPLED)));
        fields.u8(u8::from(context.is_remote));
        fields.u64(self.parent_span_id);
        fields.u8(self.kind as u8);
        fields.u8(self.status as u8);
        self.name.put(fields);
        self.status_message.put(fields);
        fields.u64(self.start);
        fields.u64(self.end);
        fields.u32(self.slots_end);
        fields.u32(self.withheld_attributes);
    }
}

impl Record for PriceContext {
    #[inline(always)]
    fn put(&self, fields: &mut Fields<'_>) {
        text(self.tenant.as_ref(), fields);
        fields.u64(self.now);
    }
}

impl Record for Usage<'_> {
    #[inline(always)]
    fn put(&self, fields: &mut Fields<'_>) {
        self.provider.put(fields);
        self.request_model.put(fields);
        self.response_model.put(fields);
        self.operation.put(fields);
        text(self.service_tier.as_ref(), fields);
        fields.u8(self.phase as u8);
        fields.u8(self.source as u8);
        fields.u64(self.start);
        let tokens = &self.tokens;
        for count in [
            tokens.input,
            tokens.input_cache_read,
            tokens.input_cache_write,
            tokens.input_audio,
            tokens.input_image,
            tokens.output,
            tokens.output_reasoning,
            tokens.output_audio,
            tokens.output_image,
        ] {
            fields.u64(count);
        }
        fields.align(Option::<ComputeUsage>::ALIGN32);
        fields.u8(u8::from(self.compute.is_some()));
        fields.align(ComputeUsage::ALIGN32);
        match &self.compute {
            Some(compute) => {
                compute.device.put(fields);
                fields.u64(compute.device_time);
                fields.u32(compute.share_ppm);
                fields.align(Option::<u64>::ALIGN32);
                fields.u8(u8::from(compute.energy_millijoules.is_some()));
                fields.align(u64::ALIGN32);
                match compute.energy_millijoules {
                    Some(energy) => fields.u64(energy),
                    None => fields.skip(u64::SIZE32),
                }
            }
            None => fields.skip(ComputeUsage::SIZE32),
        }
        // None: with a list in there it is not written here.
        fields.align(Option::<&[u8]>::ALIGN32);
        fields.u8(0);
    }

    #[inline(always)]
    fn is_flat(&self) -> bool {
        self.units.is_none()
    }
}

#[inline(always)]
fn text(text: Option<&TextRef>, fields: &mut Fields<'_>) {
    fields.align(Option::<TextRef>::ALIGN32);
    fields.u8(u8::from(text.is_some()));
    fields.align(TextRef::ALIGN32);
    match text {
        Some(text) => text.put(fields),
        None => fields.skip(TextRef::SIZE32),
    }
}
