// The admin API: who asks, what is asked, what is said when it fails.
import { signal } from "@preact/signals";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

const KEPT = "tollgate-admin-token";

// The token stays in this tab, and is sent as a header only.
const token = signal(sessionStorage.getItem(KEPT) ?? "");

/** Why the page asks for a token, or null while it does not. */
export const locked = signal(null);

export function unlock(given) {
  token.value = given;
  sessionStorage.setItem(KEPT, given);
  locked.value = null;
}

export function forget() {
  token.value = "";
  sessionStorage.removeItem(KEPT);
  locked.value = { message: "You are signed out." };
}

/** Whether this tab has a token. */
export const hasToken = () => token.value !== "";

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, abort) {
  const headers = { accept: "application/json" };
  const used = token.value;
  if (used) headers.authorization = `Bearer ${used}`;
  let answer;
  try {
    answer = await fetch(`../admin/${path}`, { method, headers, signal: abort, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway does not answer. Is it running, and is its admin address still this one?");
  }
  const body = await answer.json().catch((error) => {
    // Whoever gave up asking is not told half an answer, least of all over the whole one of another question.
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (answer.ok && body) return body;
  const message = body?.error?.message ?? `The gateway answered with status ${answer.status}.`;
  // What was asked before another token was given says nothing of that one.
  if (answer.status === 401 && used === token.value) locked.value = { message: used ? message : null };
  throw new ApiError(answer.status, message);
}

export const get = (path, abort) => ask("GET", path, abort);
export const post = (path) => ask("POST", path);

/** `name=value&..` of those that have a value. */
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/**
 * What `load` answers, loaded again every so many seconds (0: never) while the page is seen.
 * An answer stays while the next is waited for; an error does not remove it.
 */
export function useLoad(load, key, seconds) {
  const [state, setState] = useState({ key, data: null, error: null, at: null });
  const running = useRef(null);
  const latest = useRef(load);
  latest.current = load;
  const again = useCallback(async () => {
    running.current?.abort();
    const abort = new AbortController();
    running.current = abort;
    try {
      const data = await latest.current(abort.signal);
      if (!abort.signal.aborted) setState({ key, data, error: null, at: new Date() });
    } catch (error) {
      if (!abort.signal.aborted) setState((old) => ({ ...old, key, data: old.key === key ? old.data : null, error }));
    }
  }, [key]);
  const lock = locked.value;
  useEffect(() => {
    if (lock) return undefined;
    again();
    const timer = seconds ? setInterval(() => document.hidden || again(), seconds * 1000) : null;
    return () => {
      clearInterval(timer);
      running.current?.abort();
    };
  }, [again, seconds, lock]);
  const fresh = state.key === key;
  return { data: fresh ? state.data : null, error: fresh ? state.error : null, at: state.at, again };
}
