//! From what a plugin handed back to edits that may be applied.
//!
//! Nothing here trusts a number or a byte of it: an answer that breaks the contract is refused whole, an edit that is well
//! formed but not allowed is left out.

use std::rc::Rc;

use tollgate_domain::Value;
use tollgate_domain::span::Attributes;
use tollgate_domain::text::one_line;

use crate::bindings::edits::{Edit, EditList, EditOp};
use crate::bindings::types::{Slot, TextRef, ValueKind};
use crate::describe::{KEY_BYTES, Selection};
use crate::error::CallFault;
use crate::limits::Limits;
use crate::lower::PREFIXED;

/// What only the gateway itself says: identity of the service, counts, and money. No plugin can forge these, whatever it declares.
const RESERVED_PREFIXES: [&str; 4] = ["service.", "gen_ai.usage.", "tollgate.", "telemetry."];
const RESERVED_KEYS: [&str; 6] = [
    "llm.estimated_cost_usd",
    "llm.prompt_tokens",
    "llm.completion_tokens",
    "llm.total_tokens",
    "llm.trace_id",
    "llm.request_id",
];

/// Whether a key may be written by the gateway alone.
pub(crate) fn is_reserved(key: &str) -> bool {
    RESERVED_KEYS.contains(&key) || RESERVED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Which edits of reserved keys are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// None.
    Keep,
    /// Their removal, since what must not leave does not leave; one that replaces the value removes it.
    MayRemove,
}

/// One edit that may be applied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    /// Which span of the batch.
    pub span: usize,
    /// Shared by all edits of the batch that have it.
    pub key: Rc<str>,
    pub what: What,
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Set(Value),
    SetDefault(Value),
    Remove,
}

impl Change {
    /// Applies it.
    pub fn apply(self, attributes: &mut Attributes) {
        match self.what {
            What::Set(value) => attributes.set_named(&self.key, value),
            What::SetDefault(value) if attributes.get(&self.key).is_none() => {
                attributes.set_named(&self.key, value);
            }
            What::SetDefault(_) => {}
            What::Remove => {
                attributes.remove(&self.key);
            }
        }
    }
}

/// What may be applied, and how many edits may not.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Lifted {
    pub changes: Vec<Change>,
    /// Edits of keys that are reserved or were not announced.
    pub refused: usize,
}

/// Checks the edits to a batch of `spans` spans.
pub(crate) fn lift(
    list: &EditList,
    spans: usize,
    writes: &Selection,
    reserved: Reserved,
    limits: &Limits,
) -> Result<Lifted, CallFault> {
    let most = limits.edits_per_span.saturating_mul(spans);
    if list.edits.len() > most {
        return Err(CallFault::invalid(format!(
            "{} edits to {spans} spans; at most {most} are taken",
            list.edits.len()
        )));
    }
    let mut changes: Vec<Change> = Vec::with_capacity(list.edits.len());
    let mut names = Names::of(list, writes);
    let mut refused = 0;
    let mut previous: Option<(u32, u32)> = None;
    for edit in &list.edits {
        let span = usize::try_from(edit.span).unwrap_or(usize::MAX);
        if span >= spans {
            return Err(CallFault::invalid(format!("an edit to span {span} of {spans}")));
        }
        let same_as_before = previous == Some((edit.span, edit.slot.key));
        previous = Some((edit.span, edit.slot.key));
        let Some(Name { key, is_reserved }) = names.at(edit.slot.key)? else {
            previous = None;
            refused += 1;
            continue;
        };
        let what = what(edit, list, limits)?;
        let what = match (is_reserved, reserved, what) {
            (false, _, what) => what,
            // Whoever replaces a value wants it gone. It may not put another there, but gone it is.
            (true, Reserved::MayRemove, What::Set(_) | What::Remove) => What::Remove,
            (true, _, _) => {
                previous = None;
                refused += 1;
                continue;
            }
        };
        // The same key in several slots, one after another, is a list.
        match (same_as_before, changes.last_mut(), what) {
            (true, Some(Change { what: What::Set(whole), .. }), What::Set(value))
            | (true, Some(Change { what: What::SetDefault(whole), .. }), What::SetDefault(value)) =>
            {
                extend(whole, value);
            }
            (_, _, what) => changes.push(Change { span, key, what }),
        }
    }
    Ok(Lifted { changes, refused })
}

/// A key that the plugin has declared that it writes.
#[derive(Clone)]
struct Name {
    key: Rc<str>,
    is_reserved: bool,
}

/// The keys of one answer. Spans of a batch have the same few, so each is looked at once.
struct Names<'a> {
    list: &'a EditList,
    writes: &'a Selection,
    /// By place in `writes`.
    declared: Vec<Option<Name>>,
    /// By place in the answer's own list.
    own: Vec<Option<Name>>,
}

