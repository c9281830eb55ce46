"""python-trace-filter: judges whole traces, here by errors, feedback and cost, and a share of the rest by their ids."""

import json
from pathlib import Path

from tollgate_filter import Filter
from tollgate_money import picos
from tollgate_spans import keys
from wit_world import exports
from wit_world.exports.export_filter import Verdict
from wit_world.exports.lifecycle import PluginInfo
from wit_world.imports.types import Status

# Read when the component is built: a plugin has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()
# As many bits of a trace's id are random.
ALL = 1 << 56


class Lifecycle(exports.Lifecycle):
    def describe(self):
        description = "Keeps traces that failed, that were rated or that cost much, and a share of the others"
        return PluginInfo("acme/python-trace-filter", "0.1.0", description, ExportFilter.READS, [], [], 0, SCHEMA)

    def configure(self, host, config):
        global FEEDBACK, KEEP_COST, CURRENCY, SHARE
        rules = json.loads(config or "{}")
        FEEDBACK = rules.get("feedback", [])
        KEEP_COST = picos(rules.get("keep_cost"))
        CURRENCY = rules.get("currency", "USD")
        SHARE = int(rules.get("share", 0) * ALL)


class ExportFilter(Filter):
    READS = keys("app.feedback", "tollgate.cost.amount", "tollgate.cost.currency")

    def batch(self, ctx, spans):
        kept = failed(spans) or rated(spans) or costly(spans) or shared(spans)
        return Verdict.KEEP if kept else Verdict.DROP


def failed(spans):
    return any(span.raw.status == Status.ERROR for span in spans)


def rated(spans):
    return any(span.text("app.feedback") in FEEDBACK for span in spans)


def costly(spans):
    if KEEP_COST is None:
        return False
    costs = [s.text("tollgate.cost.amount") for s in spans if s.text("tollgate.cost.currency") == CURRENCY]
    return sum(picos(cost) or 0 for cost in costs) >= KEEP_COST


def shared(spans):
    # As the gateway's own `sample`: the highest ids are kept, so that everybody keeps the same traces.
    return any(span.raw.context.trace_id.low % ALL >= ALL - SHARE for span in spans[:1])
