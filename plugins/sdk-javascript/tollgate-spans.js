// Spans for enrichers and filters: attributes cross packed, in flat slots that point into an arena; this makes them look
// like objects, and packs the edits that go back.

const FOUND_BY_PREFIX = 0x80000000;
const LOW = 0xffffffffn;
const scratch = new DataView(new ArrayBuffer(8));

/** For `reads` and `writes`: attributes by key, or by prefix where a name ends in `*`. */
export const keys = (...names) =>
  names.map((n) => (n.endsWith("*") ? { tag: "prefix", val: n.slice(0, -1) } : { tag: "key", val: n }));

/** One span: `name`, `attributes`, and the contract's own fields as `raw`. */
class Span {
  constructor(raw, name, attributes) {
    Object.assign(this, { raw, name, attributes });
  }

  /** The value of an attribute, if it is text: anybody may have sent this span, with any type of value. */
  text(key) {
    return this.of("string", key);
  }

  /** The value of an attribute, if it is a whole number: a BigInt. */
  int(key) {
    return this.of("bigint", key);
  }

  of(type, key) {
    const value = this.attributes[key];
    return typeof value === type ? value : undefined;
  }
}

/** The spans of a batch. `reads` is what `describe` declared; the same key several times makes an array, integers are
 * BigInts, a value longer than the host's limit is undefined. */
export function spans(ctx, batch, reads) {
  const found = ctx.keys.map((at) => text(ctx.arena, at.offset, at.length));
  let start = 0;
  return batch.spans.map((raw) => {
    const slots = batch.slots.slice(start, raw.slotsEnd);
    start = raw.slotsEnd;
    const name = text(batch.arena, raw.name.offset, raw.name.length);
    return new Span(raw, name, attributes(slots, batch.arena, reads, found));
  });
}

/** Attributes of the resource, which all spans of the call share. */
export function resource(ctx, reads) {
  const found = ctx.keys.map((at) => text(ctx.arena, at.offset, at.length));
  return attributes(ctx.resourceAttributes, ctx.arena, reads, found);
}

/** Edits of a whole call as they are packed. `writes` is what `describe` declared. */
export class Edits {
  constructor(writes) {
    this.exact = new Map(writes.flatMap((w, i) => (w.tag === "key" ? [[w.val, i]] : [])));
    [this.edits, this.keys, this.places, this.bytes] = [[], [], new Map(), []];
  }

  /** Sets an attribute of the span at this place of the batch: text, boolean, BigInt, number, or an array of these.
   * A number is a double; write `7n` for an integer. */
  set(span, key, value) {
    this.edit(span, "set", key, value);
  }

  /** Sets an attribute where the span has none of that key. */
  setDefault(span, key, value) {
    this.edit(span, "set-default", key, value);
  }

  /** Removes an attribute. */
  remove(span, key) {
    this.edit(span, "remove", key, false);
  }

  /** The edits of the span at this place of the batch alone: `set`, `setDefault` and `remove` without it. */
  at(span) {
    return {
      set: (key, value) => this.set(span, key, value),
      setDefault: (key, value) => this.setDefault(span, key, value),
      remove: (key) => this.remove(span, key),
    };
  }

  /** What `enrich` answers. */
  finish() {
    return { edits: this.edits, keys: this.keys, arena: new Uint8Array(this.bytes) };
  }

  edit(span, op, key, value) {
    let index = this.exact.get(key) ?? this.places.get(key);
    if (index === undefined) {
      index = FOUND_BY_PREFIX + this.keys.length;
      this.places.set(key, index);
      this.keys.push(this.push(key));
    }
    for (const one of Array.isArray(value) ? value : [value]) {
      this.edits.push({ span, op, slot: { key: index, ...this.pack(one) } });
    }
  }

  pack(value) {
    if (typeof value === "boolean") return { kind: "boolean", bits: value ? 1n : 0n };
    if (typeof value === "bigint") return { kind: "int", bits: BigInt.asUintN(64, value) };
    if (typeof value === "number") {
      scratch.setFloat64(0, value);
      return { kind: "double", bits: scratch.getBigUint64(0) };
    }
    const { offset, length } = this.push(String(value));
    return { kind: "text", bits: (BigInt(offset) << 32n) | BigInt(length) };
  }

  push(string) {
    const offset = this.bytes.length;
    // One at a time: a spread of a long array runs out of stack.
    for (const byte of utf8(string)) this.bytes.push(byte);
    return { offset, length: this.bytes.length - offset };
  }
}

function attributes(slots, arena, reads, found) {
  const all = Object.create(null);
  for (const slot of slots) {
    const key = slot.key >= FOUND_BY_PREFIX ? found[slot.key - FOUND_BY_PREFIX] : reads[slot.key].val;
    const one = value(slot, arena);
    if (!(key in all)) all[key] = one;
    else if (Array.isArray(all[key])) all[key].push(one);
    else all[key] = [all[key], one];
  }
  return all;
}

function value({ kind, bits }, arena) {
  const [offset, length] = [Number(bits >> 32n), Number(bits & LOW)];
  switch (kind) {
    case "boolean":
      return bits !== 0n;
    case "int":
      return BigInt.asIntN(64, bits);
    case "double":
      scratch.setBigUint64(0, bits);
      return scratch.getFloat64(0);
    case "bytes":
      return arena.slice(offset, offset + length);
    case "elided":
      return undefined;
    default:
      return text(arena, offset, length);
  }
}

function text(arena, offset, length) {
  return decoder.decode(arena.subarray(offset, offset + length));
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();
const utf8 = (string) => encoder.encode(string);
