//! Ways for span attributes to cross into a plugin and for edits to come back, beside the same work in native Rust.
//!
//! The guest is `plugins/fixtures/shapes`. What is timed is what the gateway would do for a batch: choose the attributes
//! that the plugin reads, lower them, call a warm instance with epoch interruption on, and lift the edits. Three shapes
//! carry attributes and edits alone; the last column is the whole contract through the SDK, with all else that a span has.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use tollgate_domain::id::{SpanContext, SpanId, TraceId};
use tollgate_domain::span::{Attributes, Span, SpanKind, SpanStatus, Value};
use tollgate_domain::time::{Interval, UnixNanos};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

use self::bindings::exports::tollgate::plugin::lifecycle::HostInfo;
use self::bindings::exports::tollgate::shapes::{by_position, key_strings};
use self::bindings::tollgate::plugin::edits::EditList;
use self::bindings::tollgate::plugin::types;
use self::bindings::tollgate::shapes::values::{ValueParam, ValueResult};
use self::work::{Answers, FAMILY, INPUT, LARGE, MODEL, OUTPUT, READS, SHARE, TEAM, TOTAL, WRITES};

/// What the guest reads, works out and writes: the native column does the same by the same code.
#[path = "../../../../plugins/fixtures/shapes/src/work.rs"]
mod work;

