// javascript-trace-filter: judges whole traces, here by errors, feedback and cost, and a share of the rest by their ids.

import schema from "./config.schema.json";
import { filter } from "./tollgate-filter.js";
import { picos } from "./tollgate-money.js";
import { keys } from "./tollgate-spans.js";

const READS = keys("app.feedback", "tollgate.cost.amount", "tollgate.cost.currency");
// As many bits of a trace's id are random.
const ALL = 1n << 56n;
let rules;

export const lifecycle = {
  describe() {
    return {
      name: "acme/javascript-trace-filter",
      version: "0.1.0",
      description: "Keeps traces that failed, that were rated or that cost much, and a share of the others",
      reads: READS,
      writes: [],
      operations: [],
      maxBatch: 0,
      configSchema: JSON.stringify(schema),
    };
  },

  configure(host, config) {
    const { feedback = [], keep_cost, currency = "USD", share = 0 } = JSON.parse(config || "{}");
    rules = { feedback, keepCost: picos(keep_cost), currency, share: BigInt(Math.trunc(share * Number(ALL))) };
  },
};

export const exportFilter = filter({
  reads: READS,
  writes: [],

  batch(ctx, spans) {
    return failed(spans) || rated(spans) || costly(spans) || shared(spans) ? "keep" : "drop";
  },
});

const failed = (spans) => spans.some(({ raw }) => raw.status === "error");

const rated = (spans) => spans.some((span) => rules.feedback.includes(span.text("app.feedback")));

function costly(spans) {
  if (rules.keepCost === undefined) return false;
  let sum = 0n;
  for (const span of spans) {
    if (span.text("tollgate.cost.currency") === rules.currency) sum += picos(span.text("tollgate.cost.amount")) ?? 0n;
  }
  return sum >= rules.keepCost;
}

// As the gateway's own `sample`: the highest ids are kept, so that everybody keeps the same traces.
const shared = (spans) => spans.slice(0, 1).some(({ raw }) => raw.context.traceId.low % ALL >= ALL - rules.share);
