"""python-filter: decides what leaves, here without content and without health checks."""

import json
from pathlib import Path

from tollgate_filter import Filter
from tollgate_spans import keys
from wit_world import exports
from wit_world.exports.export_filter import Verdict
from wit_world.exports.lifecycle import PluginInfo

# Read when the component is built: a plugin has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()


class Lifecycle(exports.Lifecycle):
    def describe(self):
        description = "Removes content and drops spans by route"
        reads, writes = ExportFilter.READS, ExportFilter.WRITES
        return PluginInfo("acme/python-filter", "0.1.0", description, reads, writes, [], 0, SCHEMA)

    def configure(self, host, config):
        global DROP_ROUTES
        DROP_ROUTES = json.loads(config or "{}").get("drop_routes", [])


class ExportFilter(Filter):
    READS = keys("http.route", "app.content.*")
    WRITES = keys("app.content.*")

    def span(self, ctx, span, edits):
        if span.text("http.route") in DROP_ROUTES:
            return Verdict.DROP
        for key in span.attributes:
            if key.startswith("app.content."):
                edits.remove(key)
        return Verdict.KEEP
