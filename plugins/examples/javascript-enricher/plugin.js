// javascript-enricher: adds attributes to spans, here the team of a model and a class by size.

import schema from "./config.schema.json";
import { Edits, keys, spans } from "./tollgate-spans.js";

const READS = keys("gen_ai.request.model", "gen_ai.usage.input_tokens");
const WRITES = keys("app.team", "app.class");
let teams;

export const lifecycle = {
  describe() {
    return {
      name: "acme/javascript-enricher",
      version: "0.1.0",
      description: "Labels requests with team and size",
      reads: READS,
      writes: WRITES,
      operations: [],
      maxBatch: 0,
      configSchema: JSON.stringify(schema),
    };
  },

  configure(host, config) {
    teams = new Map(Object.entries(JSON.parse(config || "{}").teams ?? {}));
  },
};

export const attributeEnricher = {
  enrich(ctx, batch) {
    const edits = new Edits(WRITES);
    for (const [i, span] of spans(ctx, batch, READS).entries()) {
      const team = teams.get(span.text("gen_ai.request.model"));
      if (team !== undefined) edits.set(i, "app.team", team);
      const tokens = span.int("gen_ai.usage.input_tokens");
      if (tokens !== undefined) edits.setDefault(i, "app.class", tokens > 1000n ? "long" : "short");
    }
    return edits.finish();
  },
};
