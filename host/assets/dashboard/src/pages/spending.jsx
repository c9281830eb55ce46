// Cost, tokens and latency: over time, and by tenant and model.
import { useMemo, useState } from "preact/hooks";
import { get, query, useLoad } from "../api.js";
import { amounts, compact, count, milliseconds, of, time } from "../format.js";
import { Chart } from "../chart.jsx";
import { link, replace, route } from "../route.js";
import { Empty, Figures, Heading, Loaded, Notice, Panel, Select, Table } from "../ui.jsx";

const PERIODS = { "15m": ["last 15 minutes", "30s", 900], "1h": ["last hour", "1m", 3600], "1d": ["last day", "30m", 86400], "1w": ["last week", "4h", 604800], "30d": ["last 30 days", "1d", 2592000] };
const BY = { "tenant,model": "tenant and model", tenant: "tenant", model: "model", plugin: "cost plugin" };

export function Spending() {
  const { search } = route.value;
  const period = PERIODS[search.get("period")] ? search.get("period") : "1h";
  const by = BY[search.get("by")] ? search.get("by") : "tenant,model";
  const tenant = search.get("tenant") ?? "";
  const model = search.get("model") ?? "";
  const set = (values) => replace("spending", { period, by, tenant, model, ...values });
  const [, bucket] = PERIODS[period];
  const only = { since: period, tenant, model };
  const key = JSON.stringify([by, only]);
  const load = useLoad(async (abort) => {
    // One after the other: the gateway adds up for one at a time.
    const groups = await get(`totals${query({ by, ...only })}`, abort);
    const times = await get(`totals${query({ by: "time", bucket, ...only })}`, abort);
    return { groups, times };
  }, key, 30);
  // Who and what there is to choose from, whatever is chosen. It changes seldom, and adding up takes time.
  const found = useLoad((abort) => get(`totals${query({ by: "tenant,model", since: period })}`, abort), period, 120);
  return (
    <>
      <Heading title="Cost & latency" load={load}>Sums of the ledger, exact to the last digit. A request belongs to the time that it began.</Heading>
      <form class="filters" aria-label="What is summed up" onSubmit={(event) => event.preventDefault()}>
        <Select label="Period" value={period} onChange={(value) => set({ period: value })} options={Object.entries(PERIODS).map(([id, [name]]) => [id, name])} />
        <Select label="Group by" value={by} onChange={(value) => set({ by: value })} options={Object.entries(BY)} />
        <Select label="Tenant" value={tenant} onChange={(value) => set({ tenant: value })} options={choices(found.data, "tenant", tenant)} />
        <Select label="Model" value={model} onChange={(value) => set({ model: value })} options={choices(found.data, "model", model)} />
        {(tenant || model) && <button type="button" class="plain" onClick={() => set({ tenant: "", model: "" })}>Clear filters</button>}
      </form>
      <Loaded load={load}>{({ groups, times }) => (groups.total.requests
        ? <Sums groups={groups} times={times} period={PERIODS[period]} />
        : tenant || model
          ? <Empty title="No request matches.">Clear a filter, or choose a longer period.</Empty>
          : <Empty title="No requests in this period.">Choose a longer one, or send requests to the gateway.</Empty>)}</Loaded>
    </>
  );
}

/** All, and each that had requests in the period; what the address names stands there even if it had none. */
function choices(found, name, chosen) {
  const names = new Set((found?.groups ?? []).map((group) => group[name]).filter(Boolean));
  if (chosen) names.add(chosen);
  return [["", "all"], ...[...names].sort().map((one) => [one, one])];
}