impl<'a> Names<'a> {
    fn of(list: &'a EditList, writes: &'a Selection) -> Self {
        let (declared, own) = (vec![None; writes.places()], vec![None; list.keys.len()]);
        Self { list, writes, declared, own }
    }

    /// The key of a slot; none if it was not declared.
    fn at(&mut self, index: u32) -> Result<Option<Name>, CallFault> {
        let (known, place) = match index.checked_sub(PREFIXED) {
            Some(place) => (&mut self.own, place),
            None => (&mut self.declared, index),
        };
        let mut known = usize::try_from(place).ok().and_then(|place| known.get_mut(place));
        if let Some(Some(name)) = known {
            return Ok(Some(name.clone()));
        }
        let Some(key) = key(index, self.list, self.writes)? else { return Ok(None) };
        let name = Name { key: key.into(), is_reserved: is_reserved(key) };
        if let Some(known) = &mut known {
            **known = Some(name.clone());
        }
        Ok(Some(name))
    }
}

/// The key of a slot; none if the plugin has not declared that it writes it.
fn key<'a>(
    index: u32,
    list: &'a EditList,
    writes: &'a Selection,
) -> Result<Option<&'a str>, CallFault> {
    let Some(place) = index.checked_sub(PREFIXED) else {
        return writes.key_at(index).map(Some).ok_or_else(|| {
            CallFault::invalid(format!("an edit with key {index}, which is no key of `writes`"))
        });
    };
    let at = usize::try_from(place).ok().and_then(|place| list.keys.get(place));
    let Some(at) = at else {
        return Err(CallFault::invalid(format!(
            "an edit with key {index:#x}, which is none of its keys"
        )));
    };
    let key = text(*at, &list.arena)?;
    if key.is_empty() || key.len() > KEY_BYTES || key.chars().any(char::is_control) {
        return Err(CallFault::invalid(format!(
            "an edit of {:?}, which is no attribute's name",
            one_line(key, 64)
        )));
    }
    Ok(writes.find(key).map(|_| key))
}

fn what(edit: &Edit, list: &EditList, limits: &Limits) -> Result<What, CallFault> {
    match edit.op {
        EditOp::Set => Ok(What::Set(value(&edit.slot, &list.arena, limits)?)),
        EditOp::SetDefault => Ok(What::SetDefault(value(&edit.slot, &list.arena, limits)?)),
        EditOp::Remove => Ok(What::Remove),
    }
}

fn value(slot: &Slot, arena: &[u8], limits: &Limits) -> Result<Value, CallFault> {
    let bounded = || -> Result<&str, CallFault> {
        let at = TextRef {
            offset: u32::try_from(slot.bits >> 32).unwrap_or(u32::MAX),
            length: u32::try_from(slot.bits & u64::from(u32::MAX)).unwrap_or(u32::MAX),
        };
        let text = text(at, arena)?;
        if text.len() > limits.value_bytes {
            return Err(CallFault::invalid(format!(
                "a value of {} bytes; at most {} are taken",
                text.len(),
                limits.value_bytes
            )));
        }
        Ok(text)
    };
    match slot.kind {
        ValueKind::Text => Ok(Value::Text(bounded()?.to_owned())),
        ValueKind::Boolean => match slot.bits {
            0 => Ok(Value::Bool(false)),
            1 => Ok(Value::Bool(true)),
            bits => Err(CallFault::invalid(format!("{bits} as a boolean"))),
        },
        ValueKind::Int => Ok(Value::Int(slot.bits.cast_signed())),
        ValueKind::Double => {
            let number = f64::from_bits(slot.bits);
            if number.is_finite() {
                Ok(Value::Double(number))
            } else {
                Err(CallFault::invalid(format!("{number} as a number")))
            }
        }
        ValueKind::Json => json(bounded()?),
        ValueKind::Bytes => {
            Err(CallFault::invalid("a value of bytes, which no attribute of a span can hold here"))
        }
        ValueKind::Elided => {
            Err(CallFault::invalid("an elided value, which only the host may send"))
        }
    }
}

