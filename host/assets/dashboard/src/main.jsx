// The page: navigation, the token, and one of the views.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { useRef, useState } from "preact/hooks";
import { forget, hasToken, locked, unlock } from "./api.js";
import { link, route } from "./route.js";
import { Empty, Heading } from "./ui.jsx";
import { Backends } from "./pages/backends.jsx";
import { Health } from "./pages/health.jsx";
import { Limits } from "./pages/limits.jsx";
import { Plugins } from "./pages/plugins.jsx";
import { RequestPage } from "./pages/request.jsx";
import { Requests } from "./pages/requests.jsx";
import { Spending } from "./pages/spending.jsx";

const PAGES = [
  ["requests", "Requests", Requests],
  ["spending", "Cost & latency", Spending],
  ["plugins", "Plugins", Plugins],
  ["limits", "Limits", Limits],
  ["backends", "Backends", Backends],
  ["health", "Ledger & exporters", Health],
];

function View() {
  const [name = "requests", number] = route.value.path;
  if (name === "requests" && number) return <RequestPage key={number} number={number} />;
  const page = PAGES.find(([path]) => path === name);
  if (!page) {
    return (
      <>
        <Heading title="No such page" />
        <Empty title="There is nothing at this address.">Choose a page from the navigation.</Empty>
      </>
    );
  }
  const Page = page[2];
  return <Page />;
}

function Gate() {
  const [given, setGiven] = useState("");
  const { message } = locked.value;
  return (
    <main class="gate" id="content">
      <form onSubmit={(event) => {
        event.preventDefault();
        if (given.trim()) unlock(given.trim());
      }}>
        <h1>Tollgate</h1>
        <p id="why">The admin API of this gateway asks for its token: what <code>admin-token-file</code> or <code>TOLLGATE_ADMIN_TOKEN</code> holds.
          It is kept in this tab until you close it.</p>
        {message && <p class="notice bad" role="alert">{message}</p>}
        <label class="field"><span>Admin token</span>
          <input type="password" name="token" autocomplete="off" autofocus required value={given} aria-describedby="why"
            onInput={(event) => setGiven(event.currentTarget.value)} />
        </label>
        <button type="submit" class="primary">Open</button>
      </form>
    </main>
  );
}

function App() {
  const content = useRef(null);
  if (locked.value) return <Gate />;
  const [current = "requests"] = route.value.path;
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        content.current?.focus();
      }}>Skip to content</a>
      <div class="shell">
        <header class="bar">
          <a class="brand" href={link("requests")}><span aria-hidden="true" class="mark" />Tollgate</a>
          <nav aria-label="Pages">
            <ul>
              {PAGES.map(([path, name]) => (
                <li key={path}><a href={link(path)} aria-current={path === current ? "page" : undefined}>{name}</a></li>
              ))}
            </ul>
          </nav>
          {hasToken() && <button type="button" class="plain out" onClick={forget}>Sign out</button>}
        </header>
        <main id="content" ref={content} tabIndex={-1}><View /></main>
      </div>
    </>
  );
}

render(<App />, document.getElementById("app"));
