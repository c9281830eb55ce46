// One request: what it was and cost, and its trace as a waterfall.
import { useState } from "preact/hooks";
import { get, query, useLoad } from "../api.js";
import { count, milliseconds, money, words } from "../format.js";
import { link } from "../route.js";
import { Badge, Empty, Figures, Heading, Loaded, Notice, Panel, Select, Table } from "../ui.jsx";

export function RequestPage({ number }) {
  const [exporter, setExporter] = useState("");
  const asked = query({ exporter });
  const load = useLoad((abort) => get(`requests/${number}${asked}`, abort), asked, 0);
  const exporters = useLoad((abort) => get("exporters", abort), "exporters", 0);
  return (
    <>
      <p class="back"><a href={link("requests")}>All requests</a></p>
      <Heading title={`Request ${number}`} load={load} />
      <Loaded load={load}>{(request) => (
        <>
          <Summary request={request} />
          <Panel title="Trace" wide aside={
            <Select label="Spans" value={exporter} onChange={setExporter}
              options={[["", "before any filter"], ...(exporters.data?.exporters ?? []).map(({ name }) => [name, `as they leave by ${name}`])]} />
          }>
            {request.spans.length
              ? <Waterfall spans={request.spans} />
              : <Empty title="No span of this request leaves by this exporter.">A filter plugin holds all of them back.</Empty>}
          </Panel>
          <Cost cost={request.cost} />
        </>
      )}</Loaded>
    </>
  );
}

function Summary({ request }) {
  return (
    <>
      {request.message && <Notice tone="bad"><p>{request.message}</p></Notice>}
      <Figures of={[
        ["Outcome", <Badge of={request.outcome} />, request.reason && words(request.reason)],
        ["Cost", money(request.cost) ?? <Badge of={request.cost.status} />, words(request.cost.reason ?? request.cost.status)],
        ["Duration", milliseconds(request.duration_ms), request.first_token_ms != null && `first token after ${milliseconds(request.first_token_ms)}`],
        ["Tokens", request.tokens ? `${count(request.tokens.input)} → ${count(request.tokens.output)}` : "–", request.tokens && words(request.tokens.source)],
      ]} />
      <dl class="facts">
        <dt>Tenant</dt><dd>{request.tenant ? <a href={link("requests", { tenant: request.tenant })}>{request.tenant}</a> : "nobody"}</dd>
        <dt>Model</dt><dd><a href={link("requests", { model: request.model })}>{request.model}</a>{request.served_model && request.served_model !== request.model && ` served by ${request.served_model}`}</dd>
        <dt>Provider</dt><dd>{request.provider ?? "–"}</dd>
        <dt>Answered</dt><dd>{request.http_status}, {request.stream ? "streamed" : "in one piece"}, {request.operation}</dd>
        <dt>Began</dt><dd><time dateTime={request.began}>{request.began}</time></dd>
        <dt>Request</dt><dd><code>{request.id}</code></dd>
        <dt>Trace</dt><dd><code>{request.trace_id}</code></dd>
      </dl>
    </>
  );
}

/** Each span with its depth, parents before children. */
function tree(spans) {
  const ids = new Set(spans.map((span) => span.span_id));
  const below = (parent, depth) => spans
    .filter((span) => (ids.has(span.parent_span_id) ? span.parent_span_id : null) === parent)
    .flatMap((span) => [{ span, depth }, ...below(span.span_id, depth + 1)]);
  return below(null, 0);
}

function Waterfall({ spans }) {
  const start = Math.min(...spans.map((span) => span.start_time_ns));
  const end = Math.max(...spans.map((span) => span.end_time_ns));
  const length = Math.max(1, end - start);
  const share = (ns) => `${Math.min(100, Math.max(0, ((ns - start) / length) * 100))}%`;
  const after = (ns) => milliseconds((ns - start) / 1e6);
  return (
    <>
      <div class="scale" aria-hidden="true">{[0, 0.25, 0.5, 0.75, 1].map((part) => <span key={part}>{milliseconds((length * part) / 1e6)}</span>)}</div>
      <ol class="waterfall">
        {tree(spans).map(({ span, depth }) => (
          <li key={span.span_id}>
            <details open={depth === 0}>
              <summary>
                <span class="span-name" style={{ paddingInlineStart: `${depth * 14}px` }}>{span.name}</span>
                <span class="lane" aria-hidden="true">
                  <span class={`span-bar ${span.status === "ERROR" ? "bad" : depth ? "child" : "root"}`}
                    style={{ left: share(span.start_time_ns), width: `max(3px, calc(${share(span.end_time_ns)} - ${share(span.start_time_ns)}))` }} />
                  {span.events.map((event, place) => <i key={place} class="event" style={{ left: share(event.time_ns) }} title={event.name} />)}
                </span>
                <span class="span-time">{milliseconds(span.duration_ms)}</span>
              </summary>
              <div class="span-body">
                <p class="quiet">{span.kind.toLowerCase()} span, {after(span.start_time_ns)} after the start{span.status !== "UNSET" && `, ${span.status.toLowerCase()}`}{span.status_message && `: ${span.status_message}`}</p>
                {span.events.length > 0 && (
                  <>
                    <h3>Events</h3>
                    <ul class="events">
                      {span.events.map((event, place) => (
                        <li key={place}><strong>{event.name}</strong> after {after(event.time_ns)}
                          <Attributes of={event.attributes} /></li>
                      ))}
                    </ul>
                  </>
                )}
                <h3>Attributes</h3>
                <Attributes of={span.attributes} />
              </div>
            </details>
          </li>
        ))}
      </ol>
    </>
  );
}

function Attributes({ of: attributes }) {
  const all = Object.entries(attributes);
  if (!all.length) return <p class="quiet">none</p>;
  return (
    <dl class="attributes">
      {all.map(([name, value]) => (
        <div key={name}><dt>{name}</dt><dd>{typeof value === "object" ? JSON.stringify(value) : String(value)}</dd></div>
      ))}
    </dl>
  );
}

function Cost({ cost }) {
  const { plugin, lines } = cost;
  return (
    <Panel title="Price">
      {cost.message && <Notice tone="bad"><p>{cost.message}</p></Notice>}
      <Table caption="Lines of the price" rows={lines} columns={[
        ["Line", (line) => words(line.kind)],
        ["Quantity", (line) => count(line.quantity), "number"],
        ["Amount", (line) => `${line.amount} ${cost.currency}`, "number full"],
      ]} empty={<Empty title={`No amount: ${words(cost.reason ?? cost.status)}.`}>{plugin
        ? "See the plugin’s page for what is wrong with it."
        : "Add a cost plugin that knows this model, and price the past with tollgate reprice."}</Empty>} />
      {cost.amount != null && <p class="total">Total <strong>{cost.amount} {cost.currency}</strong></p>}
      {plugin && (
        <dl class="facts">
          <dt>Plugin</dt><dd>{plugin.name} {plugin.version}</dd>
          <dt>Digest</dt><dd><code>{plugin.digest}</code></dd>
          {cost.config_digest && <><dt>Configuration</dt><dd><code>{cost.config_digest}</code></dd></>}
        </dl>
      )}
    </Panel>
  );
}