function Sums({ groups, times, period }) {
  const { total } = groups;
  const unpriced = Object.values(total.cost_status.unpriced).reduce((a, b) => a + b, 0);
  const failed = Object.values(total.cost_status.plugin_failed).reduce((a, b) => a + b, 0);
  const lost = Object.entries(total.outcomes).filter(([name]) => name !== "completed" && name !== "client_gone");
  return (
    <>
      {groups.cut_off && <Notice tone="warn"><p>There are more requests than one answer adds up: these are the newest {count(groups.records)}, since {time(groups.cut_off)}. For all of them run <code>tollgate report</code>.</p></Notice>}
      <Figures of={[
        ["Cost", amounts(total.amounts), unpriced + failed ? `${count(unpriced + failed)} requests without an amount` : "every request has an amount"],
        ["Requests", count(total.requests), lost.length ? of(Object.fromEntries(lost)) : "none refused or failed"],
        ["Tokens", compact(total.tokens.input + total.tokens.output), `${compact(total.tokens.input)} in, ${compact(total.tokens.output)} out`],
        ["Duration, median", milliseconds(total.duration_ms?.p50), total.duration_ms && `99 % within ${milliseconds(total.duration_ms.p99)}`],
      ]} />
      <Charts times={times} period={period} />
      <Panel title={`By ${groups.by.join(" and ")}`} wide>
        <Table caption={`Sums by ${groups.by.join(" and ")}`} rows={groups.groups} columns={[
          ...groups.by.map(column),
          ["Requests", (row) => count(row.requests), "number"],
          ["Cost", (row) => amounts(row.amounts), "number full"],
          ["No amount", (row) => of({ ...row.cost_status.unpriced, ...row.cost_status.plugin_failed }) || "–", "full"],
          ["In", (row) => count(row.tokens.input), "number"],
          ["Out", (row) => count(row.tokens.output), "number"],
          ["Median", (row) => milliseconds(row.duration_ms?.p50), "number"],
          ["99 %", (row) => milliseconds(row.duration_ms?.p99), "number"],
          ["First token", (row) => milliseconds(row.first_token_ms?.p50), "number"],
        ]} />
      </Panel>
    </>
  );
}

function column(name) {
  const heading = name[0].toUpperCase() + name.slice(1);
  if (name === "plugin") return [heading, (row) => (row.plugin ? `${row.plugin.name} ${row.plugin.version}` : "–")];
  return [heading, (row) => (row[name] == null ? <span class="none">nobody</span> : <a href={link("requests", { [name]: row[name] })}>{row[name]}</a>)];
}

const axis = (n) => n.toLocaleString("en-US", { maximumSignificantDigits: 3 });

/** Every bucket of the period, those without requests too. */
function buckets(times, length) {
  const step = times.bucket_seconds;
  const now = Math.floor(Date.now() / 1000);
  const found = new Map(times.groups.map((group) => [Math.floor(Date.parse(group.time) / 1000), group]));
  const first = Math.ceil((now - length) / step) * step;
  const all = [];
  for (let at = first; at <= now; at += step) all.push([at, found.get(at)]);
  return all;
}

function Charts({ times, period }) {
  const currencies = [...new Set(times.groups.flatMap((group) => group.amounts.map(({ currency }) => currency)))].sort();
  const [chosen, setChosen] = useState("");
  const currency = currencies.includes(chosen) ? chosen : currencies[0];
  const drawn = useMemo(() => {
    const all = buckets(times, period[2]);
    const of = (value) => all.map(([, group]) => (group ? value(group) : null));
    const exact = all.map(([, group]) => group?.amounts.find((sum) => sum.currency === currency)?.amount ?? "0");
    return {
      at: all.map(([at]) => at),
      cost: [[currency, "--a", exact.map(Number), (_, place) => `${exact[place]} ${currency}`]],
      tokens: [["in", "--a", of((group) => group.tokens.input).map((n) => n ?? 0)], ["out", "--b", of((group) => group.tokens.output).map((n) => n ?? 0)]],
      latency: [["median", "--a", of((group) => group.duration_ms?.p50)], ["99 %", "--b", of((group) => group.duration_ms?.p99)]],
      requests: [["requests", "--a", of((group) => group.requests).map((n) => n ?? 0)]],
    };
  }, [times, currency]);
  const step = times.bucket_seconds;
  return (
    <div class="charts">
      <Panel title="Cost" aside={currencies.length > 1 && <Select label="Currency" value={currency} onChange={setChosen} options={currencies.map((code) => [code, code])} />}>
        {currency
          ? <Chart title={`Cost in ${currency}`} times={drawn.at} series={drawn.cost} step={step} format={axis} />
          : <Empty title="Nothing has an amount.">Add a cost plugin that knows these models.</Empty>}
      </Panel>
      <Panel title="Requests"><Chart title="Requests" times={drawn.at} series={drawn.requests} step={step} format={compact} /></Panel>
      <Panel title="Tokens"><Chart title="Tokens" times={drawn.at} series={drawn.tokens} step={step} format={compact} /></Panel>
      <Panel title="Duration"><Chart title="Duration of completed requests" times={drawn.at} series={drawn.latency} step={step} format={milliseconds} /></Panel>
    </div>
  );
}
