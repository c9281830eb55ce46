"""Requests for cost models: their text crosses in one arena, which this reads. Only for worlds with a cost model."""


class Usage:
    """What one request used: text where the contract has references into the arena, all other fields as they are."""

    def __init__(self, raw, arena):
        self.provider = _text(arena, raw.provider)
        self.request_model = _text(arena, raw.request_model)
        self.response_model = _text(arena, raw.response_model)
        # The one to look up in a price list. Of another server it is the one that was asked there: what clients call it is
        # an alias. A model in the gateway's own process has no price but that of the name it was asked for by.
        self.model = self.request_model if self.provider == "tollgate" else self.response_model
        self.operation = _text(arena, raw.operation)
        self.service_tier = raw.service_tier and _text(arena, raw.service_tier)
        self.phase, self.source, self.start = raw.phase, raw.source, raw.start
        self.tokens = raw.tokens
        self.compute = raw.compute
        self.device = raw.compute and _text(arena, raw.compute.device)
        self.units = {_text(arena, unit.unit): unit.quantity_micros for unit in raw.units or []}


def tenant(ctx, arena):
    """Who pays; None where the operator has configured no tenancy."""
    return ctx.tenant and _text(arena, ctx.tenant)


def _text(arena, at):
    return arena[at.offset : at.offset + at.length].decode()
