"""python-cost: what a request cost, from a price list in its configuration."""

import json
from pathlib import Path

from componentize_py_types import Err
from tollgate_money import OutOfRange, Price
from tollgate_usage import Usage
from wit_world import exports
from wit_world.exports.cost_model import (
    CostKind,
    CostLine,
    Phase,
    Priced_Cost,
    Priced_Failed,
    Priced_Unpriced,
    UnpricedReason,
)
from wit_world.exports.lifecycle import ConfigError_Invalid, PluginInfo

# Read when the component is built: a plugin has no files.
SCHEMA = Path(__file__).with_name("config.schema.json").read_text()


class Row:
    """What one model costs."""

    def __init__(self, pointer, row, currency):
        allowed = {"match", "input", "output", "cache_read"}
        for key in row:
            check(key in allowed, f"{pointer}/{key}", "unknown field")
        self.match = row.get("match")
        self.input = price(pointer, row, "input", currency)
        self.output = price(pointer, row, "output", currency)
        self.cache_read = price(pointer, row, "cache_read", currency) if "cache_read" in row else None

    def lines(self, tokens):
        """One line for each count. Cached tokens are part of the input, so they are charged once, on their own line."""
        cached = tokens.input_cache_read if self.cache_read else 0
        if tokens.input_cache_read + tokens.input_cache_write > tokens.input:
            raise ValueError("more cached input tokens than input tokens")
        charged = [
            (CostKind.INPUT, tokens.input - cached, self.input),
            (CostKind.INPUT_CACHE_READ, cached, self.cache_read),
            (CostKind.OUTPUT, tokens.output, self.output),
        ]
        return [CostLine(kind, count, at.times(count)) for kind, count, at in charged if count]


class Lifecycle(exports.Lifecycle):
    def describe(self):
        return PluginInfo("acme/python-cost", "0.1.0", "A price list", [], [], [], 0, SCHEMA)

    def configure(self, host, config):
        global CURRENCY, ROWS, DEFAULT
        settings = json.loads(config or "{}")
        for key in settings:
            check(key in ("currency", "models", "default"), f"/{key}", "unknown field")
        CURRENCY = settings.get("currency", "USD")
        rows = [Row(f"/models/{i}", row, CURRENCY) for i, row in enumerate(settings.get("models", []))]
        ROWS = {row.match: row for row in reversed(rows)}  # of two rows for a model, the first
        DEFAULT = Row("/default", settings["default"], CURRENCY) if "default" in settings else None


class CostModel(exports.CostModel):
    def currency(self):
        return CURRENCY

    def price(self, ctx, usage, arena):
        return priced(Usage(usage, arena))


def priced(usage):
    row = ROWS.get(usage.model, DEFAULT)
    if row is None:
        return Priced_Unpriced(UnpricedReason.UNKNOWN_MODEL)
    if not (usage.tokens.input or usage.tokens.output) and usage.phase == Phase.FINAL:
        # A request that ended normally read at least one token, so nobody counted.
        return Priced_Unpriced(UnpricedReason.MISSING_USAGE)
    try:
        return Priced_Cost(row.lines(usage.tokens))
    except (OutOfRange, ValueError) as error:
        return Priced_Failed(str(error))


def price(pointer, row, key, currency):
    try:
        value = Price(row[key])
    except KeyError:
        refuse(pointer, f"`{key}` is missing")
    except ValueError as error:
        refuse(f"{pointer}/{key}", str(error))
    check(value.currency in (None, currency), f"{pointer}/{key}", f"the price is in {value.currency}, not {currency}")
    return value


def check(condition, pointer, message):
    if not condition:
        refuse(pointer, message)


def refuse(pointer, message):
    raise Err(ConfigError_Invalid((pointer, message)))
