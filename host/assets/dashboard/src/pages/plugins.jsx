// Plugins: what serves, how it does, what shadows would have billed, and the way back.
import { useState } from "preact/hooks";
import { get, post, useLoad } from "../api.js";
import { bytes, count, decimal, digest, milliseconds, time } from "../format.js";
import { Badge, Confirm, Empty, Heading, Loaded, Notice, Panel, Table } from "../ui.jsx";

const ACTIONS = {
  rollback: (plugin) => ({ title: `Roll ${plugin.file} back?`, yes: "Roll back", text: `${plugin.previous.name} ${plugin.previous.version} (${digest(plugin.previous.digest)}) serves again at once. The present content is not used again until other bytes are dropped or you enable it.` }),
  disable: (plugin) => ({ title: `Disable ${plugin.file}?`, yes: "Disable", text: "It stops serving at once and stays off, also after a restart, until you enable it. Requests that only it prices are recorded as unpriced." }),
  enable: (plugin) => ({ title: `Enable ${plugin.file}?`, yes: "Enable", text: "The content that the file holds now goes through the gate and serves if it passes." }),
  reload: () => ({ title: "Look at the plugin folder now?", yes: "Reload", text: "New and changed files are checked and serve if they pass. Requests under way keep the plugins that they began with." }),
};

export function Plugins() {
  const load = useLoad(async (abort) => {
    const [listed, shadow] = await Promise.all([get("plugins", abort), get("shadow", abort)]);
    const whole = await Promise.all(listed.plugins.map(({ file }) => get(`plugins/${encodeURIComponent(file)}`, abort)));
    return { generation: listed.generation, plugins: whole, shadow: shadow.series };
  }, "plugins", 10);
  const [asked, setAsked] = useState(null);
  const [said, setSaid] = useState(null);
  const act = async (yes) => {
    const { action, plugin } = asked;
    setAsked(null);
    if (!yes) return;
    try {
      await post(action === "reload" ? "plugins/reload" : `plugins/${encodeURIComponent(plugin.file)}/${action}`);
      setSaid({ tone: "good", text: `Done: ${action} ${plugin?.file ?? "of the folder"}.` });
    } catch (error) {
      setSaid({ tone: "bad", text: error.message });
    }
    load.again();
  };
  const ask = (action, plugin) => setAsked({ action, plugin, ...ACTIONS[action](plugin) });
  return (
    <>
      <Heading title="Plugins" load={load}>What prices requests, adds attributes and holds spans back. Each request keeps the set that it began with.</Heading>
      {said && <Notice tone={said.tone}><p>{said.text}</p></Notice>}
      <Loaded load={load}>{({ plugins, generation, shadow }) => (
        <>
          <p class="row"><button type="button" onClick={() => ask("reload")}>Reload the folder</button> <span class="quiet">Set {generation}</span></p>
          {plugins.length
            ? <div class="cards">{plugins.map((plugin) => <One key={plugin.file} plugin={plugin} ask={ask} />)}</div>
            : <Empty title="No plugins.">Drop <code>.wasm</code> files into the plugin folder: they serve at once. Until then no request has a price.</Empty>}
          <Shadow series={shadow} />
        </>
      )}</Loaded>
      <Confirm ask={asked} onDone={act} />
    </>
  );
}

function One({ plugin, ask }) {
  const name = plugin.plugin?.name ?? plugin.file;
  return (
    <Panel title={name} aside={<span class="badges"><Badge of={plugin.state} />{plugin.breaker.state !== "closed" && <Badge of={plugin.breaker.state} title="Its breaker" />}</span>}>
      {plugin.description && <p class="quiet">{plugin.description}</p>}
      {plugin.error && <Notice tone="bad"><p>{plugin.error.message}</p></Notice>}
      {plugin.held && <Notice tone="warn"><p>{plugin.held}</p></Notice>}
      <dl class="facts">
        <dt>File</dt><dd>{plugin.file}</dd>
        <dt>Role</dt><dd>{plugin.roles.join(", ") || "–"}</dd>
        <dt>Version</dt><dd>{plugin.plugin?.version ?? "–"}</dd>
        <dt>Digest</dt><dd><code title={plugin.plugin?.digest}>{digest(plugin.plugin?.digest)}</code></dd>
        <dt>Since</dt><dd>{plugin.since ? <time dateTime={plugin.since}>{time(plugin.since)}</time> : "–"}</dd>
        <dt>Breaker</dt><dd>{plugin.breaker.state.replace("_", " ")}{plugin.breaker.fault && `, last opened by ${plugin.breaker.fault}`}</dd>
        <dt>Previous</dt><dd>{plugin.previous ? <>{plugin.previous.version} <code title={plugin.previous.digest}>{digest(plugin.previous.digest)}</code></> : "nothing to go back to"}</dd>
      </dl>
      {plugin.meters?.length > 0 && <Table caption={`What ${name} did`} rows={plugin.meters} columns={[
        ["Role", (meter) => meter.role],
        ["Calls", (meter) => count(meter.calls), "number"],
        ["Median", (meter) => (meter.p50_ms == null ? "–" : `≤ ${milliseconds(meter.p50_ms)}`), "number"],
        ["99 %", (meter) => (meter.p99_ms == null ? "–" : `≤ ${milliseconds(meter.p99_ms)}`), "number"],
        ["Faults", (meter) => meter.faults.map(({ kind, count: n }) => `${kind} ${n}`).join(", ") || "none", "full"],
        ["Memory", (meter) => bytes(meter.memory_bytes), "number"],
      ]} />}
      <div class="actions">
        <button type="button" disabled={!plugin.previous} onClick={() => ask("rollback", plugin)}>Roll back<span class="hidden"> {plugin.file}</span></button>
        {plugin.enabled && plugin.state !== "held"
          ? <button type="button" onClick={() => ask("disable", plugin)}>Disable<span class="hidden"> {plugin.file}</span></button>
          : <button type="button" onClick={() => ask("enable", plugin)}>Enable<span class="hidden"> {plugin.file}</span></button>}
      </div>
    </Panel>
  );
}

function Shadow({ series }) {
  return (
    <Panel title="Shadow prices" wide>
      <Table caption="What shadow plugins would have billed" rows={series.flatMap((one) => (one.amounts.length ? one.amounts.map((sum) => ({ ...one, sum })) : [one]))} columns={[
        ["Plugin", (row) => `${row.plugin.name} ${row.plugin.version}`],
        ["Tenant", (row) => (row.other ? "all others" : row.tenant ?? "nobody")],
        ["Model", (row) => (row.other ? "all others" : row.model)],
        ["Same", (row) => count(row.requests.same), "number"],
        ["Cheaper", (row) => count(row.requests.cheaper), "number"],
        ["Dearer", (row) => count(row.requests.dearer), "number"],
        ["No price", (row) => count(row.requests.unpriced + row.requests.failed + row.requests.incomparable), "number"],
        ["Billed", (row) => (row.sum ? `${decimal(row.sum.billed)} ${row.sum.currency}` : "–"), "number full"],
        ["Shadow", (row) => (row.sum ? `${decimal(row.sum.shadow)} ${row.sum.currency}` : "–"), "number full"],
        ["Difference", (row) => (row.sum ? `${decimal(row.sum.difference)} ${row.sum.currency}` : "–"), "number full"],
      ]} empty={<Empty title="No plugin runs in the shadow.">Set <code>shadow = true</code> for one in <code>plugins.toml</code>: it prices live traffic beside the others and bills nobody.</Empty>} />
    </Panel>
  );
}
