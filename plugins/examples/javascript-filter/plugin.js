// javascript-filter: decides what leaves, here without content and without health checks.

import schema from "./config.schema.json";
import { filter } from "./tollgate-filter.js";
import { keys } from "./tollgate-spans.js";

const READS = keys("http.route", "app.content.*");
const WRITES = keys("app.content.*");
let dropRoutes;

export const lifecycle = {
  describe() {
    return {
      name: "acme/javascript-filter",
      version: "0.1.0",
      description: "Removes content and drops spans by route",
      reads: READS,
      writes: WRITES,
      operations: [],
      maxBatch: 0,
      configSchema: JSON.stringify(schema),
    };
  },

  configure(host, config) {
    dropRoutes = JSON.parse(config || "{}").drop_routes ?? [];
  },
};

export const exportFilter = filter({
  reads: READS,
  writes: WRITES,

  span(ctx, span, edits) {
    if (dropRoutes.includes(span.text("http.route"))) return "drop";
    for (const key of Object.keys(span.attributes)) {
      if (key.startsWith("app.content.")) edits.remove(key);
    }
    return "keep";
  },
});
