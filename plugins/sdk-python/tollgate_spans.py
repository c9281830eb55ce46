"""Spans for enrichers and filters: attributes cross packed, in flat slots that point into an arena; this makes them look
like dictionaries, and packs the edits that go back. Only for worlds with spans."""

import struct

from wit_world.exports.lifecycle import AttributeSelector_Key, AttributeSelector_Prefix
from wit_world.imports.edits import Edit, EditList, EditOp
from wit_world.imports.types import Slot, TextRef, ValueKind

FOUND_BY_PREFIX = 0x80000000


def keys(*names):
    """For `reads` and `writes`: attributes by key, or by prefix where a name ends in `*`."""
    return [AttributeSelector_Prefix(n[:-1]) if n.endswith("*") else AttributeSelector_Key(n) for n in names]


class Span:
    """One span: `name`, `attributes`, and the contract's own fields as `raw`."""

    def __init__(self, raw, name, attributes):
        self.raw, self.name, self.attributes = raw, name, attributes

    def text(self, key):
        """The value of an attribute, if it is text: anybody may have sent this span, with any type of value."""
        return self._of(str, key)

    def int(self, key):
        """The value of an attribute, if it is a whole number."""
        return self._of(int, key)

    def _of(self, kind, key):
        value = self.attributes.get(key)
        # Not isinstance: True is an int there.
        return value if type(value) is kind else None


def spans(ctx, batch, reads):
    """The spans of a batch. `reads` is what `describe` declared; the same key several times makes a list."""
    found = [_text(ctx.arena, at.offset, at.length) for at in ctx.keys]
    start = 0
    for raw in batch.spans:
        name = _text(batch.arena, raw.name.offset, raw.name.length)
        yield Span(raw, name, _attributes(batch.slots[start : raw.slots_end], batch.arena, reads, found))
        start = raw.slots_end


def resource(ctx, reads):
    """Attributes of the resource, which all spans of the call share."""
    found = [_text(ctx.arena, at.offset, at.length) for at in ctx.keys]
    return _attributes(ctx.resource_attributes, ctx.arena, reads, found)


class Edits:
    """Edits of a whole call as they are packed. `writes` is what `describe` declared."""

    def __init__(self, writes):
        self._exact = {w.value: i for i, w in enumerate(writes) if isinstance(w, AttributeSelector_Key)}
        self._edits, self._keys, self._places, self._arena = [], [], {}, bytearray()

    def set(self, span, key, value):
        """Sets an attribute of the span at this place of the batch: text, bool, int, float, or a list of these."""
        self._edit(span, EditOp.SET, key, value)

    def set_default(self, span, key, value):
        """Sets an attribute where the span has none of that key."""
        self._edit(span, EditOp.SET_DEFAULT, key, value)

    def remove(self, span, key):
        """Removes an attribute."""
        self._edit(span, EditOp.REMOVE, key, False)

    def at(self, span):
        """The edits of the span at this place of the batch alone."""
        return SpanEdits(self, span)

    def finish(self):
        """What `enrich` answers."""
        return EditList(self._edits, self._keys, bytes(self._arena))

    def _edit(self, span, op, key, value):
        index = self._exact.get(key)
        if index is None:
            if key not in self._places:
                self._places[key] = FOUND_BY_PREFIX + len(self._keys)
                self._keys.append(TextRef(*self._push(key)))
            index = self._places[key]
        for one in value if isinstance(value, list) else [value]:
            self._edits.append(Edit(span, op, Slot(index, *self._pack(one))))

    def _pack(self, value):
        if isinstance(value, bool):
            return ValueKind.BOOLEAN, int(value)
        if isinstance(value, int):
            return ValueKind.INT, value & (2**64 - 1)
        if isinstance(value, float):
            return ValueKind.DOUBLE, struct.unpack("<Q", struct.pack("<d", value))[0]
        offset, length = self._push(str(value))
        return ValueKind.TEXT, offset << 32 | length

    def _push(self, text):
        at = len(self._arena)
        self._arena += text.encode()
        return at, len(self._arena) - at


class SpanEdits:
    """`Edits` of one span of the call."""

    def __init__(self, edits, span):
        self._edits, self._span = edits, span

    def set(self, key, value):
        """Sets an attribute: text, bool, int, float, or a list of these."""
        self._edits.set(self._span, key, value)

    def set_default(self, key, value):
        """Sets an attribute where the span has none of that key."""
        self._edits.set_default(self._span, key, value)

    def remove(self, key):
        """Removes an attribute."""
        self._edits.remove(self._span, key)


def _attributes(slots, arena, reads, found):
    attributes = {}
    for slot in slots:
        key = found[slot.key - FOUND_BY_PREFIX] if slot.key >= FOUND_BY_PREFIX else reads[slot.key].value
        value = _value(slot, arena)
        if key not in attributes:
            attributes[key] = value
        elif isinstance(attributes[key], list):
            attributes[key].append(value)
        else:
            attributes[key] = [attributes[key], value]
    return attributes


def _value(slot, arena):
    match slot.kind:
        case ValueKind.BOOLEAN:
            return slot.bits != 0
        case ValueKind.INT:
            return slot.bits - 2**64 if slot.bits >= 2**63 else slot.bits
        case ValueKind.DOUBLE:
            return struct.unpack("<d", struct.pack("<Q", slot.bits))[0]
        case ValueKind.ELIDED:
            return None  # longer than the host's limit and left out
        case ValueKind.BYTES:
            return arena[slot.bits >> 32 :][: slot.bits & 0xFFFFFFFF]
    return _text(arena, slot.bits >> 32, slot.bits & 0xFFFFFFFF)


def _text(arena, offset, length):
    return arena[offset : offset + length].decode()
