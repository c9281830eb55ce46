"""python-filter: decides what leaves, here without content and without health checks."""

import json
from pathlib import Path

from tollgate_spans import Edits, keys, spans
from wit_world import exports
from wit_world.exports.export_filter import Filtered, Verdict
from wit_world.exports.lifecycle import PluginInfo

# Read when the component is built: a plugin has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()
READS = keys("http.route", "app.content.*")
WRITES = keys("app.content.*")


class Lifecycle(exports.Lifecycle):
    def describe(self):
        description = "Removes content and drops spans by route"
        return PluginInfo("acme/python-filter", "0.1.0", description, READS, WRITES, [], 0, SCHEMA)

    def configure(self, host, config):
        global DROP_ROUTES
        DROP_ROUTES = json.loads(config or "{}").get("drop_routes", [])


class ExportFilter(exports.ExportFilter):
    def filter(self, ctx, batch):
        edits, verdicts = Edits(WRITES), []
        for i, span in enumerate(spans(ctx, batch, READS)):
            if span.attributes.get("http.route") in DROP_ROUTES:
                verdicts.append(Verdict.DROP)
                continue
            verdicts.append(Verdict.KEEP)
            for key in span.attributes:
                if key.startswith("app.content."):
                    edits.remove(i, key)
        return Filtered(verdicts, edits.finish())
