// javascript-cost: what a request cost, from a price list in its configuration.

import schema from "./config.schema.json";
import { Price } from "./tollgate-money.js";
import { readUsage } from "./tollgate-usage.js";

let currency, rows, fallback;

export const lifecycle = {
  describe() {
    return {
      name: "acme/javascript-cost",
      version: "0.1.0",
      description: "A price list",
      reads: [],
      writes: [],
      operations: [],
      maxBatch: 0,
      configSchema: JSON.stringify(schema),
    };
  },

  configure(host, config) {
    const settings = JSON.parse(config || "{}");
    known(settings, ["currency", "models", "default"], "");
    currency = settings.currency ?? "USD";
    rows = new Map();
    for (const [i, row] of (settings.models ?? []).entries()) {
      const read = readRow(row, `/models/${i}`);
      if (!rows.has(row.match)) rows.set(row.match, read); // of two rows for a model, the first
    }
    fallback = settings.default && readRow(settings.default, "/default");
  },
};

export const costModel = {
  currency: () => currency,
  price: (ctx, usage, arena) => priced(readUsage(usage, arena)),
};

function priced({ model, tokens, phase }) {
  const row = rows.get(model) ?? fallback;
  if (!row) return { tag: "unpriced", val: "unknown-model" };
  if (!tokens.input && !tokens.output && phase === "final") {
    // A request that ended normally read at least one token, so nobody counted.
    return { tag: "unpriced", val: "missing-usage" };
  }
  try {
    return { tag: "cost", val: lines(row, tokens) };
  } catch (error) {
    return { tag: "failed", val: error.message };
  }
}

/** One line for each count. Cached tokens are part of the input, so they are charged once, on their own line. */
function lines(row, tokens) {
  if (tokens.inputCacheRead + tokens.inputCacheWrite > tokens.input) {
    throw new Error("more cached input tokens than input tokens");
  }
  const cached = row.cacheRead ? tokens.inputCacheRead : 0n;
  return [
    ["input", tokens.input - cached, row.input],
    ["input-cache-read", cached, row.cacheRead],
    ["output", tokens.output, row.output],
  ]
    .filter(([, quantity]) => quantity)
    .map(([kind, quantity, price]) => ({ kind, quantity, amount: price.times(quantity) }));
}

function readRow(row, pointer) {
  known(row, ["match", "input", "output", "cache_read"], pointer);
  const price = (key) => {
    if (!(key in row)) refuse(pointer, `\`${key}\` is missing`);
    let value;
    try {
      value = new Price(row[key]);
    } catch (error) {
      refuse(`${pointer}/${key}`, error.message);
    }
    if (value.currency && value.currency !== currency) {
      refuse(`${pointer}/${key}`, `the price is in ${value.currency}, not ${currency}`);
    }
    return value;
  };
  return { input: price("input"), output: price("output"), cacheRead: "cache_read" in row && price("cache_read") };
}

function known(object, keys, pointer) {
  const other = Object.keys(object).find((key) => !keys.includes(key));
  if (other !== undefined) refuse(`${pointer}/${other}`, "unknown field");
}

/** Refuses the configuration: what is thrown is the contract's `config-error`. */
function refuse(pointer, message) {
  throw { tag: "invalid", val: [pointer, message] };
}