/// Scalars and lists of scalars become values; what no attribute can hold stays JSON text.
fn json(text: &str) -> Result<Value, CallFault> {
    let json: serde_json::Value = serde_json::from_str(text)
        .map_err(|error| CallFault::invalid(format!("bad JSON in a value: {error}")))?;
    let scalar = |json: &serde_json::Value| match json {
        serde_json::Value::Bool(value) => Some(Value::Bool(*value)),
        serde_json::Value::Number(number) => {
            number.as_i64().map(Value::Int).or_else(|| number.as_f64().map(Value::Double))
        }
        serde_json::Value::String(text) => Some(Value::Text(text.clone())),
        _ => None,
    };
    let value = match &json {
        serde_json::Value::Array(items) => {
            items.iter().map(scalar).collect::<Option<Vec<_>>>().map(Value::List)
        }
        one => scalar(one),
    };
    Ok(value.unwrap_or_else(|| Value::Text(text.to_owned())))
}

fn text(at: TextRef, arena: &[u8]) -> Result<&str, CallFault> {
    let piece = || {
        let start = usize::try_from(at.offset).ok()?;
        arena.get(start..start.checked_add(usize::try_from(at.length).ok()?)?)
    };
    let piece = piece().ok_or_else(|| {
        CallFault::invalid(format!("text at {}+{} of {} bytes", at.offset, at.length, arena.len()))
    })?;
    std::str::from_utf8(piece).map_err(|_| CallFault::invalid("text that is not UTF-8"))
}