mod bindings {
    //! The shapes, and an enricher of the contract.
    wasmtime::component::bindgen!({
        path: ["../../../wit/since-v0.1.0", "../../../plugins/fixtures/shapes/wit"],
        inline: "
            package tollgate:bench;
            world everything {
                include tollgate:shapes/shapes;
                include tollgate:plugin/enricher-plugin@0.1.0;
            }
        ",
        world: "tollgate:bench/everything",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

const ROUNDS: usize = 5;
/// Time for one cell of the table in one round: 60 cells and 5 rounds stay under 15 s.
const CELL: Duration = Duration::from_millis(40);
const TICK: Duration = Duration::from_millis(1);
const DEADLINE: u64 = 1_000;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// An edit as the gateway would apply it: span, key, value.
type Change = (usize, String, Value);

#[derive(Clone, Copy)]
enum Shape {
    Native,
    KeyStrings,
    ByPosition,
    Packed,
    Contract,
}

const SHAPES: [(Shape, &str); 5] = [
    (Shape::Native, "native"),
    (Shape::KeyStrings, "key-strings"),
    (Shape::ByPosition, "by-position"),
    (Shape::Packed, "packed"),
    (Shape::Contract, "contract-sdk"),
];

/// One row of the table.
#[derive(Clone, Copy)]
struct Case {
    batch: usize,
    passed: usize,
    edits: u32,
}

/// Keys that a plugin declared, ready for look-ups.
struct Keys(HashMap<String, u32>);

impl Keys {
    fn of(keys: &[&str]) -> Self {
        Self((0..).zip(keys).map(|(index, key)| ((*key).to_owned(), index)).collect())
    }

    fn find(&self, key: &str) -> Option<u32> {
        self.0.get(key).copied()
    }
}

/// Spans of 20 attributes, in the order in which a gateway learns them rather than in the plugin's.
fn spans(count: usize) -> Vec<Span> {
    (0..count)
        .map(|number| {
            let mut attributes = Attributes::new();
            attributes.set("gen_ai.operation.name", "chat");
            attributes.set("gen_ai.provider.name", "mistral_ai");
            attributes.set("server.address", "inference-7.eu-west.example.com");
            attributes.set("server.port", 443_i64);
            attributes.set("tollgate.tenant", "acme-research");
            attributes.set("tollgate.route", "/v1/chat/completions");
            attributes.set("user.id", "c3f1b7d2-55aa-4d0e-9d35-0a3f6f2f8a10");
            attributes.set(MODEL, "mistral-7b-instruct");
            attributes.set("gen_ai.request.max_tokens", 512_i64);
            attributes.set("gen_ai.request.temperature", 0.7_f64);
            attributes.set("gen_ai.request.top_p", 0.95_f64);
            attributes.set("tollgate.stream", true);
            attributes.set("tollgate.queue_ms", 0.41_f64);
            attributes.set("tollgate.first_token_ms", 38.2_f64);
            attributes.set("gen_ai.response.model", "mistral-7b-instruct-v0.3");
            attributes.set("gen_ai.response.id", "cmpl-7f3c9a52e1b84d6fa0c2");
            attributes.set("gen_ai.output.type", "text");
            attributes.set(INPUT, 1_874_i64 + i64::try_from(number).unwrap_or_default());
            attributes.set("gen_ai.usage.cache_read.input_tokens", 1_024_i64);
            attributes.set(OUTPUT, 207_i64);
            Span {
                context: SpanContext {
                    trace_id: TraceId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
                    span_id: SpanId(0xb7ad_6b71_6920_3331),
                    sampled: true,
                    trace_state: None,
                },
                parent: None,
                parent_is_remote: false,
                name: "chat mistral-7b-instruct".into(),
                kind: SpanKind::Server,
                interval: Interval { start: UnixNanos(1), end: UnixNanos(2) },
                status: SpanStatus::Ok,
                attributes,
                events: Vec::new(),
                received: None,
            }
        })
        .collect()
}

/// The work, where the spans are.
fn native(edits: u32, spans: &[Span]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        let attributes = &span.attributes;
        let (Some(Value::Text(model)), Some(Value::Int(input)), Some(Value::Int(output))) =
            (attributes.get(MODEL), attributes.get(INPUT), attributes.get(OUTPUT))
        else {
            continue;
        };
        let answers = Answers::of(model, *input, *output);
        let mut set = |key: &str, value| changes.push((index, key.to_owned(), value));
        set(FAMILY, answers.family.into());
        set(TOTAL, answers.total.into());
        if edits > 2 {
            set(SHARE, answers.share.into());
            set(LARGE, answers.large.into());
            set(TEAM, answers.team.into());
        }
    }
    changes
}

/// A value that crosses as itself; the benchmark has no others.
fn crossing(value: &Value) -> Option<ValueParam<'_>> {
    match value {
        Value::Bool(value) => Some(ValueParam::Boolean(*value)),
        Value::Int(value) => Some(ValueParam::Int(*value)),
        Value::Double(value) => Some(ValueParam::Double(*value)),
        Value::Text(value) => Some(ValueParam::Text(value)),
        _ => None,
    }
}

fn crossed(value: ValueResult) -> Value {
    match value {
        ValueResult::Boolean(value) => Value::Bool(value),
        ValueResult::Int(value) => Value::Int(value),
        ValueResult::Double(value) => Value::Double(value),
        ValueResult::Text(value) => Value::Text(value),
    }
}

/// Packs the attributes that are read.
fn pack(
    attributes: &Attributes,
    reads: &Keys,
    slots: &mut Vec<types::Slot>,
    arena: &mut Vec<u8>,
) -> Fallible<()> {
    for (key, value) in attributes.iter() {
        let Some(key) = reads.find(key) else { continue };
        let (kind, bits) = match value {
            Value::Bool(value) => (types::ValueKind::Boolean, u64::from(*value)),
            Value::Int(value) => (types::ValueKind::Int, value.cast_unsigned()),
            Value::Double(value) => (types::ValueKind::Double, value.to_bits()),
            Value::Text(value) => {
                let at = text(arena, value)?;
                (types::ValueKind::Text, u64::from(at.offset) << 32 | u64::from(at.length))
            }
            _ => continue,
        };
        slots.push(types::Slot { key, kind, bits });
    }
    Ok(())
}

fn text(arena: &mut Vec<u8>, text: &str) -> Fallible<types::TextRef> {
    let at = types::TextRef { offset: arena.len().try_into()?, length: text.len().try_into()? };
    arena.extend_from_slice(text.as_bytes());
    Ok(at)
}

/// Lifts packed edits, checking every number.
fn unpack(list: &EditList) -> Fallible<Vec<Change>> {
    list.edits
        .iter()
        .map(|edit| {
            let bits = edit.slot.bits;
            let value = match edit.slot.kind {
                types::ValueKind::Boolean => Value::Bool(bits != 0),
                types::ValueKind::Int => Value::Int(bits.cast_signed()),
                types::ValueKind::Double => Value::Double(f64::from_bits(bits)),
                types::ValueKind::Text => {
                    let start = usize::try_from(bits >> 32)?;
                    let end = start + usize::try_from(bits & u64::from(u32::MAX))?;
                    let bytes = list.arena.get(start..end).ok_or("text outside the arena")?;
                    Value::Text(str::from_utf8(bytes)?.to_owned())
                }
                _ => return Err("a kind that the guest does not use".into()),
            };
            Ok((usize::try_from(edit.span)?, key_at(edit.slot.key)?, value))
        })
        .collect()
}

fn key_at(place: u32) -> Fallible<String> {
    let key = WRITES.get(usize::try_from(place)?).ok_or("a key that is not declared")?;
    Ok((*key).to_owned())
}

/// A warm instance.
struct Guest {
    store: Store<()>,
    exports: bindings::Everything,
    writes: Keys,
}

impl Guest {
    fn start() -> Fallible<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../../plugins/target/wasm32-wasip2/release/shapes.wasm");
        if !path.is_file() {
            return Err(
                "the guest is not built: `cargo xtask bench attribute-shapes` does it".into()
            );
        }
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .concurrency_support(false)
            .cranelift_nan_canonicalization(true);
        let engine = Engine::new(&config)?;
        let weak = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        });
        let component = Component::from_file(&engine, path)?;
        let mut linker = Linker::new(&engine);
        // It calls nothing of what its toolchain made it import.
        linker.define_unknown_imports_as_traps(&component)?;
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(DEADLINE);
        let exports = bindings::Everything::instantiate(&mut store, &component, &linker)?;
        Ok(Self { store, exports, writes: Keys::of(&WRITES) })
    }

    fn configure(&mut self, edits: u32) -> Fallible<()> {
        self.store.set_epoch_deadline(DEADLINE);
        let host = HostInfo { name: "bench", version: "0" };
        let json = format!("{{\"edits\":{edits}}}");
        self.exports
            .tollgate_plugin_lifecycle()
            .call_configure(&mut self.store, host, &json)?
            .map_err(|error| format!("the guest refuses its configuration: {error:?}").into())
    }

    fn call(
        &mut self,
        shape: Shape,
        edits: u32,
        spans: &[Span],
        reads: &Keys,
    ) -> Fallible<Vec<Change>> {
        self.store.set_epoch_deadline(DEADLINE);
        match shape {
            Shape::Native => Ok(native(edits, spans)),
            Shape::KeyStrings => self.key_strings(edits, spans, reads),
            Shape::ByPosition => self.by_position(edits, spans, reads),
            Shape::Packed => self.packed(edits, spans, reads),
            Shape::Contract => self.contract(spans, reads),
        }
    }

    fn key_strings(&mut self, edits: u32, spans: &[Span], reads: &Keys) -> Fallible<Vec<Change>> {
        let batch: Vec<Vec<key_strings::Attribute<'_>>> = spans
            .iter()
            .map(|span| {
                let read = span.attributes.iter().filter(|(key, _)| reads.find(key).is_some());
                read.filter_map(|(key, value)| {
                    Some(key_strings::Attribute { key, value: crossing(value)? })
                })
                .collect()
            })
            .collect();
        let batch: Vec<&[key_strings::Attribute<'_>]> = batch.iter().map(Vec::as_slice).collect();
        let shape = self.exports.tollgate_shapes_key_strings();
        shape
            .call_run(&mut self.store, edits, &batch)?
            .into_iter()
            .map(|edit| match self.writes.find(&edit.key) {
                Some(_) => Ok((usize::try_from(edit.span)?, edit.key, crossed(edit.value))),
                None => Err("a key that is not declared".into()),
            })
            .collect()
    }

    fn by_position(&mut self, edits: u32, spans: &[Span], reads: &Keys) -> Fallible<Vec<Change>> {
        let batch: Vec<Vec<Option<ValueParam<'_>>>> = spans
            .iter()
            .map(|span| {
                let mut values = vec![None; reads.0.len()];
                for (key, value) in span.attributes.iter() {
                    let place = reads.find(key).and_then(|place| usize::try_from(place).ok());
                    if let Some(found) = place.and_then(|place| values.get_mut(place)) {
                        *found = crossing(value);
                    }
                }
                values
            })
            .collect();
        let batch: Vec<&[Option<ValueParam<'_>>]> = batch.iter().map(Vec::as_slice).collect();
        let shape = self.exports.tollgate_shapes_by_position();
        let edits: Vec<by_position::Edit> = shape.call_run(&mut self.store, edits, &batch)?;
        edits
            .into_iter()
            .map(|edit| Ok((usize::try_from(edit.span)?, key_at(edit.key)?, crossed(edit.value))))
            .collect()
    }

    fn packed(&mut self, edits: u32, spans: &[Span], reads: &Keys) -> Fallible<Vec<Change>> {
        let (mut ends, mut slots, mut arena) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            pack(&span.attributes, reads, &mut slots, &mut arena)?;
            ends.push(u32::try_from(slots.len())?);
        }
        let shape = self.exports.tollgate_shapes_packed();
        unpack(&shape.call_run(&mut self.store, edits, &ends, &slots, &arena)?)
    }

    fn contract(&mut self, spans: &[Span], reads: &Keys) -> Fallible<Vec<Change>> {
        let (mut raw, mut slots, mut arena) = (Vec::new(), Vec::new(), Vec::new());
        for span in spans {
            pack(&span.attributes, reads, &mut slots, &mut arena)?;
            let trace_id = span.context.trace_id.0;
            raw.push(types::Span {
                context: types::SpanContext {
                    trace_id: types::TraceId {
                        high: u64::try_from(trace_id >> 64)?,
                        low: u64::try_from(trace_id & u128::from(u64::MAX))?,
                    },
                    span_id: span.context.span_id.0,
                    trace_flags: types::TraceFlags::SAMPLED,
                    is_remote: span.parent_is_remote,
                },
                parent_span_id: span.parent.map_or(0, |id| id.0),
                kind: types::SpanKind::Server,
                status: types::Status::Ok,
                name: text(&mut arena, &span.name)?,
                status_message: text(&mut arena, "")?,
                start: span.interval.start.0,
                end: span.interval.end.0,
                slots_end: u32::try_from(slots.len())?,
                withheld_attributes: 0,
            });
        }
        let batch = types::SpanBatch { spans: &raw, slots: &slots, arena: &arena };
        let context = types::BatchContext {
            tenant: Some("acme-research"),
            exporter: None,
            now: 3,
            resource_attributes: &[],
            keys: &[],
            arena: &[],
        };
        let enricher = self.exports.tollgate_plugin_attribute_enricher();
        match enricher.call_enrich(&mut self.store, context, batch)? {
            Ok(list) => unpack(&list),
            Err(error) => Err(format!("the guest refuses the batch: {error:?}").into()),
        }
    }
}

