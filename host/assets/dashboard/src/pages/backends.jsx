// Backends: the other servers that requests go to.
import { get, useLoad } from "../api.js";
import { count } from "../format.js";
import { Badge, Empty, Heading, Loaded, Panel, Table } from "../ui.jsx";

export function Backends() {
  const load = useLoad((abort) => get("backends", abort), "backends", 5);
  return (
    <>
      <Heading title="Backends" load={load}>Other servers that requests go to. Counts are since the gateway began.</Heading>
      <Loaded load={load}>{({ backends }) => (backends.length ? (
        <Panel title="Servers" wide>
          <Table caption="Backends" rows={backends} rowKey={(row) => row.name} columns={[
            ["Name", (row) => row.name],
            ["Address", (row) => <code>{row.url}</code>, "full"],
            ["Kind", (row) => `${row.kind}, ${row.provider}`, "full"],
            ["Health", (row) => <><Badge of={row.health} />{row.problem && <small> {row.problem}</small>}</>, "full"],
            ["Breaker", (row) => <><Badge of={row.breaker} />{row.breaker_openings > 0 && <small> opened {count(row.breaker_openings)} times</small>}</>, "full"],
            ["In flight", (row) => (row.max_in_flight == null ? count(row.in_flight) : `${count(row.in_flight)} of ${count(row.max_in_flight)}`), "number"],
            ["Answered", (row) => count(row.attempts.answered), "number"],
            ["Refused", (row) => count(row.attempts.refused), "number"],
            ["Failed", (row) => count(row.attempts.failed), "number"],
            ["Broken off", (row) => count(row.attempts.broken), "number"],
            ["Weight", (row) => row.weight, "number"],
          ]} />
        </Panel>
      ) : (
        <Empty title="No other servers.">Requests are served by the model in this process. Name servers in <code>backends.toml</code> and start with <code>--backends</code>.</Empty>
      ))}</Loaded>
    </>
  );
}
