// What all pages are made of.
import { useEffect, useId, useRef } from "preact/hooks";
import { words } from "./format.js";

const TONES = {
  completed: "good", priced: "good", serving: "good", closed: "good", healthy: "good", delivering: "good", accepting: "good",
  client_gone: "quiet", refused: "bad", failed: "bad", aborted: "bad", unpriced: "warn", plugin_failed: "bad",
  estimated: "warn", shadow: "info", held: "warn", disabled: "quiet", pending: "quiet", open: "bad", half_open: "warn",
  unhealthy: "bad", unknown: "quiet", failing: "bad", behind: "warn", revoked: "bad", expired: "quiet",
};

export function Badge({ of: name, title }) {
  return <span class={`badge ${TONES[name] ?? "quiet"}`} title={title}>{words(name)}</span>;
}

/** A page's heading, what it is about, and when it was loaded. */
export function Heading({ title, children, load }) {
  const heading = useRef(null);
  useEffect(() => {
    document.title = `${title} · Tollgate`;
    // Who came by a link reads on from here.
    heading.current?.focus({ preventScroll: true });
  }, [title]);
  return (
    <header class="heading">
      <div>
        <h1 ref={heading} tabIndex={-1}>{title}</h1>
        {children && <p class="lead">{children}</p>}
      </div>
      {load && (
        <p class="asof">
          {load.at && <span>as of {load.at.toLocaleTimeString(undefined, { hourCycle: "h23" })}</span>}
          <button type="button" class="plain" onClick={load.again}>Refresh</button>
        </p>
      )}
    </header>
  );
}

/** Something went wrong; what was loaded before stays below it. */
export function Trouble({ load }) {
  const { error, again } = load;
  if (!error || error.status === 401) return null;
  return (
    <div class="notice bad" role="alert">
      <p>{error.message}</p>
      <button type="button" onClick={again}>Try again</button>
    </div>
  );
}

export function Notice({ tone = "info", children }) {
  return <div class={`notice ${tone}`} role={tone === "bad" ? "alert" : "status"}>{children}</div>;
}

export function Empty({ title, children }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      <p>{children}</p>
    </div>
  );
}

export const Waiting = () => <p class="waiting" role="status">Loading…</p>;

/** The page of what is loaded, or what stands in its place. */
export function Loaded({ load, children }) {
  return (
    <>
      <Trouble load={load} />
      {load.data ? children(load.data) : !load.error && <Waiting />}
    </>
  );
}

export function Panel({ title, aside, children, wide }) {
  const id = useId();
  return (
    <section class={wide ? "panel wide" : "panel"} aria-labelledby={id}>
      <div class="panel-head"><h2 id={id}>{title}</h2>{aside}</div>
      {children}
    </section>
  );
}

/** A few figures, largest first. */
export function Figures({ of: figures }) {
  return (
    <dl class="figures">
      {figures.map(([name, value, note]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}{note && <small>{note}</small>}</dd>
        </div>
      ))}
    </dl>
  );
}

/** `columns`: [heading, row -> cell, classes: "number", "gauge", and "full" for a line of its own on a phone]. On a phone each row becomes a card. */
export function Table({ caption, columns, rows, rowKey, empty }) {
  if (!rows.length) return empty ?? null;
  return (
    // What scrolls must be within reach of the keyboard.
    <div class="scroll" role="region" aria-label={caption} tabIndex={0}>
      <table>
        <caption class="hidden">{caption}</caption>
        <thead><tr>{columns.map(([name, , kind]) => <th key={name} scope="col" class={kind}>{name}</th>)}</tr></thead>
        <tbody>
          {rows.map((row, place) => (
            <tr key={rowKey ? rowKey(row) : place}>
              {columns.map(([name, cell, kind], column) => column === 0
                ? <th key={name} scope="row" class={kind} data-name={name}>{cell(row)}</th>
                : <td key={name} class={kind} data-name={name}>{cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Field({ label, children }) {
  return <label class="field"><span>{label}</span>{children}</label>;
}

export function Select({ label, value, onChange, options }) {
  return (
    <Field label={label}>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([option, name]) => <option key={option} value={option} selected={option === value}>{name}</option>)}
      </select>
    </Field>
  );
}

/** How much of something is used, also as text. */
export function Meter({ value, most, children, warn }) {
  const share = most > 0 ? Math.min(1, value / most) : 1;
  const tone = share >= 1 ? "bad" : warn || share >= 0.8 ? "warn" : "good";
  return (
    <div class="meter">
      <span>{children}</span>
      <div class="track" aria-hidden="true"><div class={tone} style={{ width: `${Math.max(0, share) * 100}%` }} /></div>
    </div>
  );
}

/** Asks before something is done. */
export function Confirm({ ask, onDone }) {
  const dialog = useRef(null);
  const id = useId();
  useEffect(() => {
    if (!ask) return;
    const before = document.activeElement;
    dialog.current?.showModal();
    // The browser gives the focus back to where it was only if the dialog is still there when it closes.
    return () => before?.focus();
  }, [ask]);
  if (!ask) return null;
  const done = (yes) => {
    dialog.current?.close();
    onDone(yes);
  };
  return (
    <dialog ref={dialog} aria-labelledby={id} onCancel={() => onDone(false)}>
      <h2 id={id}>{ask.title}</h2>
      <p>{ask.text}</p>
      <div class="actions">
        <button type="button" onClick={() => done(false)}>Cancel</button>
        <button type="button" class="primary" onClick={() => done(true)}>{ask.yes}</button>
      </div>
    </dialog>
  );
}