fn extend(whole: &mut Value, value: Value) {
    if let Value::List(values) = whole {
        values.push(value);
    } else {
        let first = std::mem::replace(whole, Value::Bool(false));
        *whole = Value::List(vec![first, value]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(span: u32, op: EditOp, key: u32, kind: ValueKind, bits: u64) -> Edit {
        Edit { span, op, slot: Slot { key, kind, bits } }
    }

    fn run(edits: Vec<Edit>, keys: Vec<TextRef>, arena: &[u8]) -> Result<Lifted, CallFault> {
        let writes = Selection::of(&["a", "service.name"], &["p.", "tollgate."]);
        let list = EditList { edits, keys, arena: arena.to_vec() };
        lift(&list, 2, &writes, Reserved::MayRemove, &Limits::default())
    }

    #[test]
    fn edits_come_back_as_written() {
        let at = TextRef { offset: 0, length: 3 };
        let undeclared = TextRef { offset: 2, length: 2 };
        let Lifted { changes, refused } = run(
            vec![
                edit(0, EditOp::Set, 0, ValueKind::Int, 1),
                edit(0, EditOp::Set, 0, ValueKind::Int, 2),
                edit(1, EditOp::SetDefault, PREFIXED, ValueKind::Text, 3 << 32 | 1),
                edit(1, EditOp::Remove, 0, ValueKind::Elided, 0),
                // Not declared: left out. Reserved: not forged, but what must not leave is removed.
                edit(1, EditOp::Set, PREFIXED + 1, ValueKind::Int, 0),
                edit(1, EditOp::SetDefault, 1, ValueKind::Int, 0),
                edit(1, EditOp::Set, 1, ValueKind::Int, 0),
            ],
            vec![at, undeclared],
            b"p.xy",
        )
        .unwrap();
        let change = |span, key: &str, what| Change { span, key: key.into(), what };
        assert_eq!(
            changes,
            [
                change(0, "a", What::Set(Value::List(vec![1_i64.into(), 2_i64.into()]))),
                change(1, "p.x", What::SetDefault("y".into())),
                change(1, "a", What::Remove),
                change(1, "service.name", What::Remove),
            ]
        );
        assert_eq!(refused, 2, "the undeclared one, and the default for a reserved key");
    }

    #[test]
    fn no_role_forges_what_the_gateway_says() {
        let keys = [
            ("service.name", true),
            ("service.instance.id", true),
            ("telemetry.sdk.name", true),
            ("gen_ai.usage.input_tokens", true),
            ("gen_ai.usage.cost.amount", true),
            ("tollgate.cost.amount", true),
            ("tollgate.cost.status", true),
            ("tollgate.tenant", true),
            ("tollgate.plugin.name", true),
            ("llm.estimated_cost_usd", true),
            ("llm.prompt_tokens", true),
            ("llm.completion_tokens", true),
            ("llm.total_tokens", true),
            ("llm.trace_id", true),
            ("llm.request_id", true),
            ("llm.user", false),
            ("gen_ai.request.model", false),
            ("services.name", false),
            ("tollgate", false),
        ];
        for (key, reserved) in keys {
            // Declared by name and by prefix: a declaration gives no right to it.
            for writes in [Selection::of(&[key], &[]), Selection::of(&[], &[""])] {
                let name = TextRef { offset: 0, length: u32::try_from(key.len()).unwrap() };
                let place = if writes.key_at(0).is_some() { 0 } else { PREFIXED };
                for op in [EditOp::Set, EditOp::SetDefault, EditOp::Remove] {
                    let list = EditList {
                        edits: vec![edit(0, op, place, ValueKind::Int, 7)],
                        keys: vec![name],
                        arena: key.as_bytes().to_vec(),
                    };
                    for role in [Reserved::Keep, Reserved::MayRemove] {
                        let lifted = lift(&list, 1, &writes, role, &Limits::default()).unwrap();
                        let written = |c: &Change| c.what != What::Remove;
                        let shown = format!("{key} {op:?} {role:?}: {lifted:?}");
                        if !reserved {
                            assert_eq!((lifted.changes.len(), lifted.refused), (1, 0), "{shown}");
                            continue;
                        }
                        assert!(!lifted.changes.iter().any(written), "{shown}");
                        // A filter takes away what must not leave; an enricher changes nothing.
                        let removes = role == Reserved::MayRemove && op != EditOp::SetDefault;
                        assert_eq!(lifted.changes.len(), usize::from(removes), "{shown}");
                        assert_eq!(lifted.refused, usize::from(!removes), "{shown}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        let set = |key, kind, bits| vec![edit(0, EditOp::Set, key, kind, bits)];
        let bad: Vec<(&str, Vec<Edit>)> = vec![
            ("span", vec![edit(2, EditOp::Remove, 0, ValueKind::Int, 0)]),
            ("a prefix's place", set(2, ValueKind::Int, 0)),
            ("past writes", set(9, ValueKind::Int, 0)),
            ("past keys", set(PREFIXED + 3, ValueKind::Int, 0)),
            ("a key with a line break", set(PREFIXED + 1, ValueKind::Int, 0)),
            ("an empty key", set(PREFIXED + 2, ValueKind::Int, 0)),
            ("past the arena", set(0, ValueKind::Text, 5)),
            ("offset overflow", set(0, ValueKind::Text, u64::MAX)),
            ("not UTF-8", set(0, ValueKind::Text, 3 << 32 | 1)),
            ("boolean", set(0, ValueKind::Boolean, 2)),
            ("NaN", set(0, ValueKind::Double, f64::NAN.to_bits())),
            ("infinite", set(0, ValueKind::Double, f64::INFINITY.to_bits())),
            ("JSON", set(0, ValueKind::Json, 1)),
            ("bytes", set(0, ValueKind::Bytes, 0)),
            ("elided", set(0, ValueKind::Elided, 0)),
            ("too many", vec![edit(0, EditOp::Remove, 0, ValueKind::Int, 0); 257]),
        ];
        let keys = vec![
            TextRef { offset: 0, length: 3 },
            TextRef { offset: 0, length: 2 },
            TextRef { offset: 0, length: 0 },
        ];
        for (what, edits) in bad {
            let arena = [b'p', b'\n', b'x', 0xff];
            assert!(run(edits, keys.clone(), &arena).is_err(), "{what}");
        }
    }

    #[test]
    fn json_becomes_values_where_it_can() {
        assert_eq!(json("[1,\"x\"]").unwrap(), Value::List(vec![1_i64.into(), "x".into()]));
        assert_eq!(json("{\"a\":1}").unwrap(), Value::Text("{\"a\":1}".to_owned()));
        let deep = "[".repeat(10_000);
        assert!(json(&deep).is_err());
    }

    fn kinds() -> impl Strategy<Value = ValueKind> {
        prop::sample::select(vec![
            ValueKind::Text,
            ValueKind::Boolean,
            ValueKind::Int,
            ValueKind::Double,
            ValueKind::Bytes,
            ValueKind::Json,
            ValueKind::Elided,
        ])
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_host_panic(
            edits in prop::collection::vec(
                (any::<u32>(), 0..3_u8, prop_oneof![0..4_u32, PREFIXED..PREFIXED + 4, any::<u32>()], kinds(),
                 prop_oneof![any::<u64>(), (0..20_u64, 0..20_u64).prop_map(|(o, l)| o << 32 | l)]),
                0..20,
            ),
            keys in prop::collection::vec((0..20_u32, 0..20_u32), 0..4),
            arena in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let edits = edits
                .into_iter()
                .map(|(span, op, key, kind, bits)| {
                    let op = [EditOp::Set, EditOp::SetDefault, EditOp::Remove][usize::from(op)];
                    edit(span % 3, op, key, kind, bits)
                })
                .collect();
            let keys = keys.into_iter().map(|(offset, length)| TextRef { offset, length }).collect();
            if let Ok(Lifted { changes, .. }) = run(edits, keys, &arena) {
                let mut attributes = Attributes::new();
                for change in changes {
                    prop_assert!(change.span < 2);
                    prop_assert!(!is_reserved(&change.key) || change.what == What::Remove);
                    change.apply(&mut attributes);
                }
            }
        }
    }
}