/// Times calls one by one for a while; p50 and p99 in nanoseconds, less what reading the clock takes.
fn time(
    budget: Duration,
    clock: u64,
    mut call: impl FnMut() -> Fallible<Vec<Change>>,
) -> Fallible<(u64, u64)> {
    for _ in 0..8 {
        black_box(call()?);
    }
    let mut samples = Vec::with_capacity(1 << 16);
    let begin = Instant::now();
    while samples.len() < 32 || begin.elapsed() < budget {
        let start = Instant::now();
        let answer = call();
        let took = start.elapsed();
        black_box(answer?);
        samples.push(u64::try_from(took.as_nanos())?.saturating_sub(clock));
    }
    samples.sort_unstable();
    let at = |share: usize| samples.get(samples.len() * share / 100).copied().unwrap_or_default();
    Ok((at(50), at(99)))
}

fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn main() -> Fallible<()> {
    // Without `--bench` cargo only wants to know that it runs.
    let (rounds, cell) = match std::env::args().any(|argument| argument == "--bench") {
        true => (ROUNDS, CELL),
        false => (1, Duration::ZERO),
    };
    let mut guest = Guest::start()?;
    let (clock, _) = time(cell, 0, || Ok(Vec::new()))?;
    let cases: Vec<Case> = [1, 64]
        .into_iter()
        .flat_map(|batch| [3, 6, 20].map(|passed| (batch, passed)))
        .flat_map(|(batch, passed)| [2, 5].map(|edits| Case { batch, passed, edits }))
        .collect();
    // Rounds are outermost: a slow moment of the machine hits every shape alike.
    let mut measured: HashMap<(usize, usize), Vec<(u64, u64)>> = HashMap::new();
    for _ in 0..rounds {
        for (row, case) in cases.iter().enumerate() {
            let spans = spans(case.batch);
            let reads = Keys::of(READS.get(..case.passed).unwrap_or_default());
            guest.configure(case.edits)?;
            let expected = native(case.edits, &spans);
            for (column, (shape, name)) in SHAPES.into_iter().enumerate() {
                if guest.call(shape, case.edits, &spans, &reads)? != expected {
                    return Err(format!("{name} answers something else").into());
                }
                let figures = time(cell, clock, || guest.call(shape, case.edits, &spans, &reads))?;
                measured.entry((row, column)).or_default().push(figures);
            }
        }
    }
    report(&cases, &measured, rounds);
    Ok(())
}

