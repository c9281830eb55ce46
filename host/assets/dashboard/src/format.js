// How figures are written. Amounts of money are exact decimal strings and stay text: only charts make numbers of them.

const whole = new Intl.NumberFormat("en-US");
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => (n == null ? "–" : whole.format(n));
export const compact = (n) => (n == null ? "–" : short.format(n));

/** A length of time in milliseconds. */
export function milliseconds(ms) {
  if (ms == null) return "–";
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;
  return seconds(ms / 1000);
}

export function seconds(s) {
  if (s == null) return "–";
  if (s < 60) return `${s < 10 ? s.toFixed(2) : s.toFixed(1)} s`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => s >= size);
  const [unit, size] = units[first];
  const rest = Math.floor((s % size) / (units[first + 1]?.[1] ?? 1));
  return `${Math.floor(s / size)} ${unit}${rest ? ` ${rest} ${units[first + 1][0]}` : ""}`;
}

export function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) [n, unit] = [n / 1024, unit + 1];
  return `${unit && n < 100 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** A decimal string with so many places, more where it begins with zeros, marked where that left something out. */
export function decimal(text, places = 6) {
  const [units, part = ""] = text.split(".");
  if (!/[1-9]/.test(units)) places = Math.max(places, part.search(/[1-9]/) + 6);
  const grouped = units.replace(/\B(?=(\d{3})+$)/g, ",");
  const kept = part.slice(0, places).replace(/0+$/, "");
  const lost = /[1-9]/.test(part.slice(places));
  if (lost && !/[1-9]/.test(units + kept)) return text;
  return `${grouped}${kept || lost ? `.${kept}` : ""}${lost ? "…" : ""}`;
}

export const money = ({ amount, currency }) => (amount == null ? null : `${decimal(amount)} ${currency}`);
export const amounts = (list) => (list.length ? list.map(money).join(" + ") : "–");

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** The time of today, and the day of what is older. */
export function time(text) {
  const at = new Date(text);
  return Date.now() - at < 43_200_000 ? clock.format(at) : day.format(at);
}

export const words = (name) => name?.replaceAll("_", " ") ?? "–";
export const digest = (text) => text?.slice(0, 12) ?? "–";
export const of = (counts) => Object.entries(counts).map(([name, n]) => `${words(name)} ${count(n)}`).join(", ");
