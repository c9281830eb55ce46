//! The gateway's side of the packed form, small and slow.

use super::Changes;
use crate::{
    EditOp, PluginInfo, Value,
    attributes::{Attributes, FOUND_BY_PREFIX, Keys, names, text_at},
    bindings::lifecycle::{
        exports::tollgate::plugin::lifecycle::AttributeSelector,
        tollgate::plugin::{
            edits::EditList,
            types::{Slot, TextRef, ValueKind},
        },
    },
};

/// Attributes on their way in.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub(super) slots: Vec<Slot>,
    pub(super) arena: Vec<u8>,
    pub(super) keys: Vec<TextRef>,
    pub(super) keys_arena: Vec<u8>,
    pub(super) withheld: u32,
}

impl Pack {
    pub(super) fn attribute(&mut self, info: &PluginInfo, key: &str, value: Value<'_>) {
        let Some(key) = self.key(info, key) else {
            self.withheld += 1;
            return;
        };
        let (kind, bits) = match value {
            Value::Text(text) => (ValueKind::Text, bits(self.text(text))),
            Value::Json(text) => (ValueKind::Json, bits(self.text(text))),
            Value::Bytes(bytes) => (ValueKind::Bytes, bits(append(&mut self.arena, bytes))),
            Value::Bool(truth) => (ValueKind::Boolean, u64::from(truth)),
            Value::Int(number) => (ValueKind::Int, number.cast_unsigned()),
            Value::Double(number) => (ValueKind::Double, number.to_bits()),
            Value::Elided { size } => (ValueKind::Elided, size),
        };
        self.slots.push(Slot { key, kind, bits });
    }

    pub(super) fn text(&mut self, text: &str) -> TextRef {
        append(&mut self.arena, text.as_bytes())
    }

    fn key(&mut self, info: &PluginInfo, key: &str) -> Option<u32> {
        let exact =
            |read: &AttributeSelector| matches!(read, AttributeSelector::Key(name) if name == key);
        let prefix = |read: &AttributeSelector| matches!(read, AttributeSelector::Prefix(start) if key.starts_with(start.as_str()));
        if let Some(index) = info.0.reads.iter().position(exact) {
            return u32::try_from(index).ok();
        }
        if !info.0.reads.iter().any(prefix) {
            return None;
        }
        let known = self.keys.iter().position(|&at| text_at(&self.keys_arena, at) == Some(key));
        let index = known.unwrap_or_else(|| {
            self.keys.push(append(&mut self.keys_arena, key.as_bytes()));
            self.keys.len() - 1
        });
        u32::try_from(index).ok().map(|index| FOUND_BY_PREFIX + index)
    }
}

/// Edits on their way out, readable.
pub(super) fn changes(info: &PluginInfo, list: &EditList) -> Changes {
    let names = names(&list.keys, &list.arena);
    let keys = Keys { reads: &info.0.writes, found: &names, hints: None };
    list.edits
        .iter()
        .filter_map(|edit| {
            let slots = [edit.slot];
            let attribute = Attributes { slots: &slots, arena: &list.arena, keys }.iter().next()?;
            let value = match attribute.value {
                Value::Text(text) | Value::Json(text) => text.to_owned(),
                Value::Int(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Double(number) => number.to_string(),
                Value::Bytes(bytes) => format!("{bytes:?}"),
                Value::Elided { .. } => return None,
            };
            Some(match edit.op {
                EditOp::Set => ("set", attribute.key.to_owned(), value),
                EditOp::SetDefault => ("default", attribute.key.to_owned(), value),
                EditOp::Remove => ("remove", attribute.key.to_owned(), String::new()),
            })
        })
        .collect()
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> TextRef {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let at = TextRef { offset: length(arena.len()), length: length(bytes.len()) };
    arena.extend_from_slice(bytes);
    at
}

fn bits(at: TextRef) -> u64 {
    u64::from(at.offset) << 32 | u64::from(at.length)
}