fn report(cases: &[Case], measured: &HashMap<(usize, usize), Vec<(u64, u64)>>, rounds: usize) {
    println!(
        "ns per span: p50 (p99), median of {rounds} rounds; 20 attributes, of which some are passed; epochs on"
    );
    print!("{:>5} {:>6} {:>5}", "batch", "passed", "edits");
    for (_, name) in SHAPES {
        print!(" {name:>16}");
    }
    println!();
    let mut cells = Vec::new();
    for (row, case) in cases.iter().enumerate() {
        print!("{:>5} {:>6} {:>5}", case.batch, case.passed, case.edits);
        for (column, (_, name)) in SHAPES.into_iter().enumerate() {
            let figures = measured.get(&(row, column)).cloned().unwrap_or_default();
            let (p50s, p99s): (Vec<u64>, Vec<u64>) = figures.into_iter().unzip();
            let [p50, p99] = [p50s, p99s].map(|all| median(all) as f64 / case.batch as f64);
            print!(" {:>16}", format!("{p50:.0} ({p99:.0})"));
            cells.push(serde_json::json!({
                "shape": name,
                "batch": case.batch,
                "passed": case.passed,
                "edits": case.edits,
                "p50": p50.round(),
                "p99": p99.round(),
            }));
        }
        println!();
    }
    println!("{}", serde_json::json!({ "unit": "ns per span", "rounds": rounds, "cells": cells }));
}
