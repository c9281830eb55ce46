// Requests for cost models: their text crosses in one arena, which this reads.

/** What one request used: text where the contract has references into the arena, all other fields as they are. */
export function readUsage(raw, arena) {
  const read = (at) => at && text(arena, at);
  const [provider, requestModel, responseModel] = [raw.provider, raw.requestModel, raw.responseModel].map(read);
  return {
    ...raw,
    provider,
    requestModel,
    responseModel,
    // The one to look up in a price list. Of another server it is the one that was asked there: what clients call it is an
    // alias. A model in the gateway's own process has no price but that of the name it was asked for by.
    model: provider === "tollgate" ? requestModel : responseModel,
    operation: read(raw.operation),
    serviceTier: read(raw.serviceTier),
    compute: raw.compute && { ...raw.compute, device: read(raw.compute.device) },
    units: (raw.units ?? []).map((one) => ({ ...one, unit: read(one.unit) })),
  };
}

/** Who pays; undefined where the operator has configured no tenancy. */
export function tenant(ctx, arena) {
  return ctx.tenant && text(arena, ctx.tenant);
}

function text(arena, { offset, length }) {
  return decoder.decode(arena.subarray(offset, offset + length));
}

const decoder = new TextDecoder();
