// Requests: what is being served now, and the newest on record, filtered.
import { useEffect, useState } from "preact/hooks";
import { get, query, useLoad } from "../api.js";
import { count, milliseconds, money, time, words } from "../format.js";
import { link, replace, route } from "../route.js";
import { Badge, Empty, Field, Heading, Loaded, Panel, Select, Table } from "../ui.jsx";

const FILTERS = ["tenant", "model", "outcome", "status", "since", "id"];
const OUTCOMES = ["completed", "client_gone", "refused", "failed", "aborted"];
const STATUSES = ["priced", "estimated", "unpriced", "plugin_failed"];
const any = (names) => [["", "any"], ...names.map((name) => [name, words(name)])];

export function Requests() {
  const { search } = route.value;
  const filter = Object.fromEntries(FILTERS.map((name) => [name, search.get(name) ?? ""]));
  const before = search.get("before");
  const [every, setEvery] = useState("5");
  const asked = query({ ...filter, before, limit: 50 });
  const load = useLoad((abort) => get(`requests${asked}`, abort), asked, before ? 0 : Number(every));
  const live = useLoad((abort) => get("requests/in-flight", abort), "in flight", Number(every) || 0);
  const set = (name, value) => replace("requests", { ...filter, [name]: value });
  const filtered = FILTERS.some((name) => filter[name]);
  return (
    <>
      <Heading title="Requests" load={load}>What is being served now, and what was: newest first, from the ledger.</Heading>
      <form class="filters" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
        <Typed label="Tenant" value={filter.tenant} onChange={(value) => set("tenant", value)} />
        <Typed label="Model" value={filter.model} onChange={(value) => set("model", value)} />
        <Select label="Outcome" value={filter.outcome} onChange={(value) => set("outcome", value)} options={any(OUTCOMES)} />
        <Select label="Price" value={filter.status} onChange={(value) => set("status", value)} options={any(STATUSES)} />
        <Select label="Ended" value={filter.since} onChange={(value) => set("since", value)}
          options={[["", "at any time"], ["15m", "last 15 minutes"], ["1h", "last hour"], ["1d", "last day"], ["1w", "last week"]]} />
        <Typed label="Request or trace id" value={filter.id} onChange={(value) => set("id", value)} />
        <Select label="Refresh" value={every} onChange={setEvery} options={[["5", "every 5 s"], ["30", "every 30 s"], ["0", "by hand"]]} />
        {filtered && <button type="button" class="plain" onClick={() => replace("requests", {})}>Clear filters</button>}
      </form>
      {!before && <Live load={live} />}
      <Loaded load={load}>{(page) => (
        <Panel title="On record" aside={<span class="aside">{page.requests.length} shown</span>}>
          <Table caption="Requests on record" rows={page.requests} rowKey={(row) => row.number} columns={COLUMNS}
            empty={<Nothing filtered={filtered} more={page.next} />} />
          <nav class="pages" aria-label="Pages of requests">
            {before && <a href={link("requests", filter)}>Newest</a>}
            {page.next && <a href={link("requests", { ...filter, before: page.next })}>Older requests</a>}
          </nav>
        </Panel>
      )}</Loaded>
    </>
  );
}

const COLUMNS = [
  ["No.", (row) => <a href={link(`requests/${row.number}`)} aria-label={`Request ${row.number}`}>{row.number}</a>],
  ["Ended", (row) => <time dateTime={row.ended} title={row.ended}>{time(row.ended)}</time>],
  ["Tenant", (row) => row.tenant ?? <span class="none">nobody</span>],
  ["Model", (row) => <span title={row.served_model ?? ""}>{row.model || "–"}</span>],
  ["Outcome", (row) => <Badge of={row.outcome} title={row.message ?? row.reason ?? ""} />],
  ["Duration", (row) => milliseconds(row.duration_ms), "number"],
  ["First token", (row) => milliseconds(row.first_token_ms), "number"],
  ["In", (row) => count(row.tokens?.input), "number"],
  ["Out", (row) => count(row.tokens?.output), "number"],
  ["Cost", (row) => (row.cost.amount == null || row.cost.status !== "priced"
    ? <>{money(row.cost)} <Badge of={row.cost.status} title={row.cost.reason ?? ""} /></>
    : money(row.cost)), "number full"],
];

/** A text that filters once it is left or Enter is pressed. */
function Typed({ label, value, onChange }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const done = () => text.trim() !== value && onChange(text.trim());
  return (
    <Field label={label}>
      <input type="search" value={text} autocomplete="off" spellcheck={false} placeholder="any" onInput={(event) => setText(event.currentTarget.value)}
        onBlur={done} onKeyDown={(event) => event.key === "Enter" && done()} onSearch={done} />
    </Field>
  );
}

function Nothing({ filtered, more }) {
  if (more) return <Empty title="None among those that were looked at.">Older requests may match: go on to them.</Empty>;
  if (filtered) return <Empty title="No request matches.">Clear a filter, or choose a longer time.</Empty>;
  return <Empty title="No requests yet.">Send one to <code>/v1/chat/completions</code> on the gateway’s own address; it appears here once it has ended.</Empty>;
}

function Live({ load }) {
  if (!load.data) return null;
  const rows = load.data.requests;
  const running = rows.length;
  return (
    <Panel title="In flight" aside={<span class="aside" aria-live="polite">{running ? `${running} being served` : "nothing is being served"}</span>}>
      {running > 0 && <Table caption="Requests in flight" rows={rows} rowKey={(row) => row.id} columns={[
        ["Request", (row) => <code>{row.id.slice(0, 8)}…{row.id.slice(-4)}</code>],
        ["Tenant", (row) => row.tenant ?? <span class="none">nobody</span>],
        ["Model", (row) => row.model],
        ["Running for", (row) => milliseconds(row.running_ms), "number full"],
        ["In so far", (row) => count(row.tokens.input), "number"],
        ["Out so far", (row) => count(row.tokens.output), "number"],
      ]} />}
    </Panel>
  );
}
