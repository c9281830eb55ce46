"""Export filters: a batch is asked about as a whole, then span by span, and the answers are packed. Only for worlds with a
filter."""

from tollgate_spans import Edits, spans
from wit_world import exports
from wit_world.exports.export_filter import Filtered, Verdict


class Filter(exports.ExportFilter):
    """To derive a plugin's `ExportFilter` from. `READS` and `WRITES` are what `describe` declares."""

    READS, WRITES = [], []

    def batch(self, ctx, spans):
        """Looks at all spans of a batch before it is asked about each; `Verdict.DROP` drops them all.

        Where `plugins.toml` says `whole-traces = true` and the exporter waits for traces, a batch is one whole trace (in
        parts if it has more spans than the plugin's `max_batch`). Otherwise it is any spans of one tenant."""
        return Verdict.KEEP

    def span(self, ctx, span, edits):
        """Keeps or drops one span; the edits redact a span that is kept."""
        return Verdict.KEEP

    def filter(self, ctx, batch):
        """What the gateway calls."""
        edits, every = Edits(self.WRITES), list(spans(ctx, batch, self.READS))
        if self.batch(ctx, every) == Verdict.DROP:
            return Filtered([Verdict.DROP] * len(every), edits.finish())
        verdicts = [self.span(ctx, span, edits.at(i)) for i, span in enumerate(every)]
        return Filtered(verdicts, edits.finish())
