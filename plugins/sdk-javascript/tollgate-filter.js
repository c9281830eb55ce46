// Export filters: a batch is asked about as a whole, then span by span, and the answers are packed.

import { Edits, spans } from "./tollgate-spans.js";

const keep = () => "keep";

/** Makes a plugin's `exportFilter`. `reads` and `writes` are what `describe` declared; both functions may be left out.
 *
 * `batch(ctx, spans)` looks at all spans of a batch before it is asked about each; `"drop"` drops them all. Where
 * `plugins.toml` says `whole-traces = true` and the exporter waits for traces, a batch is one whole trace (in parts if it
 * has more spans than the plugin's `maxBatch`). Otherwise it is any spans of one tenant.
 *
 * `span(ctx, span, edits)` keeps or drops one span; the edits redact a span that is kept. */
export const filter = ({ reads, writes, batch = keep, span = keep }) => ({
  filter(ctx, raw) {
    const edits = new Edits(writes);
    const every = spans(ctx, raw, reads);
    if (batch(ctx, every) === "drop") return { verdicts: every.map(() => "drop"), edits: edits.finish() };
    const verdicts = every.map((one, i) => span(ctx, one, edits.at(i)));
    return { verdicts, edits: edits.finish() };
  },
});
