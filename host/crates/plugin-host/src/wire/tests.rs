//! What is written whole, beside what wasmtime's derived code writes: in the memory of a component that answers with all
//! that it was given.

#[path = "../../tests/support/craft.rs"]
#[expect(dead_code, reason = "the tests of whole plugins craft more")]
mod craft;

use std::cell::RefCell;

use proptest::prelude::*;
use wasmtime::component::{Component, ComponentNamedList, Linker, Lower, TypedFunc};
use wasmtime::{Engine, Store};

use self::craft::Craft;
use super::{All, Whole};
use crate::bindings::cost_model::{
    ComputeUsage, Phase, PriceContext, Priced, TokenUsage, UnitUsage, Usage, UsageSource,
};
use crate::bindings::types::{
    PluginError, Slot, Span, SpanContext, SpanKind, Status, TextRef, TraceFlags, TraceId, ValueKind,
};

/// The message of a failure is all of memory that the host asked for, two letters a byte.
const TELL: &str = "
    (local $from i32) (local $to i32)
    (local.set $from (i32.const 4096))
    (local.set $to (i32.const 32768))
    (block $done (loop $more
      (br_if $done (i32.ge_u (local.get $from) (global.get $next)))
      (i32.store8 (local.get $to)
        (i32.add (i32.const 97) (i32.shr_u (i32.load8_u (local.get $from)) (i32.const 4))))
      (i32.store8 offset=1 (local.get $to)
        (i32.add (i32.const 97) (i32.and (i32.load8_u (local.get $from)) (i32.const 15))))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (local.set $to (i32.add (local.get $to) (i32.const 2)))
      (br $more)))
    (i32.store (i32.const 772) (i32.const 2))
    (i32.store (i32.const 776) (i32.const 32768))
    (i32.store (i32.const 780) (i32.sub (local.get $to) (i32.const 32768)))";

/// The same with lists of the records that spans are made of.
const LISTS: Craft<'_> = Craft {
    put: &[("price", TELL)],
    module: &[],
    contract: &[
        (
            "price: func(ctx: price-context, usage: usage, arena: list<u8>)",
            "price: func(usage: usage, spans: list<span>, slots: list<slot>, keys: list<text-ref>)",
        ),
        (
            "use types.{plugin-error, unix-nanos, duration-nanos, text-ref};",
            "use types.{plugin-error, unix-nanos, duration-nanos, text-ref, span, slot};",
        ),
    ],
};

type Answer = (Result<Priced, PluginError>,);

struct Teller {
    store: Store<()>,
    instance: wasmtime::component::Instance,
}

impl Teller {
    fn new(craft: Craft<'_>) -> Self {
        let engine = Engine::new(&crate::engine::base()).unwrap();
        let component = Component::new(&engine, craft::component(craft)).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        Self { store, instance }
    }

    fn tell<P: ComponentNamedList + Lower>(&mut self, arguments: P) -> String {
        let store = &mut self.store;
        let interface = "tollgate:plugin/cost-model@0.1.0";
        let interface = self.instance.get_export_index(&mut *store, None, interface).unwrap();
        let price = self.instance.get_export_index(&mut *store, Some(&interface), "price").unwrap();
        let price: TypedFunc<P, Answer> = self.instance.get_typed_func(&mut *store, price).unwrap();
        match price.call(&mut *store, arguments).unwrap() {
            (Ok(Priced::Failed(told)),) => told,
            (other,) => panic!("{other:?}"),
        }
    }
}

fn text() -> impl Strategy<Value = TextRef> {
    any::<(u32, u32)>().prop_map(|(offset, length)| TextRef { offset, length })
}

prop_compose! {
    fn usage()(
        texts in prop::collection::vec(text(), 4),
        service_tier in prop::option::of(text()),
        phase in prop::sample::select(vec![Phase::Interim, Phase::Final, Phase::Interrupted]),
        source in prop::sample::select(vec![UsageSource::Reported, UsageSource::Estimated]),
        start: u64,
        counts: [u64; 9],
        compute in prop::option::of((text(), any::<(u64, u32, Option<u64>)>())),
    ) -> Usage<'static> {
        let [input, input_cache_read, input_cache_write, input_audio, input_image, output, ..] = counts;
        let [.., output_reasoning, output_audio, output_image] = counts;
        Usage {
            provider: texts[0],
            request_model: texts[1],
            response_model: texts[2],
            operation: texts[3],
            service_tier,
            phase,
            source,
            start,
            tokens: TokenUsage {
                input, input_cache_read, input_cache_write, input_audio, input_image,
                output, output_reasoning, output_audio, output_image,
            },
            compute: compute.map(|(device, (device_time, share_ppm, energy_millijoules))| {
                ComputeUsage { device, device_time, share_ppm, energy_millijoules }
            }),
            units: None,
        }
    }
}

prop_compose! {
    fn span()(
        ids: [u64; 4],
        flags: [bool; 2],
        kind in prop::sample::select(vec![SpanKind::Internal, SpanKind::Client, SpanKind::Consumer]),
        status in prop::sample::select(vec![Status::Unset, Status::Ok, Status::Error]),
        name in text(),
        status_message in text(),
        times: [u64; 2],
        counts: [u32; 2],
    ) -> Span {
        let trace_flags = if flags[0] { TraceFlags::SAMPLED } else { TraceFlags::empty() };
        Span {
            context: SpanContext {
                trace_id: TraceId { high: ids[0], low: ids[1] },
                span_id: ids[2],
                trace_flags,
                is_remote: flags[1],
            },
            parent_span_id: ids[3],
            kind,
            status,
            name,
            status_message,
            start: times[0],
            end: times[1],
            slots_end: counts[0],
            withheld_attributes: counts[1],
        }
    }
}

prop_compose! {
    fn slot()(
        key: u32,
        kind in prop::sample::select(vec![ValueKind::Text, ValueKind::Int, ValueKind::Elided]),
        bits: u64,
    ) -> Slot {
        Slot { key, kind, bits }
    }
}

#[test]
fn a_price_crosses_as_derived_code_writes_it() {
    let teller = RefCell::new(Teller::new(Craft { put: &[("price", TELL)], ..Craft::default() }));
    proptest!(|(usage in usage(), tenant in prop::option::of(text()), now: u64, units: bool)| {
        let context = PriceContext { tenant, now };
        let unit = [UnitUsage { unit: TextRef { offset: 1, length: 2 }, quantity_micros: now }];
        let usage = Usage { units: units.then_some(&unit[..]), ..usage };
        let arena = &b"names"[..];
        let derived = teller.borrow_mut().tell((context, usage.clone(), arena));
        let whole = teller.borrow_mut().tell((Whole(context), Whole(usage), arena));
        prop_assert_eq!(whole, derived);
    });
}

#[test]
fn lists_cross_as_derived_code_writes_them() {
    let teller = RefCell::new(Teller::new(LISTS));
    let lists = (
        prop::collection::vec(span(), 0..5),
        prop::collection::vec(slot(), 0..9),
        prop::collection::vec(text(), 0..3),
    );
    // Few numbers would cross in registers; beside a usage they lie in memory.
    proptest!(|(usage in usage(), lists in lists)| {
        let (spans, slots, keys) = &lists;
        let derived = teller.borrow_mut().tell((usage.clone(), &spans[..], &slots[..], &keys[..]));
        let arguments = (Whole(usage), All(spans), All(slots), All(keys));
        let whole = teller.borrow_mut().tell(arguments);
        prop_assert_eq!(whole, derived);
    });
}
