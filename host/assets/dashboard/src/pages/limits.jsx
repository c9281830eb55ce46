// Limits and budgets: what keys, tenants and models may use, and have used.
import { get, useLoad } from "../api.js";
import { count, decimal, seconds } from "../format.js";
import { Badge, Empty, Heading, Loaded, Meter, Notice, Panel, Table } from "../ui.jsx";

export function Limits() {
  const load = useLoad((abort) => get("limits", abort), "limits", 10);
  return (
    <>
      <Heading title="Limits & budgets" load={load}>What counts towards a rate is given back evenly within a minute; budgets count money, with what requests in flight have reserved.</Heading>
      <Loaded load={load}>{(all) => (
        <>
          {all.trouble && <Notice tone="bad"><p>The file of keys cannot be used as it is now, so the last good one holds: {all.trouble}</p></Notice>}
          {all.redis_away && <Notice tone="bad"><p>Redis is away: limits are kept as <code>redis-away</code> says. {count(all.waiting_for_redis)} requests wait to be told to it.</p></Notice>}
          {all.open && <Notice tone="warn"><p>There are no keys: everybody is let in, and the field <code>user</code> of a request names its tenant. Make one with <code>tollgate key create</code>.</p></Notice>}
          <Panel title="Tenants" wide aside={all.all_tenants > all.tenants.length && <span class="aside">{count(all.tenants.length)} of {count(all.all_tenants)}</span>}>
            <Table caption="Limits of tenants" rows={all.tenants} rowKey={(row) => row.name} columns={[["Tenant", (row) => row.name], ...STANDING]}
              empty={<Empty title="No tenant is named.">All of them may use what <code>[defaults.limits]</code> in <code>keys.toml</code> says: {rates(all.defaults) || "no limit"}. Name one with <code>[[tenant]]</code>.</Empty>} />
          </Panel>
          <Panel title="Keys" wide aside={all.all_keys > all.keys.length && <span class="aside">{count(all.keys.length)} of {count(all.all_keys)}</span>}>
            <Table caption="Limits of keys" rows={all.keys} rowKey={(row) => row.id} columns={[
              ["Key", (row) => <span><code>{row.id}</code> {row.revoked && <Badge of="revoked" />}{row.expires && Date.parse(row.expires) < Date.now() && <Badge of="expired" />}</span>],
              ["Tenant", (row) => row.tenant],
              ["Note", (row) => row.note ?? "–"],
              ["Models", (row) => row.models.join(", ") || "all"],
              ...STANDING,
            ]} empty={<Empty title="No keys.">Make one with <code>tollgate key create --tenant NAME</code>.</Empty>} />
          </Panel>
          {all.models.length > 0 && <Panel title="Models">
            <Table caption="Limits of what each tenant asks of a model" rows={all.models} columns={[
              ["Models", (row) => <code>{row.pattern}</code>],
              ["Of each tenant", (row) => rates(row.limits) || "no limit"],
            ]} />
          </Panel>}
        </>
      )}</Loaded>
    </>
  );
}

function rates(limits) {
  const told = [[limits.requests_per_minute, "requests a minute"], [limits.tokens_per_minute, "tokens a minute"], [limits.concurrent, "at a time"]];
  return told.filter(([limit]) => limit != null).map(([limit, unit]) => `${count(limit)} ${unit}`).join(", ");
}

const rate = (limit, used) => (row) => {
  const most = row.limits[limit];
  if (most == null) return <span class="none">no limit</span>;
  if (!row.used) return `of ${count(most)}`;
  return <Meter value={row.used[used]} most={most}>{count(row.used[used])} of {count(most)}</Meter>;
};

const STANDING = [
  ["Requests a minute", rate("requests_per_minute", "requests"), "gauge"],
  ["Tokens a minute", rate("tokens_per_minute", "tokens"), "gauge"],
  ["At a time", rate("concurrent", "in_flight"), "gauge"],
  ["Budgets", (row) => (row.budgets.length
    ? row.budgets.map((budget) => (
      <Meter key={budget.per + budget.currency} value={Number(budget.spent)} most={Number(budget.amount)} warn={budget.soft_reached}>
        {decimal(budget.spent)} of {budget.amount} {budget.currency} {budget.per === "total" ? "in all" : `a ${budget.per}`}
        {budget.resets_in_seconds != null && <small> anew in {seconds(budget.resets_in_seconds)}</small>}
      </Meter>
    ))
    : <span class="none">none</span>), "gauge"],
];
