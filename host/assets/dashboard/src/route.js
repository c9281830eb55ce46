// Which page is seen: all that it depends on stands behind the address's `#`, so that it can be linked to. Never a token.
import { signal } from "@preact/signals";

function read() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decodeURIComponent), search: new URLSearchParams(search) };
}

export const route = signal(read());
addEventListener("hashchange", () => {
  route.value = read();
});

export function link(path, values = {}) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return `#/${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** Goes there without a step back in the history, as filters do. */
export function replace(path, values) {
  history.replaceState(null, "", link(path, values));
  route.value = read();
}
