//! Changes to spans, packed as they are made.

use crate::{
    attributes::{FOUND_BY_PREFIX, Hints, bytes_at},
    bindings::lifecycle::{
        exports::tollgate::plugin::lifecycle::AttributeSelector,
        tollgate::plugin::{
            edits::{Edit, EditList, EditOp},
            types::{Slot, TextRef, ValueKind},
        },
    },
    pattern::same,
};

/// A key by its place in `PluginInfo::writes`, the first being 0; the fast way to name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write(pub u32);

/// What names an attribute to change: a [`Write`], or its name.
pub trait EditKey: Sized {
    #[doc(hidden)]
    fn index(self, packer: &mut Packer<'_>) -> Option<u32>;
}

impl EditKey for Write {
    fn index(self, _: &mut Packer<'_>) -> Option<u32> {
        Some(self.0)
    }
}

impl<T: AsRef<str> + ?Sized> EditKey for &T {
    fn index(self, packer: &mut Packer<'_>) -> Option<u32> {
        packer.index(self.as_ref())
    }
}

/// The changes to one span.
///
/// Edits apply in the order they are made. What was not announced in `PluginInfo::writes` is dropped here, and the host
/// would drop it too.
#[derive(Debug)]
pub struct Edits<'a, 'n> {
    packer: &'a mut Packer<'n>,
    span: u32,
}

impl<'a, 'n> Edits<'a, 'n> {
    pub(crate) fn new(packer: &'a mut Packer<'n>, span: u32) -> Self {
        Self { packer, span }
    }

    /// Sets an attribute, replacing what is there. Values are text, `bool`, `i64` and `f64`, and
    /// [`Value`](crate::Value) for whatever came in.
    pub fn set<'v>(&mut self, key: impl EditKey, value: impl Into<crate::Value<'v>>) {
        self.packer.edit(self.span, EditOp::Set, key, value.into());
    }

    /// Sets an attribute where the span has none of that key.
    pub fn set_default<'v>(&mut self, key: impl EditKey, value: impl Into<crate::Value<'v>>) {
        self.packer.edit(self.span, EditOp::SetDefault, key, value.into());
    }

    /// Removes an attribute.
    pub fn remove(&mut self, key: impl EditKey) {
        self.packer.edit(self.span, EditOp::Remove, key, crate::Value::Bool(false));
    }
}

/// The edits of a whole call as they leave it: flat slots and one arena. Not for authors.
#[derive(Debug)]
pub struct Packer<'n> {
    writes: &'n [AttributeSelector],
    hints: Hints,
    list: EditList,
}

impl<'n> Packer<'n> {
    pub(crate) fn new(writes: &'n [AttributeSelector]) -> Self {
        let list = EditList { edits: Vec::new(), keys: Vec::new(), arena: Vec::new() };
        Self { writes, hints: Hints::default(), list }
    }

    pub(crate) fn finish(self) -> EditList {
        self.list
    }

    fn edit(&mut self, span: u32, op: EditOp, key: impl EditKey, value: crate::Value<'_>) {
        if let Some(key) = key.index(self)
            && let Some((kind, bits)) = self.pack(value)
        {
            self.list.edits.push(Edit { span, op, slot: Slot { key, kind, bits } });
        }
    }

    /// The index of a key, which is added to the call's names when only a prefix allows it.
    fn index(&mut self, name: &str) -> Option<u32> {
        let hint = self.hints.of(name)?.get();
        if self.name(hint).is_some_and(|known| same(known, name.as_bytes())) {
            return Some(hint);
        }
        let index = self.search(name)?;
        self.hints.of(name)?.set(index);
        Some(index)
    }

    fn name(&self, index: u32) -> Option<&[u8]> {
        match index.checked_sub(FOUND_BY_PREFIX) {
            Some(own) => {
                bytes_at(&self.list.arena, *self.list.keys.get(usize::try_from(own).ok()?)?)
            }
            None => match self.writes.get(usize::try_from(index).ok()?)? {
                AttributeSelector::Key(key) => Some(key.as_bytes()),
                AttributeSelector::Prefix(_) => None,
            },
        }
    }

    fn search(&mut self, name: &str) -> Option<u32> {
        let declared = self.writes.iter().position(
            |w| matches!(w, AttributeSelector::Key(key) if same(key.as_bytes(), name.as_bytes())),
        );
        if let Some(index) = declared {
            return u32::try_from(index).ok();
        }
        let arena = &self.list.arena;
        let is = |at: &TextRef| bytes_at(arena, *at).is_some_and(|key| same(key, name.as_bytes()));
        let index = match self.list.keys.iter().position(is) {
            Some(index) => index,
            None if self.writes.iter().any(
                |w| matches!(w, AttributeSelector::Prefix(p) if name.starts_with(p.as_str())),
            ) =>
            {
                let at = self.push(name.as_bytes())?;
                self.list.keys.push(at);
                self.list.keys.len() - 1
            }
            None => return None,
        };
        u32::try_from(index).ok()?.checked_add(FOUND_BY_PREFIX)
    }

    fn pack(&mut self, value: crate::Value<'_>) -> Option<(ValueKind, u64)> {
        use crate::Value;
        let (kind, bytes) = match value {
            Value::Bool(truth) => return Some((ValueKind::Boolean, u64::from(truth))),
            Value::Int(number) => return Some((ValueKind::Int, number.cast_unsigned())),
            Value::Double(number) => return Some((ValueKind::Double, number.to_bits())),
            // It never came in, so it cannot go out.
            Value::Elided { .. } => return None,
            Value::Text(text) => (ValueKind::Text, text.as_bytes()),
            Value::Json(text) => (ValueKind::Json, text.as_bytes()),
            Value::Bytes(bytes) => (ValueKind::Bytes, bytes),
        };
        let at = self.push(bytes)?;
        Some((kind, u64::from(at.offset) << 32 | u64::from(at.length)))
    }

    fn push(&mut self, bytes: &[u8]) -> Option<TextRef> {
        let at = TextRef {
            offset: u32::try_from(self.list.arena.len()).ok()?,
            length: u32::try_from(bytes.len()).ok()?,
        };
        self.list.arena.extend_from_slice(bytes);
        Some(at)
    }
}

impl<'v> From<&'v str> for crate::Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

impl<'v> From<&'v String> for crate::Value<'v> {
    fn from(text: &'v String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for crate::Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i64> for crate::Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for crate::Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_however_often_it_is_named() {
        let writes = [AttributeSelector::Prefix("app.".into()), AttributeSelector::Key("b".into())];
        let mut packer = Packer::new(&writes);
        let names: Vec<String> = (0..40).map(|n| format!("app.{n}")).collect();
        let expected: Vec<_> = (0..40).map(|n| Some(n + FOUND_BY_PREFIX)).collect();
        for _ in 0..2 {
            let found: Vec<_> = names.iter().map(|name| packer.index(name)).collect();
            assert_eq!(found, expected);
        }
        // The same memory holds one name after another, too.
        let mut reused = String::new();
        for (name, index) in [("app.7", Some(FOUND_BY_PREFIX + 7)), ("b", Some(1)), ("c", None)] {
            reused.replace_range(.., name);
            assert_eq!(packer.index(&reused), index, "{name}");
        }
        assert_eq!(packer.finish().keys.len(), 40);
    }
}
