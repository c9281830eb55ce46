"""python-enricher: adds attributes to spans, here the team of a model and a class by size."""

import json
from pathlib import Path

from tollgate_spans import Edits, keys, spans
from wit_world import exports
from wit_world.exports.lifecycle import PluginInfo

# Read when the component is built: a plugin has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()
READS = keys("gen_ai.request.model", "gen_ai.usage.input_tokens")
WRITES = keys("app.team", "app.class")


class Lifecycle(exports.Lifecycle):
    def describe(self):
        description = "Labels requests with team and size"
        return PluginInfo("acme/python-enricher", "0.1.0", description, READS, WRITES, [], 0, SCHEMA)

    def configure(self, host, config):
        global TEAMS
        TEAMS = json.loads(config or "{}").get("teams", {})


class AttributeEnricher(exports.AttributeEnricher):
    def enrich(self, ctx, batch):
        edits = Edits(WRITES)
        for i, span in enumerate(spans(ctx, batch, READS)):
            team = TEAMS.get(span.text("gen_ai.request.model"))
            if team is not None:
                edits.set(i, "app.team", team)
            tokens = span.int("gen_ai.usage.input_tokens")
            if tokens is not None:
                edits.set_default(i, "app.class", "long" if tokens > 1000 else "short")
        return edits.finish()
