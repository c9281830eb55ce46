// Requests for cost models: their text crosses in one arena, which this reads.

/** What one request used: text where the contract has references into the arena, all other fields as they are. */
export function readUsage(raw, arena) {
  const read = (at) => at && text(arena, at);
  return {
    ...raw,
    provider: read(raw.provider),
    requestModel: read(raw.requestModel),
    responseModel: read(raw.responseModel),
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
