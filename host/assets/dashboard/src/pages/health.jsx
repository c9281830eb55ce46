// The ledger and the exporters that read it.
import { get, useLoad } from "../api.js";
import { bytes, count, milliseconds, seconds } from "../format.js";
import { Badge, Empty, Figures, Heading, Loaded, Meter, Notice, Panel, Table } from "../ui.jsx";

export function Health() {
  const load = useLoad(async (abort) => {
    const [ledger, { exporters }] = await Promise.all([get("ledger", abort), get("exporters", abort)]);
    return { ledger, exporters };
  }, "health", 5);
  return (
    <>
      <Heading title="Ledger & exporters" load={load}>A request is on record before its last byte goes out; exporters read from there, each at its own place.</Heading>
      <Loaded load={load}>{({ ledger, exporters }) => (
        <>
          {ledger.unavailable
            ? <Notice tone="bad"><p>New requests are refused: {ledger.unavailable}</p></Notice>
            : null}
          <Figures of={[
            ["Ledger", <Badge of={ledger.unavailable ? "failing" : "accepting"} />, ledger.durability === "power" ? "survives a power cut" : "survives kill -9, not a power cut"],
            ["Records", count(ledger.records), `${count(ledger.entries)} entries`],
            ["In flight", count(ledger.in_flight), `${count(ledger.finished)} ended since the start`],
            ["Commit, mean", ledger.commits ? milliseconds((ledger.commit_seconds / ledger.commits) * 1000) : "–", ledger.failed_commits ? `${count(ledger.failed_commits)} failed` : "none failed"],
          ]} />
          <Panel title="Room">
            <dl class="facts">
              <dt>Size</dt><dd>{ledger.budget_bytes
                ? <Meter value={ledger.bytes} most={ledger.budget_bytes}>{bytes(ledger.bytes)} of {bytes(ledger.budget_bytes)}</Meter>
                : bytes(ledger.bytes)}, in {count(ledger.files)} {ledger.files === 1 ? "file" : "files"}</dd>
              <dt>Journal</dt><dd>{bytes(ledger.journal_bytes)}</dd>
              <dt>Free on the disk</dt><dd>{bytes(ledger.free_bytes)}; below {bytes(ledger.min_free_bytes)} requests are refused</dd>
              <dt>Refused before they started</dt><dd>{count(ledger.refused)}</dd>
              <dt>Left by an earlier process</dt><dd>{count(ledger.aborted)}, put on record as aborted</dd>
            </dl>
          </Panel>
          <Panel title="Exporters" wide>
            <Table caption="How exporters do" rows={exporters} rowKey={(row) => row.name} columns={[
              ["Name", (row) => row.name],
              ["State", (row) => <Badge of={row.failing_seconds != null ? "failing" : row.oldest_pending_seconds > 60 ? "behind" : "delivering"} />],
              ["Waiting", (row) => count(row.pending), "number"],
              ["Oldest waits for", (row) => seconds(row.oldest_pending_seconds), "number full"],
              ["Delivered", (row) => count(row.delivered), "number"],
              ["Filtered", (row) => count(row.filtered), "number"],
              ["Rejected", (row) => count(row.rejected), "number"],
              ["Retries", (row) => count(row.retries), "number"],
              ["Last trouble", (row) => (row.trouble ? <span>{row.trouble.message} <small>{seconds(row.trouble.seconds_ago)} ago</small></span> : <span class="none">none</span>), "full"],
            ]} empty={<Empty title="No exporters.">Spans stay in the ledger. Name a receiver with <code>[[exporter]]</code> or <code>OTEL_EXPORTER_OTLP_ENDPOINT</code>.</Empty>} />
          </Panel>
        </>
      )}</Loaded>
    </>
  );
}
